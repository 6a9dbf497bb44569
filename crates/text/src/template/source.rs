//! Where a model's templates and special tokens come from.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::TemplateError;
use super::json::{Json, Object};

/// Largest file that is read. Tokenizer configurations list added tokens one by one.
const LIMIT: u64 = 16 << 20;
/// Most named templates of a model.
const TEMPLATES: usize = 64;

/// The templates of a model and what they are given.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// The template for requests without tools, and for others if no other is named.
    pub(super) default: Option<String>,
    /// The template for requests with tools.
    pub(super) tool_use: Option<String>,
    /// Templates of other names, for requests that come with them.
    pub(super) others: Vec<String>,
    /// Names and texts of special tokens.
    pub(super) tokens: Vec<(String, Json)>,
}

impl Source {
    /// Reads a model's directory: `chat_template.jinja` and `additional_chat_templates`, else the
    /// templates of `tokenizer_config.json`; special tokens from there and, where it names none,
    /// from `special_tokens_map.json`. `chat_template.json` is that of a processor of images, which
    /// counts for requests without tools.
    pub(super) fn load(dir: &Path) -> Result<Source, TemplateError> {
        let path = dir.join("tokenizer_config.json");
        let config = read(&path)?.map(|text| object(&text, &path)).transpose()?;
        let mut source = Source::default();
        if let Some(config) = &config {
            source.tokens = tokens(config);
            source.configured(config, &path)?;
        }
        let path = dir.join("special_tokens_map.json");
        if let Some(text) = read(&path)? {
            for (name, token) in tokens(&object(&text, &path)?) {
                if source.tokens.iter().all(|(known, _)| *known != name) {
                    source.tokens.push((name, token));
                }
            }
        }
        let path = dir.join("chat_template.jinja");
        if let Some(text) = read(&path)? {
            source.default = Some(utf8(text, &path)?);
            source.tool_use = None;
        }
        source.additional(&dir.join("additional_chat_templates"))?;
        let path = dir.join("chat_template.json");
        if let Some(text) = read(&path)? {
            source.processors(&object(&text, &path)?, &path)?;
        }
        Ok(source)
    }

    /// A template's text and the text of `tokenizer_config.json`.
    pub(super) fn from_parts(template: &str, config: &[u8]) -> Result<Source, TemplateError> {
        let config = object(config, Path::new("tokenizer_config.json"))?;
        let default = Some(template.to_owned());
        Ok(Source { default, tokens: tokens(&config), ..Source::default() })
    }

    fn configured(&mut self, config: &Object, path: &Path) -> Result<(), TemplateError> {
        let wrong = || TemplateError::Config {
            path: path.to_owned(),
            expected: "chat_template to be a string or a list of names and templates".to_owned(),
        };
        match config.given("chat_template") {
            None => {}
            Some(Json::Text(text)) => self.default = Some(text.to_string()),
            Some(Json::List(templates)) => {
                for template in templates {
                    let template = template.as_object().ok_or_else(wrong)?;
                    let text = |member| template.get(member).and_then(Json::as_text);
                    let name = text("name").ok_or_else(wrong)?;
                    self.name(name, text("template").ok_or_else(wrong)?.to_string());
                }
            }
            Some(_) => return Err(wrong()),
        }
        Ok(())
    }

    fn processors(&mut self, file: &Object, path: &Path) -> Result<(), TemplateError> {
        let Some(Json::Text(template)) = file.get("chat_template") else {
            let expected = "chat_template to be a string".to_owned();
            return Err(TemplateError::Config { path: path.to_owned(), expected });
        };
        let tokenizers = self.default.replace(template.to_string());
        self.tool_use = self.tool_use.take().or(tokenizers);
        Ok(())
    }

    fn additional(&mut self, dir: &Path) -> Result<(), TemplateError> {
        let failed = |source| TemplateError::File { path: dir.to_owned(), source };
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries.take(TEMPLATES) {
            let path = entry.map_err(failed)?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
            let jinja = path.extension().is_some_and(|extension| extension == "jinja");
            if let (true, Some(name), Some(text)) = (jinja, name, read(&path)?) {
                self.name(&name, utf8(text, &path)?);
            }
        }
        Ok(())
    }

    fn name(&mut self, name: &str, text: String) {
        match name {
            "default" => self.default = Some(text),
            "tool_use" => self.tool_use = Some(text),
            _ if self.others.len() < TEMPLATES => self.others.push(text),
            _ => {}
        }
    }
}

/// The special tokens that a configuration names: `bos_token` and the like, alone or as objects,
/// and the model's own.
fn tokens(config: &Object) -> Vec<(String, Json)> {
    fn text(token: &Json) -> Option<Json> {
        match token {
            Json::Object(token) => {
                token.get("content").filter(|text| text.as_text().is_some()).cloned()
            }
            Json::Text(_) => Some(token.clone()),
            _ => None,
        }
    }
    let extra = config.get("extra_special_tokens").and_then(Json::as_object);
    let named = extra.into_iter().flat_map(|extra| &extra.entries);
    let own = config.entries.iter().filter(|(name, _)| name.ends_with("_token"));
    let mut found: Vec<(String, Json)> = own
        .chain(named)
        .filter_map(|(name, token)| Some((name.to_string(), text(token)?)))
        .collect();
    if let Some(Json::List(list)) = config.get("additional_special_tokens") {
        let list = list.iter().filter_map(text).collect();
        found.push(("additional_special_tokens".to_owned(), Json::List(list)));
    }
    found
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, TemplateError> {
    let failed = |source| TemplateError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LIMIT {
        return Err(failed(io::Error::other(format!("larger than {LIMIT} bytes"))));
    }
    Ok(Some(bytes))
}

fn utf8(bytes: Vec<u8>, path: &Path) -> Result<String, TemplateError> {
    String::from_utf8(bytes).map_err(|error| config(path, format!("UTF-8: {error}")))
}

fn object(text: &[u8], path: &Path) -> Result<Object, TemplateError> {
    match Json::parse(text) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err(config(path, "an object".to_owned())),
        Err(error) => Err(config(path, format!("{} at byte {}", error.expected, error.offset))),
    }
}

fn config(path: &Path, expected: String) -> TemplateError {
    TemplateError::Config { path: PathBuf::from(path), expected }
}
