//! Scheduler configurations of the scenarios.

/// A configuration with file discovery and one profile of these plugins: `(type, weight)`, weight 0
/// for plugins without one. Parameters go in as a YAML flow mapping after the type.
pub fn profile(plugins: &[(&str, u32)]) -> String {
    let mut declared = String::new();
    let mut listed = String::new();
    for (plugin, weight) in plugins {
        let (kind, parameters) = plugin.split_once(' ').unwrap_or((plugin, ""));
        declared.push_str(&format!("- type: {kind}\n"));
        if !parameters.is_empty() {
            declared.push_str(&format!("  parameters: {parameters}\n"));
        }
        match weight {
            0 => listed.push_str(&format!("  - pluginRef: {kind}\n")),
            _ => listed.push_str(&format!("  - {{pluginRef: {kind}, weight: {weight}}}\n")),
        }
    }
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- name: endpoints
  type: file-discovery
  parameters: {{path: \"{{endpoints}}\", watchFile: true}}
{declared}schedulingProfiles:
- name: default
  plugins:
{listed}dataLayer:
  discovery: {{pluginRef: endpoints}}
"
    )
}

/// The configuration with one more plugin, declared first: a type, then parameters as in [`profile`].
pub fn declare(config: &str, plugin: &str) -> String {
    let (kind, parameters) = plugin.split_once(' ').unwrap_or((plugin, "{}"));
    let declared = format!("plugins:\n- {{type: {kind}, parameters: {parameters}}}\n");
    config.replacen("plugins:\n", &declared, 1)
}

/// Load-based: spreads requests by bookings.
pub fn by_active_requests() -> String {
    profile(&[("active-request-scorer", 1), ("max-score-picker", 0)])
}
