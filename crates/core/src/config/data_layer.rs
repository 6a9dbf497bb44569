//! The data layer: sources of endpoint data, their extractors, discovery, parsers.

use std::collections::BTreeSet;

use crate::effect::PluginIx;
use crate::plugin::Part;
use crate::registry::CORE_METRICS_EXTRACTOR;

use super::assembly::Assembly;
use super::document::{DataLayerSpec, PluginRef, SourceSpec};
use super::error::Fault;
use super::loaded::{DataLayer, DataSource};

const METRICS_SOURCE: &str = "metrics-data-source";
/// The parser that takes every path and so ends the list.
const FALLBACK_PARSER: &str = "passthrough-parser";

/// Builds the default metrics source and its extractor where the configuration leaves them out.
///
/// Like the reference this looks at the *name* in `sources`: a source declared under another name
/// is not recognised, and a default one is added beside it.
pub(crate) fn inject_defaults(
    spec: &DataLayerSpec,
    assembly: &mut Assembly<'_>,
) -> Result<Option<DataSource>, Fault> {
    let named = spec.sources.iter().any(|s| s.plugin_ref == METRICS_SOURCE);
    if spec.inject_defaults == Some(false) || named {
        return Ok(None);
    }
    let source = assembly.find_or_inject(METRICS_SOURCE)?;
    let extractor = assembly.find_or_inject(CORE_METRICS_EXTRACTOR)?;
    Ok(source.map(|plugin| DataSource { plugin, extractors: extractor.into_iter().collect() }))
}

/// Resolves the references of the section.
pub(crate) fn resolve(
    spec: &DataLayerSpec,
    injected: Option<DataSource>,
    assembly: &Assembly<'_>,
) -> Result<DataLayer, Fault> {
    let mut sources = Vec::new();
    for (source, i) in spec.sources.iter().zip(0..) {
        sources.push(resolve_source(source, &format!("dataLayer.sources[{i}]"), assembly)?);
    }
    sources.extend(injected);
    if sources.is_empty() {
        let text = "data layer enabled but no data sources configured";
        return Err(Fault::at("dataLayer", text));
    }
    let syncer = &spec.cross_replica_syncer_plugin_ref;
    if !syncer.is_empty() {
        let plays = |part| assembly.find(syncer).is_some_and(|(_, p)| p.roles.plays(part));
        if !plays(Part::CrossReplicaSyncer) {
            let text = format!("the plugin {syncer} is not a CrossReplicaSyncer");
            return Err(Fault::at("dataLayer.crossReplicaSyncerPluginRef", text));
        }
    }
    Ok(DataLayer {
        sources,
        discovery: spec.discovery.as_ref().map(|d| discovery(d, assembly)).transpose()?,
        peer_discovery: spec.peer_discovery.as_ref().map(|p| p.plugin_ref.clone()),
        cross_replica_sync_interval: spec
            .cross_replica_sync_interval
            .filter(|i| !i.negative)
            .map(|i| i.length),
    })
}

fn resolve_source(
    spec: &SourceSpec,
    path: &str,
    assembly: &Assembly<'_>,
) -> Result<DataSource, Fault> {
    let name = &spec.plugin_ref;
    let at = format!("{path}.pluginRef");
    let Some((plugin, source)) = assembly.find(name) else {
        let fault = Fault::at(at, format!("the plugin {name} is not a DataSource"));
        return Err(fault.hint(assembly.nearest(name)));
    };
    if !source.roles.plays(Part::DataSource) {
        let text = format!("skipping unknown datasource plugin type {}/{name}", source.type_name);
        return Err(Fault::at(at, text));
    }
    let mut types = BTreeSet::new();
    let mut extractors = Vec::new();
    for (extractor, j) in spec.extractors.iter().zip(0..) {
        let at = format!("{path}.extractors[{j}].pluginRef");
        let name = &extractor.plugin_ref;
        let Some((plugin, instance)) = assembly.find(name) else {
            let fault = Fault::at(at, format!("the plugin {name} is not registered"));
            return Err(fault.hint(assembly.nearest(name)));
        };
        if !instance.roles.plays(Part::Extractor) {
            return Err(Fault::at(at, format!("the plugin {name} is not an Extractor")));
        }
        if !types.insert(instance.type_name) {
            let text = format!("duplicate extractor type {} on one source", instance.type_name);
            return Err(Fault::at(at, text));
        }
        extractors.push(plugin);
    }
    Ok(DataSource { plugin, extractors })
}

fn discovery(spec: &PluginRef, assembly: &Assembly<'_>) -> Result<PluginIx, Fault> {
    let name = &spec.plugin_ref;
    let at = "dataLayer.discovery.pluginRef";
    match assembly.find(name) {
        Some((plugin, p)) if p.roles.plays(Part::Discovery) => Ok(plugin),
        Some(_) => {
            let text = format!("discovery: plugin \"{name}\" does not implement EndpointDiscovery");
            Err(Fault::at(at, text))
        }
        None => {
            let text = format!("discovery: no plugin found with name \"{name}\"");
            Err(Fault::at(at, text).hint(assembly.nearest(name)))
        }
    }
}

/// Resolves the list of request parsers. A reference to a registered type needs no declaration; a
/// second parser of one type is left out, and so is everything after the fallback.
pub(crate) fn parsers(
    specs: &[PluginRef],
    path: &str,
    assembly: &mut Assembly<'_>,
) -> Result<Vec<PluginIx>, Fault> {
    let mut parsers = Vec::new();
    let mut types = BTreeSet::new();
    for (spec, i) in specs.iter().zip(0..) {
        let name = &spec.plugin_ref;
        let at = if path == "parser" { path.to_owned() } else { format!("{path}[{i}]") };
        let at = format!("{at}.pluginRef");
        let Some(plugin) = assembly.find_or_inject(name)? else {
            let fault = Fault::at(at, format!("plugin type '{name}' not found in registry"));
            return Err(fault.hint(assembly.nearest(name)));
        };
        let instance = &assembly.plugins[usize::from(plugin)];
        if !instance.roles.plays(Part::Parser) {
            return Err(Fault::at(at, format!("the plugin \"{name}\" is not a parser plugin")));
        }
        let type_name = instance.type_name;
        if types.contains(FALLBACK_PARSER) {
            assembly.warn(format!(
                "parser '{name}' is skipped: {FALLBACK_PARSER} before it takes every request"
            ));
        } else if types.insert(type_name) {
            parsers.push(plugin);
        } else {
            assembly
                .warn(format!("parser '{name}' is skipped: a second parser of type {type_name}"));
        }
    }
    Ok(parsers)
}
