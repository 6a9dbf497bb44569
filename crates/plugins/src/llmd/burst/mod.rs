//! Joint placement of requests that arrive within one window.

mod assign;
mod window;

pub(crate) use assign::{Balance, Rules, assign};
pub(crate) use window::{Batch, Entry, Windows};
