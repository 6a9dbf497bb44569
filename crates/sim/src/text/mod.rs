//! Text in and text out: the dummy tokenizer, answer lengths and answers.

pub mod lengths;
pub mod reply;
pub mod tokenizer;
