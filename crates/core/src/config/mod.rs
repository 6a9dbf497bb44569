//! Loading of `EndpointPickerConfig` documents.
//!
//! A document is decoded strictly, deprecated spellings are folded into the current ones with one
//! warning each, plugins are built, what was left out is filled in, and everything is checked, so
//! that a [`LoadedConfig`] can be used without further checks. An error names the place in the
//! text, the field, what was expected, and the nearest name that exists.
//!
//! Older forms are rewritten into today's: a layout like kube-scheduler's ([`load`] reads it), and
//! environment variables ([`from_environment`]). [`convert`] writes any of them as today's.
//!
//! Loading does no IO and prints nothing. It costs milliseconds and is done away from the request
//! path.

pub(crate) mod as_go;
mod assembly;
mod convert;
mod data_layer;
mod document;
mod documents;
mod environment;
mod error;
mod flow_control;
mod gates;
mod graph;
mod hint;
mod kube_style;
mod loaded;
mod profiles;
mod quantity;
mod rewrite;
mod shadow;
pub(crate) mod source;

pub use convert::{Converted, Form, convert};
pub use documents::LegacyPool;
pub use environment::{FromEnvironment, from_environment};
pub use error::{ConfigError, Location};
pub use flow_control::{Band, FlowControl};
pub use gates::FeatureGates;
pub use loaded::{
    DataLayer, DataSource, LoadedConfig, Origin, PluginInstance, Profile, Shadow, WeightedScorer,
};
pub use quantity::{GoDuration, Quantity};

use serde_yaml::Value;

use crate::effect::PluginIx;
use crate::plugin::{DataProducer, Roles};
use crate::registry::{DataUse, KeptState, Registry, metric_keys};
use crate::snapshot::ConfigDocument;

use assembly::Assembly;
use document::{Document, FlowControlSpec, PluginRef};
use documents::Documents;
use error::Fault;
use source::Source;

/// What runs when no configuration is given.
pub const DEFAULT_CONFIG: &str = include_str!("default.yaml");

const KIND: &str = "EndpointPickerConfig";
const API_VERSION: &str = "llm-d.ai/v1alpha1";
const DEPRECATED_API_VERSION: &str = "inference.networking.x-k8s.io/v1alpha1";

/// Loads a configuration of any accepted form. State of plugins that outlives a reload is found
/// in, and put into, `kept`.
///
/// The form with `profiles` needs no leave to use plugins of Alpha stability: it is older than
/// the distinction.
///
/// # Errors
/// The first thing that is wrong with the document.
pub fn load(
    document: &ConfigDocument,
    registry: &Registry,
    kept: &KeptState,
) -> Result<LoadedConfig, ConfigError> {
    let (name, text) = if document.text.trim().is_empty() {
        ("", DEFAULT_CONFIG)
    } else {
        (document.source.as_str(), document.text.as_str())
    };
    let source = Source::new(name, text);
    let documents = Documents::read(&source)?;
    let source = source.document(documents.index);
    let mut assembly = Assembly::new(registry, kept);
    if let Some(warning) = documents.pool_warning() {
        assembly.warn(warning);
    }
    let Documents { config, pool, .. } = documents;
    let loaded = if kube_style::is_kube_style(&config) {
        load_kube_style(config, assembly, registry)
    } else {
        check_kind(&config)
            .and_then(|()| decode(config))
            .and_then(|spec| build(spec, assembly, document.allow_experimental_plugins))
    };
    match loaded {
        Ok(config) => Ok(LoadedConfig { pool, document: document.clone(), ..config }),
        Err(fault) => Err(source.locate(fault)),
    }
}

/// Loads the form with `profiles`. Faults are told in its own terms.
fn load_kube_style(
    value: Value,
    mut assembly: Assembly<'_>,
    registry: &Registry,
) -> Result<LoadedConfig, Fault> {
    assembly.warn(format!("the form with `profiles` is deprecated, use kind {KIND}"));
    let rewritten = kube_style::rewrite(value, registry, |warning| assembly.warn(warning))?;
    let loaded = decode(rewritten.value.clone()).and_then(|spec| build(spec, assembly, true));
    let config = loaded.map_err(|fault| {
        let path = rewritten.original(&fault.path).to_owned();
        Fault { path, ..fault }
    })?;
    rewritten.check_slots(&config)?;
    Ok(config)
}

fn decode(value: Value) -> Result<Document, Fault> {
    source::decode(value, "").map_err(|fault| Fault {
        message: format!("failed to decode configuration: {}", fault.message),
        ..fault
    })
}

/// Checks what kind of document this is before looking at its fields.
fn check_kind(value: &Value) -> Result<(), Fault> {
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (field("apiVersion"), field("kind"));
    let path = match (version, kind) {
        (API_VERSION | DEPRECATED_API_VERSION, KIND) => return Ok(()),
        (API_VERSION | DEPRECATED_API_VERSION, _) => "kind",
        _ => "apiVersion",
    };
    let text = format!(
        "failed to decode configuration: no kind \"{kind}\" is registered for version \
         \"{version}\"; expected kind {KIND} of {API_VERSION}"
    );
    Err(Fault::at(path, text))
}

fn build(
    mut spec: Document,
    mut assembly: Assembly<'_>,
    allow_experimental: bool,
) -> Result<LoadedConfig, Fault> {
    let parsers_path = fold_deprecated(&mut spec, &mut assembly);
    let shadow = spec.shadow.take();
    let shadow = shadow.map(|s| shadow::load(s, &mut assembly, allow_experimental)).transpose()?;
    let gates = FeatureGates::parse(&spec.feature_gates)?;
    assembly.declare(&spec.plugins)?;

    let profiles = profiles::resolve(&spec.scheduling_profiles, &mut assembly)?;
    let handler = profiles::handler(&profiles, &mut assembly)?;
    let parser_refs = spec.request_handler.map(|r| r.parsers).unwrap_or_default();
    let parsers = data_layer::parsers(&parser_refs, parsers_path, &mut assembly)?;
    let data_layer = spec.data_layer.unwrap_or_default();
    let injected = data_layer::inject_defaults(&data_layer, &mut assembly)?;
    let flow_control = flow_control(spec.flow_control, gates, &mut assembly)?;
    let data_layer = data_layer::resolve(&data_layer, injected, &assembly)?;

    assembly.create_producers()?;
    let producers = graph::order(&assembly)?;
    if !allow_experimental {
        assembly.check_stability()?;
    }
    assembly.note_missing_options();

    let with = |role: fn(&Roles) -> bool| -> Vec<PluginIx> {
        assembly.iter().filter(|(_, p)| role(&p.roles)).map(|(ix, _)| ix).collect()
    };
    let reads_adapters = assembly.plugins.iter().any(|p| {
        let DataUse { requires, uses, .. } = &p.data;
        requires.iter().chain(uses).any(|key| key.name == metric_keys::ADAPTERS)
    });
    let has_window = |ix: &PluginIx| {
        let producer = assembly.plugins[usize::from(*ix)].roles.producer.as_deref();
        producer.is_some_and(DataProducer::has_window)
    };
    Ok(LoadedConfig {
        shadow,
        document: ConfigDocument::default(),
        screeners: with(|r| r.screener.is_some()),
        admitters: with(|r| r.admitter.is_some()),
        windows: producers.iter().copied().filter(has_window).collect(),
        reads_adapters,
        pre_call: with(|r| r.pre_call.is_some()),
        post_choice: with(|r| r.post_choice.is_some()),
        after_response: with(|r| r.after_response.is_some()),
        plugins: assembly.plugins,
        profiles,
        handler,
        producers,
        parsers,
        data_layer,
        pool: None,
        gates,
        flow_control,
        schema: assembly.schema,
        warnings: assembly.warnings,
        notes: assembly.notes,
    })
}

/// Moves deprecated fields to their new places, where those are free. Answers the path under which
/// the document lists its parsers.
fn fold_deprecated(spec: &mut Document, assembly: &mut Assembly<'_>) -> &'static str {
    if spec.api_version == DEPRECATED_API_VERSION {
        assembly
            .warn(format!("apiVersion {DEPRECATED_API_VERSION} is deprecated, use {API_VERSION}"));
    }
    if let Some(detector) = spec.saturation_detector.take() {
        assembly.warn("saturationDetector is deprecated, use flowControl.saturationDetector");
        let flow_control = spec.flow_control.get_or_insert_default();
        flow_control.saturation_detector.get_or_insert(detector);
    }
    if let Some(parser) = spec.parser.take() {
        assembly.warn("parser is deprecated, use requestHandler.parsers");
        let parsers: &mut Vec<PluginRef> =
            &mut spec.request_handler.get_or_insert_default().parsers;
        if parsers.is_empty() && !parser.plugin_ref.is_empty() {
            parsers.push(parser);
            return "parser";
        }
    }
    "requestHandler.parsers"
}

fn flow_control(
    spec: Option<FlowControlSpec>,
    gates: FeatureGates,
    assembly: &mut Assembly<'_>,
) -> Result<Option<FlowControl>, Fault> {
    let spec = spec.unwrap_or_default();
    flow_control::check_detector(&spec, assembly)?;
    if gates.flow_control {
        flow_control::inject_defaults(assembly)?;
        assembly.warn("flowControl: queues are not active yet, so requests are not held back");
        return flow_control::resolve(&spec, assembly).map(Some);
    }
    if spec.has_gated_settings() {
        assembly.warn("flowControl is ignored: its feature gate is off");
    }
    Ok(None)
}
