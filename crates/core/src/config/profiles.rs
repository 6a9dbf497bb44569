//! Profiles, profile handler and pickers: references resolved, defaults filled in.

use crate::effect::PluginIx;

use super::assembly::Assembly;
use super::document::ProfileSpec;
use super::error::Fault;
use super::loaded::{Profile, WeightedScorer};

const DEFAULT_PROFILE: &str = "default";
const DEFAULT_PICKER: &str = "max-score-picker";
const DEFAULT_HANDLER: &str = "single-profile-handler";

/// A profile whose picker may still be missing.
struct Draft {
    name: String,
    filters: Vec<PluginIx>,
    scorers: Vec<WeightedScorer>,
    picker: Option<PluginIx>,
}

impl Draft {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), filters: vec![], scorers: vec![], picker: None }
    }

    /// Puts an instance into every slot it fits. One that fits none is ignored: shipped
    /// configurations list parsers and producers here.
    fn put(
        &mut self,
        assembly: &Assembly<'_>,
        plugin: PluginIx,
        weight: f64,
        path: &str,
    ) -> Result<(), Fault> {
        let instance = &assembly.plugins[usize::from(plugin)];
        if instance.roles.filter.is_some() {
            self.filters.push(plugin);
        }
        if instance.roles.scorer.is_some() {
            self.scorers.push(WeightedScorer { plugin, weight });
        }
        if instance.roles.picker.is_some() {
            if let Some(earlier) = self.picker {
                let text = format!(
                    "failed to set '{}' as picker, already have a registered picker plugin '{}'",
                    instance.name,
                    assembly.plugins[usize::from(earlier)].name
                );
                return Err(Fault::at(path, text));
            }
            self.picker = Some(plugin);
        }
        Ok(())
    }
}

/// The profiles of the configuration; without any, one that holds every declared plugin.
pub(crate) fn resolve(
    specs: &[ProfileSpec],
    assembly: &mut Assembly<'_>,
) -> Result<Vec<Profile>, Fault> {
    let mut drafts: Vec<Draft> = Vec::new();
    for (spec, i) in specs.iter().zip(0..) {
        let path = format!("schedulingProfiles[{i}]");
        if spec.name.is_empty() {
            return Err(Fault::at(path.clone(), format!("{path} is missing a name")));
        }
        if drafts.iter().any(|d| d.name == spec.name) {
            let text = format!("{path} has duplicate name '{}'", spec.name);
            return Err(Fault::at(format!("{path}.name"), text));
        }
        drafts.push(draft(spec, &path, assembly)?);
    }
    if drafts.is_empty() {
        let mut draft = Draft::new(DEFAULT_PROFILE);
        for (plugin, _) in assembly.iter() {
            draft.put(assembly, plugin, 1.0, "plugins")?;
        }
        drafts.push(draft);
    }
    let default_picker = default_picker(&drafts, assembly)?;
    let finish = |d: Draft| {
        let Draft { name, filters, scorers, picker } = d;
        picker.or(default_picker).map(|picker| Profile { name, filters, scorers, picker })
    };
    // A default exists whenever a draft has no picker of its own, so no profile is lost here.
    Ok(drafts.into_iter().filter_map(finish).collect())
}

fn draft(spec: &ProfileSpec, path: &str, assembly: &Assembly<'_>) -> Result<Draft, Fault> {
    let name = &spec.name;
    let mut draft = Draft::new(name);
    for (entry, j) in spec.plugins.iter().zip(0..) {
        let path = format!("{path}.plugins[{j}]");
        if entry.plugin_ref.is_empty() {
            let text = format!("schedulingProfiles[{name}].plugins[{j}] is missing a 'pluginRef'");
            return Err(Fault::at(path, text));
        }
        let reference = &entry.plugin_ref;
        let Some((plugin, _)) = assembly.find(reference) else {
            let text =
                format!("schedulingProfiles[{name}] references undefined plugin '{reference}'");
            let fault = Fault::at(format!("{path}.pluginRef"), text);
            return Err(fault.hint(assembly.nearest(reference)));
        };
        let weight = entry.weight.unwrap_or(1.0);
        if !weight.is_finite() {
            let text = format!("weight must be a finite number, got {weight}");
            return Err(Fault::at(format!("{path}.weight"), text));
        }
        draft.put(assembly, plugin, weight, &path)?;
    }
    Ok(draft)
}

/// The picker of profiles that name none: the first declared one, else the best score.
fn default_picker(
    drafts: &[Draft],
    assembly: &mut Assembly<'_>,
) -> Result<Option<PluginIx>, Fault> {
    let Some(without) = drafts.iter().find(|d| d.picker.is_none()) else { return Ok(None) };
    let declared: Vec<(PluginIx, String)> = assembly
        .iter()
        .filter(|(_, p)| p.roles.picker.is_some())
        .map(|(ix, p)| (ix, p.name.clone()))
        .collect();
    if let [(first, name), _, ..] = &declared[..] {
        assembly.warn(format!(
            "profile '{}' names no picker and several are declared: '{name}' is used",
            without.name
        ));
        return Ok(Some(*first));
    }
    if let [(only, _)] = declared[..] {
        return Ok(Some(only));
    }
    match assembly.find_or_inject(DEFAULT_PICKER)? {
        Some(plugin) if assembly.plugins[usize::from(plugin)].roles.picker.is_some() => {
            Ok(Some(plugin))
        }
        _ => Err(Fault::at("plugins", format!("no picker: '{DEFAULT_PICKER}' is no picker"))),
    }
}

/// The profile handler, which must accept the profiles.
pub(crate) fn handler(
    profiles: &[Profile],
    assembly: &mut Assembly<'_>,
) -> Result<PluginIx, Fault> {
    let mut declared = assembly.iter().filter(|(_, p)| p.roles.handler.is_some());
    let handler = match (declared.next(), declared.next()) {
        (Some((_, a)), Some((_, b))) => {
            let text = format!(
                "multiple profile handlers found ('{}', '{}'); only one is allowed",
                a.name, b.name
            );
            return Err(Fault::at("plugins", text));
        }
        (Some((handler, _)), None) => Some(handler),
        (None, _) => {
            drop(declared);
            if profiles.len() == 1 { assembly.find_or_inject(DEFAULT_HANDLER)? } else { None }
        }
    };
    let instance = handler.map(|ix| (ix, &assembly.plugins[usize::from(ix)]));
    let Some((handler, role)) = instance.and_then(|(ix, p)| Some((ix, p.roles.handler.as_ref()?)))
    else {
        return Err(Fault::at("schedulingProfiles", "no profile handler configured"));
    };
    let names: Vec<String> = profiles.iter().map(|p| p.name.clone()).collect();
    role.validate(&names).map_err(|text| Fault::at("schedulingProfiles", text))?;
    Ok(handler)
}
