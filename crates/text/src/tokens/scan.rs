//! Finds tokenizers in a directory and names their models.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::files::Place;
use super::models::Source;

/// Directories that are entered below the one that is searched: a hub cache takes three, organised
/// by provider and team some more.
const DEPTH: usize = 8;

/// Entries looked at in one search.
const ENTRIES: usize = 20_000;

/// The models of a source by name.
pub(super) fn places(source: &Source) -> BTreeMap<String, Place> {
    let mut places = BTreeMap::new();
    if let Some(root) = &source.directory {
        let mut left = ENTRIES;
        let mut found = Vec::new();
        walk(root, &source.file, DEPTH, &mut left, &mut found);
        found.sort();
        for dir in found {
            let Some(name) = name(root, &dir) else { continue };
            let place = Place { dir, file: source.file.clone() };
            places
                .entry(name)
                .and_modify(|other: &mut Place| {
                    if is_newer(&place, other) {
                        other.clone_from(&place);
                    }
                })
                .or_insert(place);
        }
    }
    for (name, path) in &source.map {
        let file = path.file_name().filter(|_| path.is_file()).and_then(|file| file.to_str());
        let place = match (file, path.parent()) {
            (Some(file), Some(dir)) => Place { dir: dir.to_owned(), file: file.to_owned() },
            _ => Place { dir: path.clone(), file: source.file.clone() },
        };
        places.insert(name.clone(), place);
    }
    places
}

/// Collects directories that hold a tokenizer. Follows links: a ConfigMap is made of them.
fn walk(dir: &Path, file: &str, depth: usize, left: &mut usize, found: &mut Vec<PathBuf>) {
    if dir.join(file).is_file() {
        found.push(dir.to_owned());
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    if depth == 0 {
        return;
    }
    for entry in entries.flatten() {
        let Some(rest) = left.checked_sub(1) else { return };
        *left = rest;
        // `..data` and `..2026_…` are how a ConfigMap is switched: seen through the links beside.
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b"..");
        if !hidden && entry.path().is_dir() {
            walk(&entry.path(), file, depth - 1, left, found);
        }
    }
}

/// The model's name, `None` if it is no text.
fn name(root: &Path, dir: &Path) -> Option<String> {
    let inside = dir.strip_prefix(root).ok()?;
    let mut parts = Vec::new();
    for part in inside.components() {
        let Component::Normal(part) = part else { return None };
        parts.push(part.to_str()?);
    }
    if let [.., repo, "snapshots", _] = parts.as_slice()
        && let Some(repo) = repo.strip_prefix("models--")
    {
        return Some(repo.replacen("--", "/", 1));
    }
    if parts.is_empty() {
        return root.file_name()?.to_str().map(str::to_owned);
    }
    Some(parts.join("/"))
}

/// Of two snapshots of one model, the one that `refs/main` names, else the younger.
fn is_newer(place: &Place, than: &Place) -> bool {
    let main = |place: &Place| {
        let repo = place.dir.parent().and_then(Path::parent)?;
        let main = fs::read_to_string(repo.join("refs/main")).ok()?;
        Some(place.dir.file_name()?.to_str()? == main.trim())
    };
    let written = |place: &Place| fs::metadata(place.tokenizer()).and_then(|file| file.modified());
    match (main(place), main(than)) {
        (Some(true), _) => true,
        (_, Some(true)) => false,
        _ => written(place).ok() > written(than).ok(),
    }
}
