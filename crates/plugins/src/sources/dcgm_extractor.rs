//! `dcgm-extractor`: how busy the GPUs of an endpoint are.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::Endpoint;
use inlane_core::plugin::{Extraction, Extractor, Findings, Part, Roles};
use inlane_core::registry::PluginType;

use crate::ignored::ignore;

/// The type `dcgm-extractor`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("dcgm-extractor", |build, params| {
    ignore(build, params);
    build.report(GPU_UTILIZATION);
    Ok(Roles::default().part(Part::Extractor).extractor(Arc::new(DcgmExtractor)))
})
.alpha();

/// The custom metric: the share of time in which a kernel ran, 0 to 1.
pub const GPU_UTILIZATION: &str = "GPUUtilization";

/// The exporter's metric, in percent, one series per GPU.
const FAMILY: &[u8] = b"DCGM_FI_DEV_GPU_UTIL";
/// Longest line; longer ones are skipped.
const MAX_LINE: usize = 64 * 1_024;

/// The greatest `DCGM_FI_DEV_GPU_UTIL / 100` over the series of the endpoint's pod: those whose label
/// `pod` names it, and those without such a label (llm-d-router `dcgm-extractor`).
#[derive(Debug)]
struct DcgmExtractor;

impl Extractor for DcgmExtractor {
    fn begin(&self, endpoint: &Endpoint) -> Box<dyn Extraction> {
        let pod = format!("\"{}\"", endpoint.pod_name);
        Box::new(Page { pod, line: Vec::new(), is_too_long: false, greatest: None })
    }
}

#[derive(Debug)]
struct Page {
    /// The pod's name in quotes, as a label value.
    pod: String,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    is_too_long: bool,
    greatest: Option<f64>,
}

impl Page {
    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !std::mem::take(&mut self.is_too_long)
            && let Some(percent) = self.percent(&line)
        {
            self.greatest = Some(self.greatest.map_or(percent, |known| known.max(percent)));
        }
        self.line = line;
        self.line.clear();
    }

    /// The value of a series of this pod.
    fn percent(&self, line: &[u8]) -> Option<f64> {
        let rest = std::str::from_utf8(line.strip_prefix(FAMILY)?).ok()?;
        let value = match rest.strip_prefix('{') {
            None => rest.strip_prefix(' ')?,
            Some(rest) => {
                let (labels, value) = rest.rsplit_once('}')?;
                if pod_of(labels).is_some_and(|pod| pod != self.pod) {
                    return None;
                }
                value
            }
        };
        let number: f64 = value.split_ascii_whitespace().next()?.parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number)
    }
}

/// The value of the label `pod`, in its quotes.
fn pod_of(labels: &str) -> Option<&str> {
    let mut rest = labels;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let end = closing_quote(after)?;
        let (value, next) = after.split_at_checked(end)?;
        if name.trim_start_matches([',', ' ']).trim_end() == "pod" {
            // An empty label is as none.
            return (value.len() > 2).then_some(value);
        }
        rest = next;
    }
}

/// Where the quoted text at the beginning of `text` ends.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    let body = text.strip_prefix('"')?;
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 2),
            _ => {}
        }
    }
    None
}

impl Extraction for Page {
    fn chunk(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            self.is_too_long |= self.line.len() + text.len() > MAX_LINE;
            if !self.is_too_long {
                self.line.extend_from_slice(text);
            }
            if ends {
                self.end_of_line();
            }
        }
    }

    fn finish(mut self: Box<Self>, found: &mut Findings<'_>) -> Result<(), PluginError> {
        self.end_of_line();
        let Some(percent) = self.greatest else {
            return Err(PluginError::Failed("no DCGM_FI_DEV_GPU_UTIL of this pod".into()));
        };
        found.scalar(0, percent / 100.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_page;
    use super::*;
    use crate::testing::World;

    /// What is found for the pod `a`.
    fn utilization(text: &str, size: usize) -> Option<f64> {
        let mut world = World::new(1);
        let built = world.build("dcgm-extractor", "").unwrap();
        assert_eq!(built.data.reports, ["GPUUtilization"]);
        let (scalars, _, complete) = read_page(&built.roles, &world.endpoints[0], text, size);
        assert_eq!(complete, !scalars[0].is_nan());
        complete.then_some(scalars[0])
    }

    #[test]
    fn the_busiest_gpu_of_the_pod_counts() {
        let page = "# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).\n\
            # TYPE DCGM_FI_DEV_GPU_UTIL gauge\n\
            DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-1\",pod=\"a\",namespace=\"x\"} 30\n\
            DCGM_FI_DEV_GPU_UTIL{gpu=\"1\",pod=\"a\"} 75 1700000000\n\
            DCGM_FI_DEV_GPU_UTIL{gpu=\"2\",pod=\"b\"} 99\n\
            DCGM_FI_DEV_GPU_UTIL_OTHER{gpu=\"0\",pod=\"a\"} 100\n\
            DCGM_FI_DEV_MEM_COPY_UTIL{gpu=\"0\",pod=\"a\"} 98";
        for size in [1, 13, 4_096] {
            assert_eq!(utilization(page, size), Some(0.75));
        }
    }

    #[test]
    fn series_without_a_pod_are_the_pods_own() {
        for line in [
            "DCGM_FI_DEV_GPU_UTIL 50",
            "DCGM_FI_DEV_GPU_UTIL{} 50",
            "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 50\n",
            "DCGM_FI_DEV_GPU_UTIL{pod=\"\",gpu=\"0\"} 5e1",
            "DCGM_FI_DEV_GPU_UTIL{model=\"a } \\\" pod=b\", pod=\"a\"} 50",
        ] {
            assert_eq!(utilization(line, 64), Some(0.5), "{line}");
        }
    }

    #[test]
    fn nothing_of_the_pod_is_an_error() {
        let long = format!("DCGM_FI_DEV_GPU_UTIL{{x=\"{}\"}} 1\n", "x".repeat(MAX_LINE));
        for page in [
            "",
            "DCGM_FI_DEV_GPU_UTIL{pod=\"b\"} 50",
            "DCGM_FI_DEV_GPU_UTIL{pod=\"a\"} NaN",
            "DCGM_FI_DEV_GPU_UTIL{pod=\"a\"} -1",
            "DCGM_FI_DEV_GPU_UTIL{pod=\"a\"}",
            "DCGM_FI_DEV_GPU_UTIL{pod=\"a\"",
            &long,
        ] {
            assert_eq!(utilization(page, 1_000), None, "{}", &page[..page.len().min(60)]);
        }
        assert_eq!(utilization(&format!("{long}DCGM_FI_DEV_GPU_UTIL 7\n"), 1_000), Some(0.07));
    }
}
