//! Latency targets that clients put into headers.

use inlane_core::request::Request;

/// Headers with the target for the time to first token, in ms; the first one present counts.
const TTFT: [&str; 2] = ["x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"];
/// Headers with the target for the time per output token, in ms.
const TPOT: [&str; 2] = ["x-llm-d-slo-tpot-ms", "x-slo-tpot-ms"];

/// Latency targets of a request in ms, 0 where the client has none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Targets {
    /// Time to first token.
    pub(crate) ttft_ms: f64,
    /// Time per output token.
    pub(crate) tpot_ms: f64,
}

impl Targets {
    /// Reads the headers. A value that is no number counts as none.
    pub(crate) fn of(request: &Request<'_>) -> Self {
        let read = |names: [&str; 2]| {
            let value = names.iter().find_map(|name| request.headers.get(name));
            let value = value.and_then(|text| text.trim().parse().ok());
            value.filter(|ms: &f64| !ms.is_nan()).unwrap_or(0.0)
        };
        Self { ttft_ms: read(TTFT), tpot_ms: read(TPOT) }
    }

    /// Whether the client has a target at all.
    pub(crate) fn any(self) -> bool {
        self.ttft_ms > 0.0 || self.tpot_ms > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(headers: &[(&str, &str)]) -> Targets {
        Targets::of(&Request { headers: &headers.to_vec(), ..Default::default() })
    }

    #[test]
    fn todays_names_win_over_the_older_ones() {
        let found = targets(&[("x-slo-ttft-ms", "7"), ("x-llm-d-slo-ttft-ms", "200.5")]);
        assert_eq!(found, Targets { ttft_ms: 200.5, tpot_ms: 0.0 });
        assert_eq!(targets(&[("x-slo-tpot-ms", "5")]).tpot_ms, 5.0);
    }

    #[test]
    fn what_is_no_number_is_no_target() {
        for text in ["", "fast", "NaN", "0", "-3"] {
            assert!(!targets(&[("x-llm-d-slo-ttft-ms", text)]).any(), "{text}");
        }
        assert!(targets(&[("x-llm-d-slo-ttft-ms", "1e2")]).any());
    }
}
