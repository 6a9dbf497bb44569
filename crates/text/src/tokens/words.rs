//! Which tokenizers certainly split a text at the end of a word: between an ASCII letter and white
//! space, and between any visible ASCII character and a space.

use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{NormalizerWrapper, SplitDelimiterBehavior, Tokenizer};

/// Split patterns that tell words apart, as they stand in `tokenizer.json` (GPT-2, Llama 3,
/// Qwen 2, Qwen 3.5, o200k, Tekken, DeepSeek 3).
///
/// Of each holds: no alternative matches a letter followed by white space, or any other visible
/// character followed by white space but line ends; what matches such a character ends behind it
/// whether a space or nothing follows; and nothing looks behind. So a text cut between the two
/// splits as the whole does, in any context.
const WORDS: [&str; 7] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];

/// Patterns of runs of characters none of which is an ASCII letter or white space: a cut before
/// white space changes no match.
const RUNS: [&str; 4] = [r"\p{N}", r"\p{N}{1,3}", r"[0-9]", r"[一-龥぀-ゟ゠-ヿ]+"];

/// Whether the tokenizer certainly splits at the end of words.
pub(super) fn split(tokenizer: &Tokenizer) -> bool {
    tokenizer.get_normalizer().is_none_or(keeps_words)
        && tokenizer.get_pre_tokenizer().is_some_and(splits_words)
}

/// Whether a normalizer leaves a text as it is.
pub(super) fn is_trivial(normalizer: &NormalizerWrapper) -> bool {
    matches!(normalizer, NormalizerWrapper::Sequence(list) if list.as_ref().iter().all(is_trivial))
}

/// Unicode's normal forms compose nothing across a visible ASCII character and white space, and
/// leave both as they are.
fn keeps_words(normalizer: &NormalizerWrapper) -> bool {
    match normalizer {
        NormalizerWrapper::NFC(_)
        | NormalizerWrapper::NFD(_)
        | NormalizerWrapper::NFKC(_)
        | NormalizerWrapper::NFKD(_) => true,
        NormalizerWrapper::Sequence(list) => list.as_ref().iter().all(keeps_words),
        _ => false,
    }
}

fn splits_words(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    let PreTokenizerWrapper::Sequence(list) = pre_tokenizer else {
        return step(pre_tokenizer) == Step::Words;
    };
    // Each step splits the pieces of the one before. What follows the split into words sees no
    // piece that holds both characters; `Metaspace` alone looks at where a piece stands.
    let mut words = false;
    for each in list.as_ref() {
        match step(each) {
            Step::Words => words = true,
            Step::Runs => {}
            Step::Else if words && !matches!(each, PreTokenizerWrapper::Metaspace(_)) => {}
            Step::Else => return false,
        }
    }
    words
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Splits at the end of words.
    Words,
    /// Splits elsewhere, and there alike for both halves.
    Runs,
    Else,
}

fn step(pre_tokenizer: &PreTokenizerWrapper) -> Step {
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(level) if !level.add_prefix_space && level.use_regex => {
            Step::Words
        }
        PreTokenizerWrapper::Digits(_) => Step::Runs,
        PreTokenizerWrapper::Split(split) => {
            let whole = matches!(
                (split.behavior, split.invert),
                (SplitDelimiterBehavior::Isolated, _) | (SplitDelimiterBehavior::Removed, true)
            );
            match &split.pattern {
                SplitPattern::Regex(pattern) if whole && WORDS.contains(&pattern.as_str()) => {
                    Step::Words
                }
                SplitPattern::Regex(pattern)
                    if split.behavior == SplitDelimiterBehavior::Isolated
                        && RUNS.contains(&pattern.as_str()) =>
                {
                    Step::Runs
                }
                _ => Step::Else,
            }
        }
        _ => Step::Else,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(pre_tokenizer: &str) -> bool {
        splits_words(&serde_json::from_str(pre_tokenizer).expect("a pre-tokenizer"))
    }

    const LEVEL: &str =
        r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}"#;

    #[test]
    fn byte_level_splits_words_by_its_own_pattern_only_without_a_prefix() {
        assert!(splits(&LEVEL.replace(r#""use_regex":false"#, r#""use_regex":true"#)));
        assert!(!splits(LEVEL));
        assert!(!splits(&LEVEL.replace("false", "true")));
    }

    #[test]
    fn every_known_pattern_compiles_and_splits() {
        for pattern in WORDS {
            let pattern = serde_json::to_string(pattern).expect("JSON");
            for kind in [r#""Isolated","invert":false"#, r#""Removed","invert":true"#] {
                let split = format!(
                    r#"{{"type":"Split","pattern":{{"Regex":{pattern}}},"behavior":{kind}}}"#
                );
                let list = format!(r#"{{"type":"Sequence","pretokenizers":[{split},{LEVEL}]}}"#);
                assert!(splits(&list), "{list}");
            }
        }
    }

    #[test]
    fn an_unknown_pattern_splits_nothing_for_certain() {
        let unknown = r#"{"type":"Split","pattern":{"Regex":"\\w+\\s"},"behavior":"Isolated","invert":false}"#;
        assert!(!splits(unknown));
        let level = LEVEL.replace(r#""use_regex":false"#, r#""use_regex":true"#);
        assert!(!splits(&format!(r#"{{"type":"Sequence","pretokenizers":[{unknown},{level}]}}"#)));
        assert!(splits(&format!(r#"{{"type":"Sequence","pretokenizers":[{level},{unknown}]}}"#)));
    }

    #[test]
    fn metaspace_splits_nothing_for_certain() {
        let metaspace =
            r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}"#;
        assert!(!splits(metaspace));
    }
}
