//! Flags of the Go scheduler that mean nothing here.
//!
//! Deployments carry them over from their Endpoint Picker. They are taken out of the command line
//! before it is parsed, and reported, so that such a deployment starts and its owner learns which
//! lines can go.

use std::ffi::OsString;

/// Flags that take a value.
const VALUED: &[&str] = &[
    "cert-path",
    "drain-timeout",
    "endpoint-selector",
    "endpoint-target-ports",
    "grpc-health-port",
    "grpc-max-recv-msg-size",
    "grpc-max-send-msg-size",
    "grpc-port",
    "metrics-cert-dir",
    "metrics-client-ca-file",
    "pool-group",
    "tls-cipher-suites",
    "tls-min-version",
    "zap-encoder",
    "zap-stacktrace-level",
    "zap-time-encoding",
];

/// Switches: a value only after `=`.
const SWITCHES: &[&str] = &[
    "disable-endpoint-subset-filter",
    "emit-endpoint-scores",
    "enable-cert-reload",
    "enable-grpc-stream-metrics",
    "enable-pprof",
    "ha-enable-leader-election",
    "health-checking",
    "metrics-endpoint-auth",
    "secure-serving",
    "tracing",
    "zap-devel",
];

/// Flags that the original refuses too.
const REFUSED: &[&str] = &[
    "cache-info-metric",
    "kv-cache-usage-percentage-metric",
    "lora-info-metric",
    "total-queued-requests-metric",
    "total-running-requests-metric",
];

/// A command line, sorted.
pub(super) struct Sorted {
    pub(super) ours: Vec<OsString>,
    /// Names of the flags that were taken out, with their dashes.
    pub(super) ignored: Vec<String>,
}

/// Takes foreign flags out, with their values.
///
/// # Errors
/// A flag, or two flags together, that the original refuses.
pub(super) fn take_out(args: Vec<OsString>) -> Result<Sorted, String> {
    let mut sorted = Sorted { ours: Vec::with_capacity(args.len()), ignored: Vec::new() };
    let (mut pool, mut selector) = (false, false);
    let mut args = args.into_iter().peekable();
    sorted.ours.extend(args.next());
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or_default();
        let (flag, inline) = match text.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (text, None),
        };
        let name = flag.strip_prefix("--").unwrap_or_default();
        let next = args.peek().and_then(|next| next.to_str());
        let is_given = !inline.or(next).unwrap_or_default().is_empty();
        match name {
            "pool-name" => pool |= is_given,
            "endpoint-selector" => selector |= is_given,
            _ => {}
        }
        if REFUSED.contains(&name) {
            return Err(format!(
                "{flag}: the flag is deprecated and cannot be used, name metrics in the parameters of \
                 core-metrics-extractor\n"
            ));
        }
        let valued = VALUED.contains(&name);
        if !valued && !SWITCHES.contains(&name) {
            sorted.ours.push(arg);
            continue;
        }
        sorted.ignored.push(flag.to_owned());
        if valued && inline.is_none() {
            // Its value.
            args.next();
        }
    }
    if pool && selector {
        let text = "either pool-name or endpoint-selector must be set, not both\n";
        return Err(text.into());
    }
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_explained_to_users() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");
        let page = std::fs::read_to_string(page).unwrap();
        for flag in VALUED.iter().chain(SWITCHES).chain(REFUSED) {
            assert!(page.contains(&format!("`--{flag}`")), "{flag}");
        }
    }
}
