//! `models-data-extractor`: which models an engine serves, base models and LoRA adapters.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::Endpoint;
use inlane_core::plugin::{Extraction, Extractor, Findings, Part, Roles};
use inlane_core::registry::{PluginType, metric_keys};
use serde::Deserialize;

use crate::ignored::ignore;

/// The type `models-data-extractor`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("models-data-extractor", |build, params| {
    ignore(build, params);
    build.produce_key(metric_keys::ADAPTERS);
    Ok(Roles::default().part(Part::Extractor).extractor(Arc::new(ModelsExtractor)))
});

/// Longest list in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Longest name in bytes; longer ones are left out.
const MAX_NAME: usize = 512;
/// Most models of one engine; further ones are left out.
const MAX_MODELS: usize = 1_024;

/// Takes the `id` of each entry of `data`, as the OpenAI API lists models.
#[derive(Debug)]
struct ModelsExtractor;

impl Extractor for ModelsExtractor {
    fn begin(&self, _endpoint: &Endpoint) -> Box<dyn Extraction> {
        Box::new(List::default())
    }
}

#[derive(Debug, Default)]
struct List {
    body: Vec<u8>,
    is_too_long: bool,
}

#[derive(Debug, Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Debug, Deserialize)]
struct Model {
    id: String,
}

impl Extraction for List {
    fn chunk(&mut self, bytes: &[u8]) {
        self.is_too_long |= self.body.len() + bytes.len() > MAX_BYTES;
        if !self.is_too_long {
            self.body.extend_from_slice(bytes);
        }
    }

    fn finish(self: Box<Self>, found: &mut Findings<'_>) -> Result<(), PluginError> {
        if self.is_too_long {
            let text = format!("the list of models has more than {MAX_BYTES} bytes");
            return Err(PluginError::Failed(text));
        }
        let Models { data } = serde_json::from_slice(&self.body)
            .map_err(|e| PluginError::Failed(format!("the list of models: {e}")))?;
        let names = data.into_iter().map(|model| model.id);
        let names = names.filter(|name| !name.is_empty() && name.len() <= MAX_NAME);
        found.serves(names.take(MAX_MODELS).collect());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_page;
    use super::*;
    use crate::testing::World;

    fn models(text: &str, size: usize) -> (Option<Vec<String>>, bool) {
        let mut world = World::new(1);
        let built = world.build("models-data-extractor", "").unwrap();
        let (_, models, complete) = read_page(&built.roles, &world.endpoints[0], text, size);
        (models, complete)
    }

    #[test]
    fn ids_are_taken_from_whatever_pieces() {
        let text = r#"{"object": "list", "data": [{"id": "base", "object": "model", "parent": null},
            {"id": "adapter", "parent": "base"}, {"id": ""}]}"#;
        let expected = Some(vec!["base".to_owned(), "adapter".to_owned()]);
        for size in [1, 7, 4_096] {
            assert_eq!(models(text, size), (expected.clone(), true));
        }
        assert_eq!(models(r#"{"data": []}"#, 9), (Some(vec![]), true));
    }

    #[test]
    fn nonsense_and_too_much_leave_the_models_as_they_were() {
        for text in ["", "{}", "[]", r#"{"data": [{"name": "x"}]}"#, "<html>", r#"{"data": [{"id""#]
        {
            assert_eq!(models(text, 64), (None, false), "{text}");
        }
        let long = format!(r#"{{"data": [{{"id": "{}"}}]}}"#, "x".repeat(MAX_BYTES));
        assert_eq!(models(&long, 4_096), (None, false));
        let name = format!(r#"{{"data": [{{"id": "{}"}}, {{"id": "y"}}]}}"#, "x".repeat(600));
        assert_eq!(models(&name, 4_096), (Some(vec!["y".to_owned()]), true));
        let many = vec![r#"{"id": "m"}"#; 3_000].join(",");
        let (found, _) = models(&format!(r#"{{"data": [{many}]}}"#), 4_096);
        assert_eq!(found.map(|found| found.len()), Some(MAX_MODELS));
    }
}
