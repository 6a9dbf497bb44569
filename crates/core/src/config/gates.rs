//! Feature gates: names with a default that the configuration may change.

use super::error::Fault;
use super::hint;

/// The gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureGates {
    /// Use queues for admission instead of the legacy saturation check.
    pub flow_control: bool,
    /// Keep endpoint state on replicas that do not lead.
    pub ha_populate_non_leader_datastore: bool,
}

impl Default for FeatureGates {
    fn default() -> Self {
        Self { flow_control: false, ha_populate_non_leader_datastore: true }
    }
}

impl FeatureGates {
    const NAMES: [&str; 2] = ["flowControl", "haPopulateNonLeaderDatastore"];

    /// Applies entries of the form `name`, `name=true` or `name=false`; the last one wins.
    pub(crate) fn parse(entries: &[String]) -> Result<Self, Fault> {
        let mut gates = Self::default();
        for (entry, i) in entries.iter().zip(0..) {
            let path = || format!("featureGates[{i}]");
            let (name, value) = entry.split_once('=').unwrap_or((entry, "true"));
            let gate = match name {
                "flowControl" => &mut gates.flow_control,
                "haPopulateNonLeaderDatastore" => &mut gates.ha_populate_non_leader_datastore,
                _ => {
                    let text = format!("feature gate '{name}' is unknown or unregistered");
                    let fault = Fault::at(path(), text);
                    return Err(fault.hint(hint::nearest(name, Self::NAMES)));
                }
            };
            let value = value.trim().to_lowercase();
            *gate = match value.as_str() {
                "1" | "t" | "true" => true,
                "0" | "f" | "false" => false,
                _ => {
                    let text = format!(
                        "{value} is not a valid value for the feature gate {name}; \
                         expected true or false"
                    );
                    return Err(Fault::at(path(), text));
                }
            };
        }
        Ok(gates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &[&str]) -> Result<FeatureGates, Fault> {
        FeatureGates::parse(&entries.iter().map(|&e| e.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_entry_wins() {
        assert_eq!(parse(&[]), Ok(FeatureGates::default()));
        assert!(parse(&["flowControl"]).unwrap().flow_control);
        assert!(!parse(&["flowControl", "flowControl= F"]).unwrap().flow_control);
        let ha = parse(&["haPopulateNonLeaderDatastore=0"]).unwrap();
        assert!(!ha.ha_populate_non_leader_datastore);
    }

    #[test]
    fn unknown_gates_and_values_are_refused() {
        let unknown = parse(&["flowControl", "dataLayer"]).unwrap_err();
        assert_eq!(unknown.path, "featureGates[1]");
        assert_eq!(unknown.message, "feature gate 'dataLayer' is unknown or unregistered");
        assert_eq!(parse(&["flowcontrol"]).unwrap_err().hint.as_deref(), Some("flowControl"));
        assert!(parse(&["flowControl=qwerty"]).unwrap_err().message.contains("not a valid value"));
        assert!(parse(&[" flowControl"]).is_err());
    }
}
