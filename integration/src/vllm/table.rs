//! What was predicted, and what the engine said.

use std::fmt;

/// One request.
#[derive(Debug, Clone)]
pub struct Row {
    /// What it is called.
    pub name: String,
    /// Who served it.
    pub pod: String,
    /// Tokens of its prompts.
    pub prompt: u64,
    /// Tokens that the index held of it at that pod before it was sent.
    pub held: u64,
    /// Tokens that the decision found there.
    pub decided: u64,
    /// Tokens that the engine has to find by that, in whole blocks of its own.
    pub expected: u64,
    /// Tokens that the engine found.
    pub cached: u64,
    /// What is said of it.
    pub remark: String,
}

/// The head of the table.
pub const HEAD: &str =
    "request                        pod       prompt   index  decided  must hit  engine hit";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pod, prompt, held, decided, expected, cached, remark } = self;
        write!(
            f,
            "{name:<30} {pod:<8} {prompt:>7} {held:>7} {decided:>8} {expected:>9} {cached:>11}  {remark}"
        )
    }
}

/// How many tokens an engine with such blocks finds, of a prompt of which so many are held: whole
/// blocks, and never the last token, which it has to compute.
pub fn findable(held: u64, prompt: u64, block: u64) -> u64 {
    held.min(prompt.saturating_sub(1)) / block.max(1) * block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_token_is_always_computed() {
        assert_eq!(findable(64, 65, 32), 64);
        assert_eq!(findable(64, 64, 32), 32);
        assert_eq!(findable(48, 100, 32), 32);
        assert_eq!(findable(96, 100, 64), 64);
        assert_eq!(findable(0, 0, 32), 0);
    }
}
