//! Watching one file by looking at it.
//!
//! A look is one `stat` that follows symbolic links, so that a rename over the file and the symlink
//! swap of a ConfigMap volume are seen like a write. File times are coarse: a file that changed
//! moments before it was read is read again at the next look, until it has settled. Only a change
//! of content is reported.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long a file must have been unchanged for its times to vouch for its content.
const SETTLED: Duration = Duration::from_millis(100);

/// What a look found.
#[derive(Debug)]
pub(crate) enum Change {
    /// New content.
    Content(Vec<u8>),
    /// The file cannot be read any more.
    Lost(io::Error),
}

/// A watched file.
#[derive(Debug)]
pub(crate) struct FileWatch {
    path: PathBuf,
    max: usize,
    seen: Option<Seen>,
    content: Option<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Seen {
    identity: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    settled: bool,
}

impl FileWatch {
    /// Watches `path`; reads at most `max + 1` bytes of it, so that the reader of the content sees
    /// whether it is too long.
    pub(crate) fn new(path: PathBuf, max: usize) -> Self {
        Self { path, max, seen: None, content: None }
    }

    /// The watched path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks once. `None`: nothing new.
    pub(crate) fn look(&mut self) -> Option<Change> {
        match self.try_look() {
            Ok(content) => content.map(Change::Content),
            Err(error) => {
                self.seen = None;
                // Told once; coming back with the same content is a change again.
                self.content.take().map(|_| Change::Lost(error))
            }
        }
    }

    /// Reads the content for the first time.
    pub(crate) fn first(&mut self) -> io::Result<Vec<u8>> {
        self.try_look().map(|content| content.unwrap_or_default())
    }

    fn try_look(&mut self) -> io::Result<Option<Vec<u8>>> {
        let metadata = std::fs::metadata(&self.path)?;
        let age = metadata
            .modified()
            .and_then(|at| SystemTime::now().duration_since(at).map_err(io::Error::other));
        let seen = Seen {
            identity: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            settled: age.is_ok_and(|age| age >= SETTLED),
        };
        if seen.settled && self.seen == Some(seen) {
            return Ok(None);
        }
        let mut content = Vec::new();
        File::open(&self.path)?.take(self.max as u64 + 1).read_to_end(&mut content)?;
        self.seen = Some(seen);
        if self.content.as_ref() == Some(&content) {
            return Ok(None);
        }
        self.content = Some(content.clone());
        Ok(Some(content))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn content(change: Option<Change>) -> Option<String> {
        match change? {
            Change::Content(bytes) => Some(String::from_utf8(bytes).unwrap()),
            Change::Lost(_) => Some("lost".into()),
        }
    }

    #[test]
    fn writes_renames_and_removals_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new(path.clone(), 10);
        assert_eq!(watch.first().unwrap(), b"one");
        assert_eq!(content(watch.look()), None);
        // The same size at nearly the same time.
        fs::write(&path, "two").unwrap();
        assert_eq!(content(watch.look()).as_deref(), Some("two"));
        fs::write(dir.path().join("g"), "three").unwrap();
        fs::rename(dir.path().join("g"), &path).unwrap();
        assert_eq!(content(watch.look()).as_deref(), Some("three"));
        fs::remove_file(&path).unwrap();
        assert_eq!(content(watch.look()).as_deref(), Some("lost"));
        assert_eq!(content(watch.look()), None);
        fs::write(&path, "three").unwrap();
        assert_eq!(content(watch.look()).as_deref(), Some("three"));
    }

    #[test]
    fn a_config_map_volume_swaps_a_symlink_above_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, text) in [("v1", "one"), ("v2", "two")] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("f"), text).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/f", at("f")).unwrap();
        let mut watch = FileWatch::new(at("f"), 10);
        assert_eq!(watch.first().unwrap(), b"one");
        symlink("v2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        assert_eq!(content(watch.look()).as_deref(), Some("two"));
    }

    #[test]
    fn a_settled_file_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new(path, 10);
        watch.first().unwrap();
        std::thread::sleep(SETTLED);
        assert_eq!(content(watch.look()), None);
        // From here on the content that is remembered plays no part.
        watch.content = Some(b"other".to_vec());
        assert_eq!(content(watch.look()), None);
    }

    #[test]
    fn reading_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "x".repeat(100)).unwrap();
        assert_eq!(FileWatch::new(path, 10).first().unwrap().len(), 11);
    }
}
