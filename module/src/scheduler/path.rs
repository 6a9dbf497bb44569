//! Which API a path belongs to, and which parser reads it.

use inlane_core::config::LoadedConfig;
use inlane_text::Api;

/// A parser that the proxy can stand in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parser {
    Anthropic,
    Openai,
    Passthrough,
    Vllmhttp,
}

impl Parser {
    const ALL: [Self; 4] = [Self::Anthropic, Self::Openai, Self::Passthrough, Self::Vllmhttp];

    fn type_name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic-parser",
            Self::Openai => "openai-parser",
            Self::Passthrough => "passthrough-parser",
            Self::Vllmhttp => "vllmhttp-parser",
        }
    }
}

/// The parsers that a configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsers(u8);

impl Parsers {
    /// Those that `config` lists; all that there are if it lists none, as in the reference.
    pub fn of(config: &LoadedConfig) -> Self {
        let listed = |parser: &Parser| {
            let mut instances = config.parsers.iter().filter_map(|&ix| config.plugin(ix));
            config.parsers.is_empty() || instances.any(|p| p.type_name == parser.type_name())
        };
        Self::set(&Parser::ALL.into_iter().filter(listed).collect::<Vec<_>>())
    }

    fn set(parsers: &[Parser]) -> Self {
        Self(parsers.iter().fold(0, |bits, &parser| bits | 1 << parser as u8))
    }

    /// Whether `parser` is one of them.
    pub(super) fn has(self, parser: Parser) -> bool {
        self.0 & 1 << parser as u8 != 0
    }
}

/// What a parser makes of a path that it claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The body is a request to this API.
    Body(Api),
    /// The body is not looked at, nor is the answer.
    Raw,
    /// The parser claims the suffix and knows no such API.
    Unsupported,
}

/// The suffixes, longest first, with what stands behind one that begins a path segment.
const SUFFIXES: [(&str, Parser, Claim); 11] = [
    ("chat/completions/render", Parser::Openai, Claim::Body(Api::ChatCompletions)),
    ("inference/v1/generate", Parser::Vllmhttp, Claim::Body(Api::Generate)),
    ("messages/count_tokens", Parser::Anthropic, Claim::Raw),
    ("completions/render", Parser::Openai, Claim::Body(Api::Completions)),
    ("images/generations", Parser::Openai, Claim::Body(Api::ImagesGenerations)),
    ("chat/completions", Parser::Openai, Claim::Body(Api::ChatCompletions)),
    ("conversations", Parser::Openai, Claim::Body(Api::Conversations)),
    ("completions", Parser::Openai, Claim::Body(Api::Completions)),
    ("embeddings", Parser::Openai, Claim::Body(Api::Embeddings)),
    ("responses", Parser::Openai, Claim::Body(Api::Responses)),
    ("messages", Parser::Anthropic, Claim::Body(Api::Messages)),
];

/// A path as the parsers see it: query and trailing slashes cut off.
pub(super) fn trimmed(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/')
}

/// The parser that claims a path, and what it makes of it; `None` when none does.
///
/// As in the reference, a path belongs to the parser with its longest suffix, which need not begin a
/// segment; what the parser then makes of it goes by whole segments, and the OpenAI parser takes what
/// it does not know for a text completion.
pub(super) fn claim(path: &str) -> Option<(Parser, Claim)> {
    let path = trimmed(path);
    let (parser, claim, aligned) = SUFFIXES.iter().find_map(|&(suffix, parser, claim)| {
        let before = path.strip_suffix(suffix)?;
        Some((parser, claim, before.is_empty() || before.ends_with('/')))
    })?;
    let claim = match (parser, aligned) {
        (_, true) | (Parser::Vllmhttp, _) => claim,
        (Parser::Openai, false) => Claim::Body(Api::Completions),
        (Parser::Anthropic | Parser::Passthrough, false) => Claim::Unsupported,
    };
    Some((parser, claim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(path: &str) -> Option<Api> {
        match claim(path) {
            Some((_, Claim::Body(api))) => Some(api),
            _ => None,
        }
    }

    #[test]
    fn suffixes_decide() {
        for (path, want) in [
            ("/v1/completions", Api::Completions),
            ("/v1/completions/", Api::Completions),
            ("/my/model/v1/chat/completions/?x=1", Api::ChatCompletions),
            ("/v1/chat/completions/render", Api::ChatCompletions),
            ("/v1/completions/render?x", Api::Completions),
            ("/v1/messages?beta=true", Api::Messages),
            ("/v1/responses", Api::Responses),
            ("/v1/embeddings/", Api::Embeddings),
            ("/v1/conversations", Api::Conversations),
            ("/v1/images/generations", Api::ImagesGenerations),
            ("/inference/v1/generate", Api::Generate),
            ("/team-a/inference/v1/generate", Api::Generate),
        ] {
            assert_eq!(api(path), Some(want), "{path}");
        }
        for path in
            ["", "/", "/v1/models", "/v1/responses/resp_1/cancel", "/generate", "/v1/audio/speech"]
        {
            assert_eq!(claim(path), None, "{path}");
        }
    }

    #[test]
    fn a_suffix_inside_a_segment_names_the_parser_only() {
        for path in ["/v1/foocompletions", "/v1/fooresponses", "/v1/foochat/completions"] {
            assert_eq!(
                claim(path),
                Some((Parser::Openai, Claim::Body(Api::Completions))),
                "{path}"
            );
        }
        for path in ["/v1/batch_messages", "/v1/x-messages/count_tokens"] {
            assert_eq!(claim(path), Some((Parser::Anthropic, Claim::Unsupported)), "{path}");
        }
        let count = claim("/v1/messages/count_tokens");
        assert_eq!(count, Some((Parser::Anthropic, Claim::Raw)));
    }

    #[test]
    fn the_longest_suffix_stands_first() {
        let lengths = SUFFIXES.map(|(suffix, ..)| suffix.len());
        assert!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
    }

    #[test]
    fn sets_of_parsers() {
        let two = Parsers::set(&[Parser::Openai, Parser::Vllmhttp]);
        let has = Parser::ALL.map(|parser| two.has(parser));
        assert_eq!(has, [false, true, false, true]);
    }
}
