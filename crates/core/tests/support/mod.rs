//! Small plugins under the names that configurations use, and pools to run them on.
#![allow(dead_code, reason = "each test crate uses its own part")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod plugins;

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_core::columns::{Col, Columns, InFlight, PrefixMatch, UncachedTokens};
use inlane_core::config::{LoadedConfig, load};
use inlane_core::endpoint::{Endpoint, EndpointIx, EndpointSet, Slot};
use inlane_core::plan::Plan;
use inlane_core::plugin::{LoadSource, Part, Roles};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, KeptState, Params, PluginType, Registry,
    TOKENIZED_PROMPT, metric_keys,
};
use inlane_core::snapshot::ConfigDocument;
use serde::Deserialize;

use plugins::{
    AnyOne, Best, Bookings, Broken, Every, FreeCache, Load, Lowest, MatchRatio, Prefixes,
    RoleFilter, Single, Stubborn, Tenant, Tokens, Unqueued,
};

#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, default)]
struct RoleFilterParams {
    /// Look again at every request.
    dynamic: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct BrokenParams {
    panics: bool,
    role: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NameParams {
    prefix_match_info_producer_name: String,
    /// Makes a producer of this name.
    own: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PickParams {
    targets: Vec<EndpointIx>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ModeParams {
    mode: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct KeyParams {
    requires: Vec<String>,
    uses: Vec<String>,
}

type Builder = fn(&mut Build<'_>, &Params) -> Result<Roles, BuildError>;

/// The test plugins.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    let mut add = |name, build: Builder| {
        registry.register(PluginType::new(name, build));
    };
    add("queue-scorer", |b, _| {
        b.require_key(metric_keys::WAITING, CORE_METRICS_EXTRACTOR);
        let read = |c: &Columns, ix| f64::from(c.metrics.waiting[ix as usize]);
        Ok(Roles::default().scorer(Arc::new(Lowest { read, metrics: true })))
    });
    add("running-requests-size-scorer", |b, _| {
        b.require_key(metric_keys::RUNNING, CORE_METRICS_EXTRACTOR);
        let read = |c: &Columns, ix| f64::from(c.metrics.running[ix as usize]);
        Ok(Roles::default().scorer(Arc::new(Lowest { read, metrics: true })))
    });
    add("kv-cache-utilization-scorer", |b, _| {
        b.require_key(metric_keys::KV_USAGE, CORE_METRICS_EXTRACTOR);
        Ok(Roles::default().scorer(Arc::new(FreeCache)))
    });
    add("prefix-cache-scorer", |b, p| {
        let p: NameParams = p.decode()?;
        let mut producer = p.prefix_match_info_producer_name;
        if !p.own.is_empty() {
            b.create_producer("approx-prefix-cache-producer", p.own.clone(), Params::default());
            producer = p.own;
        }
        let col = b.require(&producer, "approx-prefix-cache-producer");
        Ok(Roles::default().scorer(Arc::new(MatchRatio(col))))
    });
    add("active-request-scorer", |b, _| {
        let col = b.require("", "inflight-load-producer");
        Ok(Roles::default().scorer(Arc::new(Bookings(col))))
    });
    add("token-load-scorer", |b, _| {
        let col = b.require("", "inflight-load-producer");
        let _: Col<UncachedTokens> = b.require("", "inflight-load-producer");
        Ok(Roles::default().scorer(Arc::new(Bookings(col))))
    });
    add("decode-filter", |_, p| {
        let dynamic = p.decode::<RoleFilterParams>()?.dynamic;
        Ok(Roles::default().filter(Arc::new(RoleFilter { role: "decode", dynamic })))
    });
    add("prefill-filter", |_, p| {
        let dynamic = p.decode::<RoleFilterParams>()?.dynamic;
        Ok(Roles::default().filter(Arc::new(RoleFilter { role: "prefill", dynamic })))
    });
    add("unqueued-filter", |_, _| Ok(Roles::default().filter(Arc::new(Unqueued))));
    add("max-score-picker", |_, _| Ok(Roles::default().picker(Arc::new(Best))));
    add("random-picker", |b, _| Ok(Roles::default().picker(Arc::new(AnyOne(b.instance())))));
    add("stubborn-picker", |_, p| {
        Ok(Roles::default().picker(Arc::new(Stubborn(p.decode::<PickParams>()?.targets))))
    });
    add("single-profile-handler", |_, _| Ok(Roles::default().handler(Arc::new(Single))));
    add("every-profile-handler", |_, p| {
        Ok(Roles::default().handler(Arc::new(Every(p.decode::<ModeParams>()?.mode))))
    });
    add("metrics-data-source", |_, _| Ok(Roles::default().part(Part::DataSource)));
    add("endpoint-notification-source", |_, _| Ok(Roles::default().part(Part::DataSource)));
    add("core-metrics-extractor", |b, _| {
        for key in [metric_keys::WAITING, metric_keys::RUNNING, metric_keys::KV_USAGE] {
            b.produce_key(key);
        }
        Ok(Roles::default().part(Part::Extractor))
    });
    add("file-discovery", |_, _| Ok(Roles::default().part(Part::Discovery)));
    for parser in ["openai-parser", "passthrough-parser"] {
        add(parser, |_, _| Ok(Roles::default().part(Part::Parser)));
    }
    add("slo-deadline-ordering-policy", |_, _| Ok(Roles::default().part(Part::OrderingPolicy)));
    add("broken", |_, p| {
        let BrokenParams { panics, role } = p.decode()?;
        let broken = Arc::new(Broken { panics });
        Ok(match role.as_str() {
            "filter" => Roles::default().filter(broken),
            "picker" => Roles::default().picker(broken),
            "producer" => Roles::default().producer(broken),
            "post_choice" => Roles::default().post_choice(broken),
            "hooks" => Roles::default().pre_call(broken.clone()).after_response(broken),
            "build" => panic!("broken while building"),
            _ => Roles::default().scorer(broken),
        })
    });
    add("tenant", |_, _| {
        Ok(Roles::default().pre_call(Arc::new(Tenant)).after_response(Arc::new(Tenant)))
    });
    add("linked-producer", |b, p| {
        let KeyParams { requires, uses } = p.decode()?;
        b.produce_key("Link");
        requires.iter().for_each(|name| b.require_key("Link", name));
        uses.iter().for_each(|name| b.use_key("Link", name));
        Ok(Roles::default().producer(Arc::new(Tokens)))
    });
    let approx = PluginType::new("approx-prefix-cache-producer", |b, _| {
        b.require_key(TOKENIZED_PROMPT, "token-producer");
        let prefixes = Arc::new(Prefixes(b.produce()));
        Ok(Roles::default().producer(prefixes.clone()).post_choice(prefixes))
    });
    registry.register(approx.default_producer_of(&["PrefixCacheMatchInfoDataKey"]));
    let load = PluginType::new("inflight-load-producer", |b, _| {
        let _: Col<PrefixMatch> = b.optional("", "approx-prefix-cache-producer");
        let load = Arc::new(Load { load: b.produce(), cost: b.produce() });
        Ok(Roles::default().producer(load.clone()).post_choice(load))
    });
    registry.register(load.default_producer_of(&["InFlightLoadDataKey"]));
    let tokens = PluginType::new("token-producer", |b, _| {
        b.produce_key(TOKENIZED_PROMPT);
        Ok(Roles::default().producer(Arc::new(Tokens)))
    });
    let tokens = tokens.deprecated_names(&["tokenizer"]);
    registry.register(tokens.default_producer_of(&[TOKENIZED_PROMPT]));
    let session = PluginType::new("session-affinity-scorer", |_, _| {
        Ok(Roles::default().scorer(Arc::new(FreeCache)))
    });
    registry.register(session.alpha());
    registry
}

/// Loads the text below the two header lines.
pub(crate) fn try_config(body: &str) -> Result<LoadedConfig, String> {
    let text = format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{body}");
    try_text(&text)
}

/// Loads a whole text.
pub(crate) fn try_text(text: &str) -> Result<LoadedConfig, String> {
    let document =
        ConfigDocument { source: "c.yaml".into(), text: text.into(), ..Default::default() };
    load(&document, &registry(), &KeptState::default()).map_err(|e| e.to_string())
}

/// Loads the text below the two header lines, which must be right.
pub(crate) fn config(body: &str) -> LoadedConfig {
    try_config(body).unwrap()
}

/// An endpoint `default/<name>` with labels.
pub(crate) fn endpoint(name: &str, labels: &[(&str, &str)]) -> Endpoint {
    Endpoint {
        id: format!("default/{name}"),
        namespace: "default".into(),
        name: name.into(),
        pod_name: name.into(),
        address: "10.0.0.1".into(),
        port: 8000,
        host_port: "10.0.0.1:8000".into(),
        rank: 0,
        labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<BTreeMap<_, _>>(),
        slot: Slot::default(),
    }
}

/// A pool of endpoints without labels.
pub(crate) fn pool(names: &[&str]) -> Arc<EndpointSet> {
    Arc::new(EndpointSet::new(1, names.iter().map(|n| endpoint(n, &[])).collect()))
}

/// A plan of the configuration below the two header lines.
pub(crate) fn plan(body: &str, endpoints: Arc<EndpointSet>) -> Plan {
    Plan::new(Arc::new(config(body)), endpoints)
}

/// Nothing is booked.
pub(crate) struct Idle;

impl LoadSource for Idle {
    fn in_flight(&self, _: Slot) -> InFlight {
        InFlight::default()
    }
}
