//! Scanning and hashing of request bodies, in chunks as they arrive.

use std::hint::black_box;

use inlane_core::request::BlockUnit;
use inlane_text::Api;

use super::Operation;
use crate::bodies::{self, SIZES};
use crate::rig;

pub(super) fn operations() -> Vec<Operation> {
    let completions = SIZES.map(|(name, len)| {
        scan(format!("scan/completion/{name}"), Api::Completions, bodies::completion(0, len))
    });
    let chats = SIZES.map(|(name, len)| {
        scan(format!("scan/chat/{name}"), Api::ChatCompletions, bodies::chat(0, len))
    });
    completions.into_iter().chain(chats).collect()
}

fn scan(name: String, api: Api, body: String) -> Operation {
    let len = body.len();
    Operation::new(name, move || {
        let mut scanner = rig::scanner(api, BlockUnit::Tokens(64));
        let body = body.clone();
        Ok(Box::new(move || rig::scan(&mut scanner, api, black_box(body.as_bytes()))))
    })
    .bytes(len)
    .without_allocation()
}
