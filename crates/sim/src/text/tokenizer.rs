//! The dummy tokenizer: words, single punctuation marks, and the white space behind them.
//!
//! A token is a maximal run of `[0-9A-Za-z_]`, or one of thirty ASCII punctuation marks, together with all ASCII
//! white space that follows. Its id is the 32-bit FNV-1a hash of its bytes, so that the same text has the same
//! ids in every process. Bytes that start no token (all non-ASCII text among them) are skipped. An underscore
//! *starts* a token of its own, but *continues* a word: the grammar is an ordered alternation, marks first.
//!
//! Cost: one pass, about a nanosecond per byte, no allocation beyond the output.

/// One token: where it lies in its text, and its id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Token {
    /// Byte offset of the first byte.
    pub start: usize,
    /// Byte offset behind the last byte, white space included.
    pub end: usize,
    /// FNV-1a of the bytes `start..end`.
    pub id: u32,
}

/// Iterates over the tokens of `text`.
pub fn tokens(text: &str) -> impl Iterator<Item = Token> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while !(is_word(*bytes.get(at)?) || is_mark(bytes[at])) {
            at += 1;
        }
        let start = at;
        let word = !is_mark(bytes[at]);
        let mut hash = OFFSET;
        loop {
            hash = (hash ^ u32::from(bytes[at])).wrapping_mul(PRIME);
            at += 1;
            match bytes.get(at) {
                Some(&next) if is_space(next) => break,
                Some(&next) if word && is_word(next) => {}
                _ => break,
            }
        }
        while let Some(&next) = bytes.get(at).filter(|&&next| is_space(next)) {
            hash = (hash ^ u32::from(next)).wrapping_mul(PRIME);
            at += 1;
        }
        Some(Token { start, end: at, id: hash })
    })
}

/// The token ids of `text`.
pub fn encode(text: &str) -> Vec<u32> {
    // English prose has about five bytes per token; one growth step at most for ordinary text.
    let mut ids = Vec::with_capacity(text.len() / 5 + 1);
    ids.extend(tokens(text).map(|token| token.id));
    ids
}

const OFFSET: u32 = 0x811c_9dc5;
const PRIME: u32 = 0x0100_0193;

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_mark(byte: u8) -> bool {
    matches!(
        byte,
        b'{' | b'}'
            | b':'
            | b','
            | b'-'
            | b'.'
            | b'?'
            | b'!'
            | b';'
            | b'@'
            | b'#'
            | b'$'
            | b'%'
            | b'^'
            | b'&'
            | b'*'
            | b'('
            | b')'
            | b'+'
            | b'_'
            | b'~'
            | b'/'
            | b'\\'
            | b'>'
            | b'<'
            | b'['
            | b']'
            | b'='
            | b'"'
            | b'\''
    )
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        tokens(text).map(|token| &text[token.start..token.end]).collect()
    }

    #[test]
    fn recorded_vector() {
        assert_eq!(
            encode("hello there, general"),
            [3_801_292_497, 3_102_463_325, 2_312_110_321, 616_112_491]
        );
        assert_eq!(pieces("hello there, general"), ["hello ", "there", ", ", "general"]);
    }

    #[test]
    fn chat_rendering_counts_as_recorded() {
        assert_eq!(encode("### user: hello there, general\n").len(), 9);
    }

    #[test]
    fn single_letters_match_the_recorded_events() {
        let ids = encode("a b c d e f g h i j k l m n o p q");
        assert_eq!(ids[..3], [186_949_092, 2_100_038_943, 2_536_109_942]);
    }

    #[test]
    fn underscore_continues_a_word_but_does_not_start_one() {
        assert_eq!(pieces("a_b __c"), ["a_b ", "_", "_", "c"]);
    }

    #[test]
    fn other_bytes_are_skipped() {
        assert_eq!(pieces("  é naïve | x`y"), ["na", "ve ", "x", "y"]);
        assert!(pieces("日本 \u{b}|`").is_empty());
    }

    proptest! {
        #[test]
        fn tokens_are_ordered_and_on_character_boundaries(text in ".{0,80}") {
            let mut last = 0;
            for token in tokens(&text) {
                prop_assert!(last <= token.start && token.start < token.end);
                prop_assert!(text.is_char_boundary(token.start) && text.is_char_boundary(token.end));
                last = token.end;
            }
            prop_assert!(last <= text.len());
        }
    }
}
