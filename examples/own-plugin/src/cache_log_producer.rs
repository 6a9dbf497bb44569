//! `cache-log-producer`: precise prefix matching on a source of cache events of one's own.
//!
//! Some engines, or sidecars of theirs, write down what their caches hold, one event per line:
//!
//! ```text
//! stored default/pod-1 0123456789abcdef        the pod holds the block of this key
//! removed default/pod-1 0123456789abcdef
//! cleared default/pod-1                        it holds nothing any more
//! ```
//!
//! A thread follows the file and keeps an index; Inlane's precise producer does the rest: it hashes the
//! token ids of prompts to the same keys, asks the index, and fills the columns that
//! `prefix-cache-scorer` and others read.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use inlane_core::registry::{BuildError, PluginType};
use inlane_plugins::precise::keying::Keying;
use inlane_plugins::precise::parameters::Parameters as PreciseParameters;
use inlane_plugins::precise::score::Walk;
use inlane_plugins::precise::{Inquiry, PreciseIndex, producer};
use serde::Deserialize;

/// How often the thread looks at the file.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes read at a time, and longest line.
const CHUNK: u64 = 1 << 20;
/// Blocks remembered at most: nothing that is read may fill the memory.
const MOST_BLOCKS: usize = 1 << 20;

/// The type `cache-log-producer`.
pub const TYPE: PluginType = PluginType::new("cache-log-producer", |build, params| {
    let parameters: Parameters = params.decode()?;
    if parameters.events.as_os_str().is_empty() {
        return Err(BuildError::field("events", "expected the path of a file"));
    }
    producer::over(build, &parameters.precise, || {
        Box::new(CacheLog { path: parameters.events.clone(), blocks: OnceLock::new() })
    })
});

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// The file of events.
    events: PathBuf,
    /// As of `precise-prefix-cache-producer`.
    precise: PreciseParameters,
}

/// Who holds a block, by its key.
type Blocks = HashMap<u64, HashSet<String>>;

struct CacheLog {
    path: PathBuf,
    /// What the thread has read. It starts with the first request, because whoever only checks a
    /// configuration builds its plugins as well.
    blocks: OnceLock<Arc<ArcSwap<Blocks>>>,
}

impl CacheLog {
    fn blocks(&self) -> &Arc<ArcSwap<Blocks>> {
        self.blocks.get_or_init(|| {
            let blocks = Arc::new(ArcSwap::default());
            let (path, held) = (self.path.clone(), Arc::downgrade(&blocks));
            // Without a thread the index stays empty, which costs cache hits and nothing else.
            let _ =
                thread::Builder::new().name("cache-log".into()).spawn(move || follow(&path, &held));
            blocks
        })
    }
}

impl PreciseIndex for CacheLog {
    /// Whoever writes the events has to make keys as the producer does; nothing here can tell.
    fn answers(&self, _: &Keying) -> bool {
        true
    }

    fn walk(&self, inquiry: &Inquiry<'_>, walk: &mut Walk) -> u32 {
        let blocks = self.blocks().load();
        let gpu = inquiry.weights.tier("gpu");
        for key in inquiry.keys {
            let holders = blocks.get(key).into_iter().flatten();
            let holders = holders.filter_map(|id| inquiry.endpoints.find(id));
            if !walk.block(holders.map(|ix| (ix as usize, gpu))) {
                break;
            }
        }
        u32::try_from(inquiry.keys.len()).unwrap_or(u32::MAX)
    }
}

/// Reads what is appended to the file for as long as anybody wants to know. A file that became shorter
/// is a new one.
fn follow(path: &Path, held: &Weak<ArcSwap<Blocks>>) {
    let (mut at, mut rest, mut blocks) = (0, Vec::new(), Blocks::new());
    while let Some(shared) = held.upgrade() {
        let more = read(path, &mut at, &mut rest).unwrap_or_default();
        let end = more.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let (lines, partial) = more.split_at(end);
        if !lines.is_empty() {
            String::from_utf8_lossy(lines).lines().for_each(|line| apply(line, &mut blocks));
            shared.store(Arc::new(blocks.clone()));
        }
        if partial.len() < CHUNK as usize {
            rest = partial.to_vec();
        }
        drop(shared);
        thread::sleep(LOOK);
    }
}

/// What was left of the last read, and what came after it.
fn read(path: &Path, at: &mut u64, rest: &mut Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() < *at {
        (*at, *rest) = (0, Vec::new());
    }
    file.seek(SeekFrom::Start(*at))?;
    let mut more = std::mem::take(rest);
    *at += file.take(CHUNK).read_to_end(&mut more)? as u64;
    Ok(more)
}

/// One event; a line that is none is left out.
fn apply(line: &str, blocks: &mut Blocks) {
    let mut words = line.split_whitespace();
    let (event, endpoint) = (words.next(), words.next().unwrap_or_default());
    let key = words.next().and_then(|key| u64::from_str_radix(key, 16).ok());
    match (event, key) {
        (Some("stored"), Some(key)) if blocks.len() < MOST_BLOCKS => {
            blocks.entry(key).or_default().insert(endpoint.to_owned());
        }
        (Some("removed"), Some(key)) => {
            let holders = blocks.get_mut(&key);
            if holders.is_some_and(|holders| holders.remove(endpoint) && holders.is_empty()) {
                blocks.remove(&key);
            }
        }
        (Some("cleared"), None) => blocks.retain(|_, holders| {
            holders.remove(endpoint);
            !holders.is_empty()
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_applied_in_order() {
        let mut blocks = Blocks::new();
        for line in [
            "stored a 0a",
            "stored b 0a",
            "stored b ff",
            "removed a 0a",
            "removed a ff",
            "nonsense",
            "stored c",
            "stored c xyz",
            "cleared d",
        ] {
            apply(line, &mut blocks);
        }
        assert_eq!(blocks.len(), 2);
        assert!(blocks[&10].contains("b") && blocks[&255].contains("b"));
        apply("cleared b", &mut blocks);
        assert!(blocks.is_empty());
    }
}
