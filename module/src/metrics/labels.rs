//! The labels of a request, and how many of them are kept apart.
//!
//! Labels come from clients, and every set of them is a series in each family: names are cut off at
//! [`MAX_NAME_BYTES`], their number is limited, and so is that of their combinations. What is beyond
//! a limit is counted as [`OTHER`].

use std::collections::HashSet;

/// Names of the labels of one model.
pub(super) const MODEL: &[&str] = &["model_name", "target_model_name"];
/// Names of the labels of one flow.
pub(super) const FLOW: &[&str] = &["model_name", "target_model_name", "fairness_id", "priority"];

/// Distinct model names kept apart.
pub(super) const MAX_MODELS: usize = 1_000;
/// Distinct fairness ids kept apart.
const MAX_FAIRNESS_IDS: usize = 1_000;
/// Distinct combinations kept apart: a set costs about 5 kB in the families.
pub(super) const MAX_SETS: usize = 4_000;
/// Longest name that is kept.
const MAX_NAME_BYTES: usize = 256;
/// What everything beyond a limit is called.
pub(super) const OTHER: &str = "other";

/// The labels of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelLabels {
    /// The model that the client named.
    pub model: String,
    /// The model after rewriting.
    pub target_model: String,
    /// Fairness id.
    pub fairness_id: String,
    /// Priority.
    pub priority: i32,
}

impl ModelLabels {
    /// Labels of a request; a name that is too long to be kept is `other`.
    pub fn new(model: &str, target_model: &str, fairness_id: &str, priority: i32) -> Self {
        Self {
            model: short(model).to_owned(),
            target_model: short(target_model).to_owned(),
            fairness_id: short(fairness_id).to_owned(),
            priority,
        }
    }

    fn other() -> Self {
        Self::new(OTHER, OTHER, OTHER, 0)
    }
}

/// The name, unless it is too long to be kept.
fn short(name: &str) -> &str {
    if name.len() > MAX_NAME_BYTES { OTHER } else { name }
}

/// The names seen so far.
#[derive(Debug, Default)]
pub(super) struct Names {
    models: HashSet<String>,
    fairness_ids: HashSet<String>,
    sets: HashSet<ModelLabels>,
}

impl Names {
    /// The labels under which a request is counted.
    pub(super) fn bounded(&mut self, labels: &ModelLabels) -> ModelLabels {
        let bounded = ModelLabels {
            model: self.model(&labels.model),
            target_model: self.model(&labels.target_model),
            fairness_id: keep(&mut self.fairness_ids, &labels.fairness_id, MAX_FAIRNESS_IDS),
            priority: labels.priority,
        };
        if !self.sets.contains(&bounded) {
            if self.sets.len() >= MAX_SETS {
                return ModelLabels::other();
            }
            self.sets.insert(bounded.clone());
        }
        bounded
    }

    /// The name under which a model is counted.
    pub(super) fn model(&mut self, name: &str) -> String {
        keep(&mut self.models, name, MAX_MODELS)
    }
}

fn keep(known: &mut HashSet<String>, name: &str, limit: usize) -> String {
    let name = short(name);
    if name.is_empty() || known.contains(name) {
        return name.to_owned();
    }
    if known.len() >= limit {
        return OTHER.to_owned();
    }
    known.insert(name.to_owned());
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(model: &str, flow: &str) -> ModelLabels {
        ModelLabels::new(model, model, flow, 0)
    }

    #[test]
    fn models_are_bounded() {
        let mut names = Names::default();
        for n in 0..MAX_MODELS {
            names.model(&format!("m{n}"));
        }
        assert_eq!(names.model("one-more"), OTHER);
        assert_eq!(names.model("m5"), "m5");
        assert_eq!(names.model(""), "");
    }

    #[test]
    fn combinations_are_bounded() {
        let mut names = Names::default();
        for n in 0..MAX_SETS {
            let set = labels(&format!("m{}", n % 100), &format!("f{}", n / 100));
            assert_eq!(names.bounded(&set), set);
        }
        assert_eq!(names.bounded(&labels("m1", "f999")), ModelLabels::other());
        assert_eq!(names.bounded(&labels("m1", "f1")), labels("m1", "f1"));
    }

    #[test]
    fn long_names_are_not_kept() {
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        assert_eq!(ModelLabels::new(&long, "m", &long, 3), ModelLabels::new(OTHER, "m", OTHER, 3));
    }
}
