//! Samples: what each proxy process has observed, on its way to the control plane.
//!
//! A process makes one ring, its own, and holds the file's lock for life. One of its threads
//! [pushes](SampleWriter::push) records of a fixed number of words; the control plane
//! [drains](SampleSet::drain) the rings of all processes, and those that the dead have left. A record
//! is opaque here: what its words mean, and whether they make sense, is between those two.
//!
//! The ring loses rather than waits: a record for which there is no room is dropped and counted.
//! A record is handed out at most once, whole, and in the order of its process.
//!
//! Cost: to push is one load and `words + 1` stores, some 10 ns; to drain is one directory listing, one
//! lock attempt per process, and `words` loads and one store per record. Bytes: see [`SampleShape`].
//!
//! ```
//! use inlane_segment::{SampleSet, SampleShape, SampleWriter, Shape, Writer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("inlane");
//! # Writer::open_or_create(&dir, Shape::default())?;
//! const FORMAT: u32 = 1;
//! let mut samples = SampleWriter::create(&dir, SampleShape::new(FORMAT, 3))?;
//! assert!(samples.push(&[7, 20, 250]));
//!
//! let mut set = SampleSet::open(&dir, FORMAT)?;
//! let taken = set.drain(|record| assert_eq!(record, [7, 20, 250]))?;
//! assert_eq!(taken, 1);
//! # Ok(())
//! # }
//! ```

mod file;
#[cfg(loom)]
#[cfg(test)]
mod models;
mod ring;
mod set;

pub use file::{SAMPLES_VERSION, SampleShape, SampleWriter};
pub use ring::{MAX_SAMPLE_WORDS, MAX_SAMPLES};
pub use set::{SampleCounters, SampleSet};
