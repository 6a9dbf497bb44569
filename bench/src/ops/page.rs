//! Reading a metrics page of a model server.

use std::hint::black_box;
use std::sync::Arc;

use inlane_engine::{EngineTable, ExtractorParams, Scanner};

use super::Operation;
use crate::VLLM_PAGE;

/// Bytes per piece, as the scraper reads them from a socket.
const PIECE: usize = 64 << 10;

pub(super) fn operations() -> Vec<Operation> {
    let parse = Operation::new("page/vllm-74KB", || {
        let table = EngineTable::new(&ExtractorParams::default())?;
        let plan = table.get("vllm").ok_or("vLLM is not a known engine")?;
        let mut scanner = Scanner::new(Arc::clone(plan));
        Ok(Box::new(move || {
            VLLM_PAGE.chunks(PIECE).for_each(|piece| scanner.feed(black_box(piece)));
            assert!(scanner.finish().is_useful());
        }))
    });
    vec![parse.bytes(VLLM_PAGE.len()).limit_ns(30_000.0).without_allocation()]
}
