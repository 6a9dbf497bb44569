//! The file that survives a restart.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use inlane_latency::{Options, Trainer};

use super::Place;

/// Longest file that is read, in bytes: more than a trainer ever writes.
const MAX_BYTES: u64 = 64 << 20;

/// The file of a pool.
pub(crate) fn file_name(namespace: &str, pool: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
    let name = |text: &str| text.chars().map(plain).collect::<String>();
    format!("latency-{}-{}.model", name(namespace), name(pool))
}

/// The trainer of the file; a new one where there is none, or one that cannot be used.
pub(super) fn load(place: &Place) -> Trainer {
    let path = place.state.display();
    let loaded = match read(&place.state) {
        Ok(None) => None,
        Ok(Some(bytes)) => match Trainer::load(place.options.clone(), &bytes) {
            Ok(trainer) => {
                let observations = trainer.report().observations;
                tracing::info!(path = %path, observations, "latency models loaded");
                Some(trainer)
            }
            Err(error) => {
                tracing::warn!(path = %path, error = %error, "latency models start anew");
                None
            }
        },
        Err(error) => {
            tracing::warn!(path = %path, error = %error, "latency models start anew");
            None
        }
    };
    loaded.unwrap_or_else(|| fresh(&place.options))
}

fn fresh(options: &Options) -> Trainer {
    let new = Trainer::new(options.clone()).or_else(|_| Trainer::new(Options::default()));
    // The options were validated when they were read, and a test holds the defaults to be valid.
    new.unwrap_or_else(|error| unreachable!("{error}"))
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("longer than {MAX_BYTES} bytes")));
    }
    Ok(Some(bytes))
}

/// Writes the file: whole or not at all, also when the machine stops. Only the owner may read it.
pub(super) fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    write().inspect_err(|_| {
        // The first error is the one to report.
        let _ = fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(dir: &Path) -> Place {
        let state = dir.join(file_name("default", "epp"));
        Place { segment_dir: dir.into(), state, options: Options::default() }
    }

    #[test]
    fn names_stay_inside_the_directory() {
        assert_eq!(file_name("default", "epp"), "latency-default-epp.model");
        assert_eq!(file_name("../a", "b/c"), "latency-.._a-b_c.model");
    }

    #[test]
    fn a_file_is_written_whole_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        assert_eq!(load(&place).report().observations, 0);
        let bytes = fresh(&Options::default()).save();
        save(&place.state, &bytes).unwrap();
        save(&place.state, &bytes).unwrap();
        assert_eq!(read(&place.state).unwrap(), Some(bytes));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        load(&place);
    }

    #[test]
    fn what_cannot_be_used_is_no_reason_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let whole = fresh(&Options::default()).save();
        for bytes in [&b""[..], b"something else", &whole[..whole.len() / 2]] {
            fs::write(&place.state, bytes).unwrap();
            assert_eq!(load(&place).report().observations, 0);
        }
        fs::remove_file(&place.state).unwrap();
        fs::create_dir(&place.state).unwrap();
        assert_eq!(load(&place).report().observations, 0);
        assert!(save(&place.state, b"x").is_err());
    }
}
