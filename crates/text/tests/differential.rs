//! The scanner agrees with `serde_json` on every body.

mod common;

use common::generate::{Random, body, mutate};
use common::{APIS, check, scanner};
use proptest::prelude::*;

#[test]
fn generated_bodies() {
    let mut scanner = scanner();
    let mut accepted = 0;
    for seed in 0..20_000 {
        let body = body(&mut Random(seed));
        for api in APIS {
            accepted += u32::from(check(&mut scanner, api, &body, seed));
        }
    }
    assert!(accepted > 10_000, "the generator makes too few requests: {accepted}");
}

#[test]
fn mutated_bodies() {
    let mut scanner = scanner();
    let mut accepted = 0;
    for seed in 0..40_000 {
        let mut random = Random(seed);
        let mut body = body(&mut random);
        mutate(&mut body, &mut random);
        for api in APIS {
            accepted += u32::from(check(&mut scanner, api, &body, seed));
        }
    }
    assert!(accepted > 2_000, "mutation destroys everything: {accepted}");
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64), seed: u64) {
        let mut scanner = scanner();
        for api in APIS {
            check(&mut scanner, api, &bytes, seed);
        }
    }

    #[test]
    fn any_text_inside_a_prompt(text: String, model: String, seed: u64) {
        let body = serde_json::json!({"model": model, "prompt": text, "messages": [
            {"role": "user", "content": [{"type": "text", "text": text}]},
        ]});
        let mut scanner = scanner();
        for api in APIS {
            check(&mut scanner, api, body.to_string().as_bytes(), seed);
        }
    }

    #[test]
    fn any_numbers(value: f64, integer: i64, seed: u64) {
        let body = format!(
            r#"{{"prompt":[{integer},{value:e}],"max_tokens":{value},"n":{value:e},"x":-{integer}}}"#
        );
        let mut scanner = scanner();
        for api in APIS {
            check(&mut scanner, api, body.as_bytes(), seed);
        }
    }
}
