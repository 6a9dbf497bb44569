//! The parameters of `disagg-profile-handler`, in both of their forms.

use inlane_core::registry::{BuildError, Params};
use serde::Deserialize;

use super::{DECODE_PROFILE, ENCODE_PROFILE, or_default};
use crate::PREFILL_PROFILE;

/// What the parameters come to, whichever form they are in.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// Prefill runs before decode.
    pub(crate) prefill_first: bool,
    /// Names of the profiles.
    pub(crate) decode: String,
    pub(crate) prefill: String,
    pub(crate) encode: String,
    /// Instance that decides on prefill; empty = never.
    pub(crate) prefill_decider: String,
    /// Instance that decides on encode; empty = never.
    pub(crate) encode_decider: String,
    /// Fields of the older form that are given.
    pub(crate) deprecated: Vec<&'static str>,
}

/// Fields that only the older form has.
const FLAT: [&str; 6] = [
    "decodeProfile",
    "prefillProfile",
    "encodeProfile",
    "prefillDeciderPluginName",
    "encodeDeciderPluginName",
    "deciderPluginName",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Nested {
    stage_order: String,
    profiles: Profiles,
    deciders: Deciders,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Profiles {
    decode: String,
    prefill: String,
    encode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Deciders {
    prefill: String,
    encode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Flat {
    stage_order: String,
    decode_profile: String,
    prefill_profile: String,
    encode_profile: String,
    prefill_decider_plugin_name: String,
    encode_decider_plugin_name: String,
    decider_plugin_name: String,
}

impl Parameters {
    /// Reads either form; a mixture is an error.
    pub(crate) fn decode(params: &Params) -> Result<Self, BuildError> {
        let given = |field: &&str| params.raw().is_some_and(|raw| raw.get(*field).is_some());
        let deprecated: Vec<&str> = FLAT.into_iter().filter(|field| given(field)).collect();
        let Some(first) = deprecated.first() else { return params.decode().and_then(nested) };
        if ["profiles", "deciders"].iter().any(given) {
            let text = "cannot be mixed with profiles and deciders; it is the deprecated form";
            return Err(BuildError::field(*first, text));
        }
        flat(params.decode()?, deprecated)
    }

    /// Names of the deciders.
    pub(crate) fn deciders(self) -> Vec<String> {
        let names = [self.prefill_decider, self.encode_decider];
        names.into_iter().filter(|name| !name.is_empty()).collect()
    }

    fn checked(self, decider_field: &str) -> Result<Self, BuildError> {
        if self.prefill_first && !self.prefill_decider.is_empty() {
            let text = "prefill decider is not supported in prefill-first stage order";
            return Err(BuildError::field(decider_field, text));
        }
        Ok(self)
    }
}

fn nested(Nested { stage_order, profiles, deciders }: Nested) -> Result<Parameters, BuildError> {
    let parameters = Parameters {
        prefill_first: prefill_first(&stage_order)?,
        decode: or_default(profiles.decode, DECODE_PROFILE),
        prefill: or_default(profiles.prefill, PREFILL_PROFILE),
        encode: or_default(profiles.encode, ENCODE_PROFILE),
        prefill_decider: deciders.prefill,
        encode_decider: deciders.encode,
        deprecated: Vec::new(),
    };
    parameters.checked("deciders.prefill")
}

fn flat(flat: Flat, deprecated: Vec<&'static str>) -> Result<Parameters, BuildError> {
    let named = !flat.prefill_decider_plugin_name.is_empty();
    let field = if named { "prefillDeciderPluginName" } else { "deciderPluginName" };
    let parameters = Parameters {
        prefill_first: prefill_first(&flat.stage_order)?,
        decode: or_default(flat.decode_profile, DECODE_PROFILE),
        prefill: or_default(flat.prefill_profile, PREFILL_PROFILE),
        encode: or_default(flat.encode_profile, ENCODE_PROFILE),
        prefill_decider: or_default(flat.prefill_decider_plugin_name, &flat.decider_plugin_name),
        encode_decider: flat.encode_decider_plugin_name,
        deprecated,
    };
    parameters.checked(field)
}

fn prefill_first(order: &str) -> Result<bool, BuildError> {
    let letters = order.chars().filter(|c| !matches!(c, '-' | '_'));
    match letters.collect::<String>().to_lowercase().as_str() {
        "" | "decodefirst" | "decode" => Ok(false),
        "prefillfirst" | "prefill" => Ok(true),
        _ => {
            let text = "must be \"decode-first\" or \"prefill-first\"";
            Err(BuildError::field("stageOrder", format!("invalid stage order {order:?}, {text}")))
        }
    }
}
