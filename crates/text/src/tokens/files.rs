//! The files of a model: where they are, what they hold, whether they changed.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::LoadError;

/// Bytes that a file of a model may have; the largest tokenizers in use have some 40 MB.
const FILE_BYTES: u64 = 256 * 1024 * 1024;

/// Files beside the tokenizer that decide tokens.
const BESIDE: [&str; 7] = [
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
];
/// Files of Mistral's own formats.
const MISTRAL: [&str; 2] = ["params.json", "tekken.json"];

/// Holds further templates.
const MORE_TEMPLATES: &str = "additional_chat_templates";

/// Templates there that are looked at.
const TEMPLATES: usize = 64;

/// A model's directory and the name of the tokenizer's file in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) file: String,
}

/// What tells one state of a model's files from another. Symbolic links are followed, so that a
/// mounted ConfigMap changes when its link is switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(PathBuf, Option<State>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    modified: SystemTime,
    len: u64,
    inode: u64,
}

impl Place {
    pub(super) fn tokenizer(&self) -> PathBuf {
        self.dir.join(&self.file)
    }

    /// Whether the model is there in Mistral's own formats, which engines prefer.
    pub(super) fn is_mistral(&self) -> bool {
        MISTRAL.iter().any(|name| self.dir.join(name).exists())
    }

    /// Cheap: no file is opened.
    pub(super) fn stamp(&self) -> Stamp {
        let more = self.dir.join(MORE_TEMPLATES);
        let mut paths = vec![self.tokenizer(), more.clone()];
        paths.extend(BESIDE.map(|name| self.dir.join(name)));
        if let Ok(entries) = fs::read_dir(more) {
            let mut templates: Vec<_> =
                entries.flatten().take(TEMPLATES).map(|entry| entry.path()).collect();
            templates.sort();
            paths.append(&mut templates);
        }
        let stamp = |path: PathBuf| {
            let state = fs::metadata(&path).ok().map(|file| State {
                modified: file.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                len: file.len(),
                inode: inode(&file),
            });
            (path, state)
        };
        Stamp(paths.into_iter().map(stamp).collect())
    }
}

#[cfg(unix)]
fn inode(file: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(file)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}

/// Reads a regular file of bounded size.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let fail = |why: &dyn ToString| LoadError::new(path, why.to_string());
    let file = File::open(path).map_err(|error| fail(&error))?;
    let about = file.metadata().map_err(|error| fail(&error))?;
    if !about.is_file() {
        return Err(fail(&"expected a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| fail(&error))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(fail(&format_args!("expected at most {FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// The same, `None` if there is no such file.
pub(super) fn read_if_any(path: &Path) -> Result<Option<Vec<u8>>, LoadError> {
    if path.exists() { read(path).map(Some) } else { Ok(None) }
}
