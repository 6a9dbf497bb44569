//! Effects: what a decision asks its caller to do.
//!
//! A decision itself changes nothing. It answers with effects; the caller books first (that may
//! fail, and then a new decision is made) and applies the rest afterwards. Replays and shadow
//! configurations drop them.

use std::borrow::Cow;

use crate::endpoint::EndpointIx;

/// Index of a plugin instance in the loaded configuration.
pub type PluginIx = u16;

/// One thing to do after a decision.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Book `tokens` projected tokens and one request on an endpoint.
    Claim {
        /// Where.
        endpoint: EndpointIx,
        /// Projected tokens.
        tokens: u64,
        /// When the tokens are given back.
        release: TokenRelease,
        /// Whether the whole booking ends with the first response byte (a prefill leg).
        until_first_byte: bool,
    },
    /// Let the plugin that asked for it record the choice of `endpoint`.
    Record {
        /// Which plugin: its [`crate::plugin::PostChoice::apply`] is called.
        plugin: PluginIx,
        /// The endpoint to record.
        endpoint: EndpointIx,
        /// A number of the plugin's own.
        note: u64,
    },
    /// Keep these numbers with the stream: they come back in
    /// [`Responding::kept`](crate::plugin::Responding::kept) when the response is known.
    Keep(Kept),
    /// Set a header of the upstream request, or remove it.
    RequestHeader {
        /// Lower-case name.
        name: Cow<'static, str>,
        /// New value; `None` removes the header.
        value: Option<String>,
    },
}

impl Effect {
    /// The effect with which a plugin asks to record the choice of `endpoint`.
    pub fn record(plugin: PluginIx, endpoint: EndpointIx) -> Self {
        Self::Record { plugin, endpoint, note: 0 }
    }
}

/// Numbers that travel from a decision to the end of its stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kept {
    /// Which plugin they belong to.
    pub plugin: PluginIx,
    /// The endpoint that they are about.
    pub endpoint: EndpointIx,
    /// The numbers, with a meaning of the plugin's own.
    pub values: [f32; KEPT],
}

/// Numbers in a [`Kept`].
pub const KEPT: usize = 16;

/// When projected tokens are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRelease {
    /// With the first byte of the response: the prompt has been processed.
    FirstByte,
    /// When the stream ends: output tokens are projected too.
    End,
}

/// The effects of one decision, in the order they were asked for. Reused between requests.
pub type Effects = Vec<Effect>;
