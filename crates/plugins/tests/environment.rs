//! What environment variables of the first release do to requests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use inlane_core::config::from_environment;
use inlane_core::request::{BlockUnit, Prompt, Request};

use support::Proxy;

const BLOCK: u64 = 256;

/// A decode pod, one that may do both, and a prefill pod.
const ROLES: [Option<&str>; 3] = [Some("decode"), Some("both"), Some("prefill")];

struct Served {
    proxy: Proxy,
}

impl Served {
    fn new(variables: &[(&str, &str)]) -> Self {
        let text = from_environment(variables.iter().copied()).unwrap().text;
        Self { proxy: Proxy::with_roles(&text, &ROLES) }
    }

    /// Serves a prompt of so many bytes, of which the given blocks are known by their hashes.
    /// Answers the profiles that ran with their first targets.
    fn send(&mut self, bytes: u64, contents: &[u64]) -> Vec<(String, u32)> {
        let unit = BlockUnit::Bytes(BLOCK as u32);
        let prompts = [Prompt::Blocks { unit, tokens: bytes.div_ceil(4), contents }];
        let request = Request {
            id: "r",
            target_model: "m",
            prompts: &prompts,
            prompt_bytes: bytes,
            ..Request::default()
        };
        self.proxy.serve(&request, 5);
        self.proxy.drain();
        let runs = self.proxy.scratch.decision.profiles.iter().filter(|run| run.ran);
        runs.filter_map(|run| Some((run.name.clone(), *run.targets.first()?))).collect()
    }

    fn profiles(&mut self, bytes: u64, contents: &[u64]) -> Vec<String> {
        self.send(bytes, contents).into_iter().map(|(name, _)| name).collect()
    }
}

#[test]
fn a_hundred_bytes_that_nobody_has_are_prefilled_apart() {
    let mut served = Served::new(&[("PD_ENABLED", "true")]);
    assert_eq!(served.profiles(99, &[1]), ["decode"]);
    let both = served.send(100, &[2]);
    assert_eq!(both.len(), 2);
    assert!(both.contains(&("prefill".to_owned(), 2)), "{both:?}");
    assert!(both.iter().any(|(name, target)| name == "decode" && *target < 2), "{both:?}");
}

#[test]
fn whole_blocks_of_the_decode_pod_do_not_count() {
    let variables = [("PD_ENABLED", "true"), ("ENABLE_PREFIX_AWARE_SCORER", "true")];
    let mut served = Served::new(&variables);
    assert_eq!(served.profiles(2 * BLOCK, &[1, 2]).len(), 2);
    assert_eq!(served.profiles(2 * BLOCK + 99, &[1, 2, 3]), ["decode"]);
    // The shorter last block was sent just now, and still counts as not cached.
    assert_eq!(served.profiles(2 * BLOCK + 100, &[1, 2, 3]).len(), 2);
}

#[test]
fn without_disaggregation_only_decode_pods_serve() {
    let mut served = Served::new(&[("ENABLE_LOAD_AWARE_SCORER", "true")]);
    for content in 0..20 {
        let sent = served.send(1_000, &[content]);
        assert!(matches!(&sent[..], [(name, 0 | 1)] if name == "default"), "{sent:?}");
    }
}
