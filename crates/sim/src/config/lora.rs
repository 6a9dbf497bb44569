//! A LoRA adapter as the flag names it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One adapter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LoraModule {
    /// The name that requests use.
    pub name: String,
    /// Where its weights are said to be.
    #[serde(default)]
    pub path: String,
    /// The model it belongs to; the served one if not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model_name: Option<String>,
}

impl FromStr for LoraModule {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}
