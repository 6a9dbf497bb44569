//! Where a text may be cut so that its parts have the tokens of the whole.
//!
//! A tokenizer first takes the added tokens out of the text (those that match the text as it is,
//! then, in what lies between, those that match its normal form); normalizer, pre-tokenizer and
//! model see what is left piece by piece, and of the rest of the text nothing but whether the
//! piece stands at its very start. So a cut right before an added token is safe: the tokens
//! before it end where they did, the scan begins anew there as it does after each match, and no
//! piece but the first stands at the start, because each begins behind its token. Chat templates
//! put such tokens at every message boundary.
//!
//! The flags of added tokens narrow this: `lstrip` moves the cut before the white space that the
//! token takes; `single_word` looks over the cut, so that a tokenizer with such a token is not cut
//! at all; so is one where a token begins with white space that another's `rstrip` might have
//! taken.
//!
//! Where the pre-tokenizer certainly splits at the end of words ([`words`]), pieces are cut there
//! too: between a letter and white space, and, unless a token might take that white space for its
//! own, between any visible ASCII character and a space.

use tokenizers::{AddedToken, Tokenizer};

use super::matcher::{Match, Matcher};
use super::words;

/// How long the parts become, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Shorter neighbours are joined until they reach this.
    pub(super) short: usize,
    /// Longer ones are cut, where words may be.
    pub(super) long: usize,
}

impl Sizes {
    /// Every cut that is allowed.
    pub(super) const FINEST: Self = Self { short: 1, long: 1 };
}

impl Default for Sizes {
    fn default() -> Self {
        Self { short: 256, long: 512 }
    }
}

/// The rules of one tokenizer.
#[derive(Clone, Debug)]
pub(super) struct Cuts {
    raw: Option<Added>,
    normalized: Option<Added>,
    /// Whether words may be cut apart.
    pub(super) words: bool,
    /// Whether that also holds for words that end in a digit or a mark.
    marks: bool,
}

#[derive(Clone, Debug)]
struct Added {
    matcher: Matcher,
    flags: Vec<Flags>,
}

#[derive(Clone, Copy, Debug)]
struct Flags {
    lstrip: bool,
    rstrip: bool,
}

/// Cut points of a text in order, kept between texts.
#[derive(Clone, Debug, Default)]
pub(super) struct Points(Vec<usize>);

impl Cuts {
    /// The rules of this tokenizer, `None` if it cannot be cut at all.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let mut added: Vec<AddedToken> =
            tokenizer.get_added_tokens_decoder().into_values().collect();
        added.sort_by(|a, b| a.content.cmp(&b.content));
        if tokenizer.get_encode_special_tokens() || added.iter().any(|token| token.single_word) {
            return None;
        }
        let (normalized, raw): (Vec<_>, Vec<_>) = added.iter().partition(|token| token.normalized);
        let words = words::split(tokenizer)
            && !added.iter().any(|token| end_of_word(token.content.as_bytes(), 1, true).is_some())
            && !normalized.iter().any(|token| token.lstrip || token.rstrip)
            && !raw.iter().any(|token| token.rstrip && ends_in_letter(&token.content));
        let marks = !raw.iter().any(|token| token.rstrip);
        let plain = tokenizer.get_normalizer().is_none_or(words::is_trivial);
        let normalized = if plain { Added::of(&normalized)? } else { None };
        let raw = Added::of(&raw)?;
        (words || raw.is_some() || normalized.is_some()).then_some(Self {
            raw,
            normalized,
            words,
            marks,
        })
    }

    /// Calls `part` with each part of `text`, in order, none empty.
    ///
    /// What the parts are depends on the text before them and on how far they reach, not on what
    /// follows: a text that grows at its end keeps all parts but its last few.
    pub(super) fn parts<'t>(
        &self,
        text: &'t str,
        sizes: Sizes,
        points: &mut Points,
        mut part: impl FnMut(&'t str),
    ) {
        self.points(text, points);
        points.0.push(text.len());
        let mut from = 0;
        // Where the run of short pieces that wait to be joined begins.
        let mut run = 0;
        for &to in &points.0 {
            if to - from >= sizes.short {
                self.emit(&text[run..from], sizes, &mut part);
                self.emit(&text[from..to], sizes, &mut part);
                run = to;
            } else if to - run >= sizes.short {
                self.emit(&text[run..to], sizes, &mut part);
                run = to;
            }
            from = to;
        }
        self.emit(&text[run..], sizes, &mut part);
    }

    fn emit<'t>(&self, mut text: &'t str, sizes: Sizes, part: &mut impl FnMut(&'t str)) {
        while self.words && text.len() > sizes.long {
            let Some(at) = end_of_word(text.as_bytes(), sizes.long, self.marks) else { break };
            let (head, tail) = text.split_at(at);
            part(head);
            text = tail;
        }
        if !text.is_empty() {
            part(text);
        }
    }

    /// Collects the positions right before added tokens, the start of the text left out.
    fn points(&self, text: &str, points: &mut Points) {
        points.0.clear();
        let mut from = 0;
        let mut scanned = 0;
        if let Some(raw) = &self.raw {
            while let Some(found) = raw.matcher.next(text.as_bytes(), scanned) {
                let (start, stop) = raw.span(text, from, found);
                self.inside(text, from, start, points);
                points.push(start);
                from = stop;
                scanned = found.end;
            }
        }
        self.inside(text, from, text.len(), points);
    }

    /// The same in a piece between two raw tokens.
    fn inside(&self, text: &str, from: usize, to: usize, points: &mut Points) {
        let Some((normalized, piece)) = self.normalized.as_ref().zip(text.get(from..to)) else {
            return;
        };
        let mut at = 0;
        let mut scanned = 0;
        while let Some(found) = normalized.matcher.next(piece.as_bytes(), scanned) {
            let (start, stop) = normalized.span(piece, at, found);
            points.push(from + start);
            at = stop;
            scanned = found.end;
        }
    }
}

impl Points {
    fn push(&mut self, at: usize) {
        if at > self.0.last().copied().unwrap_or(0) {
            self.0.push(at);
        }
    }
}

impl Added {
    /// `None` if these tokens forbid cuts, `Some(None)` if there are none.
    #[expect(clippy::option_option, reason = "three answers, used twice")]
    fn of(tokens: &[&AddedToken]) -> Option<Option<Self>> {
        let rstrip = tokens.iter().any(|token| token.rstrip);
        if rstrip && tokens.iter().any(|token| token.content.starts_with(char::is_whitespace)) {
            return None;
        }
        let matcher = Matcher::new(tokens.iter().map(|token| token.content.as_str()));
        let flags = tokens.iter().map(|token| Flags { lstrip: token.lstrip, rstrip: token.rstrip });
        let flags = flags.collect();
        Some(matcher.map(|matcher| Self { matcher, flags }))
    }

    /// What a token takes of the text, white space included; `from` is where the one before ended.
    fn span(&self, text: &str, from: usize, found: Match) -> (usize, usize) {
        let Match { start, end, token } = found;
        let Some(flags) = self.flags.get(token as usize) else { return (start, end) };
        let start = match text.get(from..start) {
            Some(before) if flags.lstrip => from + before.trim_end().len(),
            _ => start,
        };
        let stop = match text.get(end..) {
            Some(after) if flags.rstrip => text.len() - after.trim_start().len(),
            _ => end,
        };
        (start, stop)
    }
}

fn ends_in_letter(text: &str) -> bool {
    text.as_bytes().last().is_some_and(u8::is_ascii_alphabetic)
}

/// The first position from `from` on where a word ends: between an ASCII letter and ASCII white
/// space or, with `marks`, between a visible ASCII character and a space.
fn end_of_word(text: &[u8], from: usize, marks: bool) -> Option<usize> {
    let pairs = text.get(from.checked_sub(1)?..)?;
    let is_end = |pair: &[u8]| match pair[1] {
        b' ' if marks => pair[0].is_ascii_graphic(),
        b' ' | b'\n' | b'\r' | b'\t' => pair[0].is_ascii_alphabetic(),
        _ => false,
    };
    pairs.windows(2).position(is_end).map(|at| from + at)
}
