//! `decode-filter`, `prefill-filter`, `encode-filter`: the pods of one stage of disaggregated
//! serving.
//!
//! All three look at the pod label `llm-d.ai/role` alone, so the verdict is taken once per
//! topology. They differ in the values they accept and in what an absent label means.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::Endpoint;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::PluginType;

/// The label that says which stages a pod serves.
pub const ROLE_LABEL: &str = "llm-d.ai/role";

/// The type `decode-filter`. Parameters are ignored, as in the reference.
pub const DECODE: PluginType = PluginType::new("decode-filter", |_, _| {
    Ok(Roles::default().filter(Arc::new(RoleFilter {
        accepted: &["decode", "prefill-decode", "both", "encode-prefill-decode"],
        keeps_unlabelled: true,
        reason: "not a decode pod",
    })))
});

/// The type `prefill-filter`. Parameters are ignored, as in the reference.
pub const PREFILL: PluginType = PluginType::new("prefill-filter", |_, _| {
    Ok(Roles::default().filter(Arc::new(RoleFilter {
        accepted: &["prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode"],
        keeps_unlabelled: false,
        reason: "not a prefill pod",
    })))
});

/// The type `encode-filter`. Parameters are ignored, as in the reference.
pub const ENCODE: PluginType = PluginType::new("encode-filter", |_, _| {
    Ok(Roles::default().filter(Arc::new(RoleFilter {
        accepted: &["encode", "encode-prefill", "encode-prefill-decode"],
        keeps_unlabelled: false,
        reason: "not an encode pod",
    })))
});

/// Keeps an endpoint whose role is accepted. A label that is there with an empty or unknown value
/// is never accepted.
#[derive(Debug)]
struct RoleFilter {
    accepted: &'static [&'static str],
    keeps_unlabelled: bool,
    reason: &'static str,
}

impl RoleFilter {
    fn keeps(&self, endpoint: &Endpoint) -> bool {
        endpoint
            .label(ROLE_LABEL)
            .map_or(self.keeps_unlabelled, |role| self.accepted.contains(&role))
    }
}

impl Filter for RoleFilter {
    fn is_static(&self) -> bool {
        true
    }

    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        candidates.retain(|ix| match cx.endpoints.get(ix) {
            Some(endpoint) if self.keeps(endpoint) => Ok(()),
            _ => Err(self.reason),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ROLE_LABEL;
    use crate::testing::World;

    fn kept(filter: &str) -> Vec<u32> {
        let roles = [
            "prefill",
            "decode",
            "-",
            "both",
            "encode-prefill-decode",
            "encode",
            "prefill-decode",
            "",
            "encode-prefill",
            "Decode",
        ];
        let labels: Vec<Vec<(&str, &str)>> = roles
            .iter()
            .map(|role| if *role == "-" { vec![] } else { vec![(ROLE_LABEL, *role)] })
            .collect();
        let mut world = World::labelled(&labels.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let built = world.build(filter, "{anything: 1}").unwrap();
        assert!(built.roles.filter.as_ref().unwrap().is_static());
        world.filter(&built)
    }

    #[test]
    fn decode_takes_unlabelled_pods_too() {
        assert_eq!(kept("decode-filter"), [1, 2, 3, 4, 6]);
    }

    #[test]
    fn prefill_needs_a_label() {
        assert_eq!(kept("prefill-filter"), [0, 3, 4, 6, 8]);
    }

    #[test]
    fn encode_needs_a_label() {
        assert_eq!(kept("encode-filter"), [4, 5, 8]);
    }
}
