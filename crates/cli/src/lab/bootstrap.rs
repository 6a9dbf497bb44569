//! The shipped bootstrap, with ports, segment directory and settings of a lab put in.

use std::fs;
use std::io;

use serde_yaml::Value;

use super::Lab;
use super::paths::root;

/// Edits a parsed bootstrap.
pub type Edit = fn(&mut Value, &Lab);

/// How `envoy/bootstrap.yaml` is changed for a lab.
#[derive(Debug, Clone, Default)]
pub struct Bootstrap {
    /// Settings added to the text of every filter and cluster of Inlane (YAML lines).
    pub settings: String,
    /// A last change to the parsed document.
    pub edit: Option<Edit>,
}

impl Bootstrap {
    /// The bootstrap of `lab`, as YAML.
    ///
    /// # Errors
    /// A shipped bootstrap that is missing or not as expected.
    pub fn render(&self, lab: &Lab) -> io::Result<String> {
        let path = root().join("envoy/bootstrap.yaml");
        let text = fs::read_to_string(&path)
            .map_err(|e| io::Error::other(format!("{}: {e}", path.display())))?;
        let settings = format!("segmentDir: {}\n{}", lab.segment_dir.display(), self.settings);
        let mut document: Value = serde_yaml::from_str(&text).map_err(io::Error::other)?;
        walk(&mut document, &|value| replace(value, lab, &settings));
        if let Some(edit) = self.edit {
            edit(&mut document, lab);
        }
        serde_yaml::to_string(&document).map_err(io::Error::other)
    }
}

/// Calls `visit` for every mapping of the document.
pub fn walk(value: &mut Value, visit: &dyn Fn(&mut serde_yaml::Mapping)) {
    match value {
        Value::Mapping(map) => {
            visit(map);
            for (_, value) in map.iter_mut() {
                walk(value, visit);
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(|item| walk(item, visit)),
        _ => {}
    }
}

fn replace(map: &mut serde_yaml::Mapping, lab: &Lab, settings: &str) {
    if let Some(port) = map.get_mut("port_value") {
        *port = match port.as_u64() {
            Some(10_000) => lab.port.into(),
            Some(19_000) => lab.admin_port.into(),
            Some(19_001) => lab.envoy_admin_port.into(),
            _ => return,
        };
    }
    if let Some(Value::String(text)) = map.get_mut("value")
        && text.starts_with("segmentDir:")
    {
        *text = settings.to_owned();
    }
}
