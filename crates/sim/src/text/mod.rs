//! Text in and text out: the dummy tokenizer, real ones, answer lengths and answers.

pub mod lengths;
pub mod reply;
pub mod tokenizer;
pub mod vocabulary;
