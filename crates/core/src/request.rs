//! A request, as far as scheduling cares.

/// Read access to request headers; names are lower case.
pub trait Headers {
    /// The value of a header; of several the last one.
    fn get(&self, name: &str) -> Option<&str>;
}

impl<K: AsRef<str>, V: AsRef<str>> Headers for [(K, V)] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().rev().find(|(k, _)| k.as_ref() == name).map(|(_, v)| v.as_ref())
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Headers for Vec<(K, V)> {
    fn get(&self, name: &str) -> Option<&str> {
        Headers::get(self.as_slice(), name)
    }
}

impl<K: AsRef<str>, V: AsRef<str>, const N: usize> Headers for [(K, V); N] {
    fn get(&self, name: &str) -> Option<&str> {
        Headers::get(self.as_slice(), name)
    }
}

/// One prompt, tokenized or already packed into blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prompt<'a> {
    /// Token ids.
    Tokens(&'a [u32]),
    /// The content hashes of consecutive blocks, made while the body was read.
    ///
    /// `contents[i]` is `xxh64` of block `i` alone; chaining with model and salt comes later,
    /// because the body may name the model after the prompt.
    Blocks {
        /// What a block holds.
        unit: BlockUnit,
        /// Number of (estimated) tokens.
        tokens: u64,
        /// One hash per block, the last block may be shorter.
        contents: &'a [u64],
    },
}

impl Prompt<'_> {
    /// Number of tokens.
    pub fn token_count(&self) -> u64 {
        match self {
            Self::Tokens(ids) => ids.len() as u64,
            Self::Blocks { tokens, .. } => *tokens,
        }
    }
}

/// The size of a block and what it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockUnit {
    /// Bytes of prompt text, the meaning that `hashBlockSize` had.
    Bytes(u32),
    /// Tokens; an estimated token is four bytes of text.
    Tokens(u32),
}

/// An image, a video or a sound in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media<'a> {
    /// `image`, `video` or `audio`.
    pub modality: &'a str,
    /// Digest of the content: equal content has an equal digest.
    pub hash: &'a str,
    /// Index of its prompt.
    pub prompt: u32,
    /// Position of its first placeholder token.
    pub offset: u64,
    /// Number of placeholder tokens.
    pub length: u64,
}

/// What a decision knows about its request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// `x-request-id`, possibly generated.
    pub id: &'a str,
    /// The model that the client named.
    pub model: &'a str,
    /// The model after rewriting; what engines are asked for.
    pub target_model: &'a str,
    /// Request headers.
    pub headers: &'a dyn Headers,
    /// Priority of the request's objective, 0 without one.
    pub priority: i32,
    /// Whose request it is, for fairness.
    pub fairness_id: &'a str,
    /// The prompts; empty = not tokenized.
    pub prompts: &'a [Prompt<'a>],
    /// The same prompts packed into blocks while the body was read, where `prompts` are the ids of
    /// a tokenizer; otherwise empty. Read by [`packed`](Self::packed).
    pub packed: &'a [Prompt<'a>],
    /// Images, videos and sounds of the prompts.
    pub media: &'a [Media<'a>],
    /// Bytes of prompt text.
    pub prompt_bytes: u64,
    /// Separates caches of tenants; part of every block hash.
    pub cache_salt: &'a str,
    /// The client's own cap on output tokens.
    pub max_output_tokens: Option<u64>,
    /// Size of the body in bytes.
    pub body_bytes: u64,
    /// Whether the client asked for a stream.
    pub streaming: bool,
}

impl<'a> Request<'a> {
    /// Tokens of all prompts.
    pub fn token_count(&self) -> u64 {
        self.prompts.iter().map(Prompt::token_count).sum()
    }

    /// The prompts in the form that every request has, whether or not a tokenizer was in time for
    /// it: what is learned from one request must be found by the next.
    pub fn packed(&self) -> &'a [Prompt<'a>] {
        if self.packed.is_empty() { self.prompts } else { self.packed }
    }
}

/// A request without headers.
struct NoHeaders;

impl Headers for NoHeaders {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self {
            id: "",
            model: "",
            target_model: "",
            headers: &NoHeaders,
            priority: 0,
            fairness_id: "",
            prompts: &[],
            packed: &[],
            media: &[],
            prompt_bytes: 0,
            cache_salt: "",
            max_output_tokens: None,
            body_bytes: 0,
            streaming: false,
        }
    }
}
