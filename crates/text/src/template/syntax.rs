//! Where the text of a template is rewritten for the template library.
//!
//! * `{% generation %}` blocks, which only mark the assistant's tokens, become scopes.
//! * Slices become calls of a method, `a[1:]` is `a.__slice__(1, none, none)`: the library's own
//!   slices differ from Python's for negative steps and give lazy values.
//! * `a['items']` becomes `a.__getitem__('items')`, and likewise for the other methods of dicts:
//!   a dict without that member gives its method, which counts as true.
//! * Where the body of a loop ends, the text in it is charged: see [`charges`](super::charges).
//!
//! Rewriting adds and removes no line, so that errors name the lines of the original.

use std::ops::Range;

use minijinja::machinery::{Span, Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::charges::BODY;
use super::methods::{DICT, ITEM, SLICE};

/// The syntax of chat templates.
pub(super) fn config() -> SyntaxConfig {
    let mut builder = SyntaxConfig::builder();
    builder.trim_blocks(true).lstrip_blocks(true);
    // Only delimiters can be wrong, and these are the usual ones.
    builder.build().unwrap_or_default()
}

/// The template in the library's dialect. What is not a valid template is left as it is: the
/// parser will say why.
pub(super) fn rewrite(source: &str) -> String {
    edited(source, true)
}

/// The template as it was written, but for what the parser does not know: for a look at its syntax tree.
pub(super) fn parsable(source: &str) -> String {
    edited(source, false)
}

/// Whether the template has `generation` blocks, which Jinja itself does not know.
pub(super) fn marks_generation(source: &str) -> bool {
    let mut tag = false;
    tokenize(source, false, config()).flatten().any(|(token, _)| {
        let opened = std::mem::replace(&mut tag, matches!(token, Token::BlockStart));
        opened && matches!(token, Token::Ident("generation"))
    })
}

fn edited(source: &str, whole: bool) -> String {
    let mut edits = Edits { whole, ..Edits::default() };
    for token in tokenize(source, false, config()) {
        let Ok((token, span)) = token else { return source.to_owned() };
        edits.token(source, &token, span);
    }
    edits.apply(source)
}

/// Whether a bracket after the token is a subscript.
fn ends_value(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(word) => {
            !matches!(*word, "and" | "else" | "elif" | "if" | "in" | "is" | "not" | "or")
        }
        Token::Str(_) | Token::String(_) => true,
        _ => matches!(token, Token::BracketClose | Token::ParenClose | Token::BraceClose),
    }
}

/// A bracket that is open.
#[derive(Default)]
struct Open {
    /// Where it stands.
    span: Range<usize>,
    square: bool,
    /// The colons at its own level, and whether something stands before each.
    colons: Vec<(Range<usize>, bool)>,
    /// Something stands after the bracket or the last colon.
    filled: bool,
    /// It follows a value.
    subscript: bool,
    /// It holds the name of a method and nothing else so far.
    method: bool,
}

/// A loop or a condition that has not ended.
enum Block {
    /// Bytes of text in the loop's body so far; none behind it.
    Loop(Option<usize>),
    Condition,
}

#[derive(Default)]
struct Edits {
    edits: Vec<(Range<usize>, String)>,
    open: Vec<Open>,
    blocks: Vec<Block>,
    /// Everything is rewritten, not only what the parser does not know.
    whole: bool,
    /// Where the token before this one opened a tag.
    tag: Option<Range<usize>>,
    /// The token before this one ended a value.
    after_value: bool,
}

impl Edits {
    fn token(&mut self, source: &str, token: &Token<'_>, span: Span) {
        let span = span.start_offset as usize..span.end_offset as usize;
        let opens = matches!(token, Token::BlockStart).then(|| span.clone());
        let tag = std::mem::replace(&mut self.tag, opens);
        let subscript = std::mem::replace(&mut self.after_value, ends_value(token));
        if let (Token::Ident(word), Some(tag)) = (token, &tag)
            && self.whole
        {
            self.block(word, source, tag);
        }
        match token {
            Token::TemplateData(text) => {
                let mut blocks = self.blocks.iter_mut().rev();
                let inner = blocks.find_map(|block| match block {
                    Block::Loop(bytes) => Some(bytes),
                    Block::Condition => None,
                });
                if let Some(Some(bytes)) = inner {
                    *bytes += text.len();
                }
            }
            Token::Ident("generation") if tag.is_some() => {
                self.edits.push((span, "with".to_owned()));
            }
            Token::Ident("endgeneration") if tag.is_some() => {
                self.edits.push((span, "endwith".to_owned()));
            }
            Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => {
                self.fill();
                let square = matches!(token, Token::BracketOpen);
                let open = Open { span, square, subscript, ..Open::default() };
                self.open.push(open);
            }
            Token::BracketClose | Token::ParenClose | Token::BraceClose => {
                if let Some(open) = self.open.pop().filter(|open| open.square) {
                    self.close(open, span);
                }
            }
            Token::Colon => {
                if let Some(open) = self.open.last_mut() {
                    open.colons.push((span, open.filled));
                    open.filled = false;
                }
            }
            Token::Str(name) if DICT.contains(name) => {
                let first = self.open.last().is_some_and(|open| !open.filled);
                self.fill();
                if let Some(open) = self.open.last_mut() {
                    open.method = first;
                }
            }
            _ => self.fill(),
        }
    }

    /// Notes where loops begin and end. At an end the text that was printed is charged, in a tag that
    /// treats the white space before it as the one that it stands before.
    fn block(&mut self, word: &str, source: &str, tag: &Range<usize>) {
        let printed = match (word, self.blocks.last_mut()) {
            ("for", _) => {
                self.blocks.push(Block::Loop(Some(0)));
                None
            }
            ("if", _) => {
                self.blocks.push(Block::Condition);
                None
            }
            ("endif", _) => {
                self.blocks.pop();
                None
            }
            ("endfor", _) => match self.blocks.pop() {
                Some(Block::Loop(bytes)) => bytes,
                _ => None,
            },
            ("else", Some(Block::Loop(bytes))) => bytes.take(),
            ("continue", _) => self.blocks.iter().rev().find_map(|block| match block {
                Block::Loop(bytes) => *bytes,
                Block::Condition => None,
            }),
            _ => None,
        };
        if let Some(bytes) = printed.filter(|bytes| *bytes > 0) {
            let open = source.get(tag.clone()).unwrap_or("{%");
            let text = format!("{open} set {BODY} = {bytes}|{BODY} %}}");
            self.edits.push((tag.start..tag.start, text));
        }
    }

    fn fill(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.filled = true;
            open.method = false;
        }
    }

    /// A square bracket with colons of its own is a slice: lists have none.
    fn close(&mut self, open: Open, span: Range<usize>) {
        if !self.whole || open.colons.is_empty() && !(open.method && open.subscript) {
            return;
        }
        if open.colons.is_empty() {
            self.edits.push((open.span, format!(".{ITEM}(")));
            self.edits.push((span, ")".to_owned()));
            return;
        }
        self.edits.push((open.span, format!(".{SLICE}(")));
        for (colon, filled) in open.colons {
            self.edits.push((colon, if filled { "," } else { "none," }.to_owned()));
        }
        self.edits.push((span, if open.filled { ")" } else { "none)" }.to_owned()));
    }

    fn apply(mut self, source: &str) -> String {
        self.edits.sort_by_key(|(span, _)| span.start);
        let mut rewritten = String::with_capacity(source.len() + 32);
        let mut at = 0;
        for (span, text) in self.edits {
            rewritten.push_str(source.get(at..span.start).unwrap_or_default());
            rewritten.push_str(&text);
            at = span.end;
        }
        rewritten.push_str(source.get(at..).unwrap_or_default());
        rewritten
    }
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn slices_become_calls_and_nothing_else_changes() {
        for (source, expected) in [
            ("{{ a[1:] }}", "{{ a.__slice__(1,none) }}"),
            ("{{ a[:-1] }}", "{{ a.__slice__(none,-1) }}"),
            ("{{ a[::-1] }}", "{{ a.__slice__(none,none,-1) }}"),
            ("{{ a[:] }}", "{{ a.__slice__(none,none) }}"),
            (
                "{{ a[b[0]:c[1:]|length][2] }}",
                "{{ a.__slice__(b[0],c.__slice__(1,none)|length)[2] }}",
            ),
            (
                "{{ {'a': [1, {'b': 2}], 'c': d['e']}['a'][0] }}",
                "{{ {'a': [1, {'b': 2}], 'c': d['e']}['a'][0] }}",
            ),
            ("{{ a['items'] }}", "{{ a.__getitem__('items') }}"),
            ("{{ a[0]['get']['x'] }}", "{{ a[0].__getitem__('get')['x'] }}"),
            ("{{ a in ['items'] }}", "{{ a in ['items'] }}"),
            ("{{ a['items' + b] }}", "{{ a['items' + b] }}"),
            ("a[1:] {# b[1:] #} {{ 'c[1:]' }}", "a[1:] {# b[1:] #} {{ 'c[1:]' }}"),
            ("{% raw %}{{ a[1:] }}{% endraw %}", "{% raw %}{{ a[1:] }}{% endraw %}"),
            ("é{{ 'ß'[é:] }", "é{{ 'ß'[é:] }"),
        ] {
            assert_eq!(rewrite(source), expected);
        }
    }

    #[test]
    fn text_in_loops_is_charged_where_the_body_ends() {
        for (source, expected) in [
            (
                "{% for a in b %}x{% if a %}yz{% else %}{% endif %}\n  {%- endfor %}",
                "{% for a in b %}x{% if a %}yz{% else %}{% endif %}\n  {%- set __body__ = 3|__body__ %}{%- endfor %}",
            ),
            (
                "{% for a in b %}{% for c in a %}x{% else %}yz{% endfor %}{{ a }}{% endfor %}",
                "{% for a in b %}{% for c in a %}x{% set __body__ = 1|__body__ %}{% else %}yz{% endfor %}{{ a }}{% endfor %}",
            ),
            (
                "{% for a in b %}x{% if a %}{% continue %}{% endif %}y{% endfor %}",
                "{% for a in b %}x{% if a %}{% set __body__ = 1|__body__ %}{% continue %}{% endif %}y{% set __body__ = 2|__body__ %}{% endfor %}",
            ),
            ("x{% if for %}y{% endif %}", "x{% if for %}y{% endif %}"),
        ] {
            assert_eq!(rewrite(source), expected);
        }
    }

    #[test]
    fn generation_blocks_become_scopes() {
        let source = "{%- generation -%}{{ generation }}{% endgeneration %}{% if generation %}";
        let expected = "{%- with -%}{{ generation }}{% endwith %}{% if generation %}";
        assert_eq!(rewrite(source), expected);
    }
}
