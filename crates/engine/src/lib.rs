//! Model-server facts: which metrics an engine exposes, and how to read them from its page.
//!
//! A scheduler wants half a dozen numbers out of a page of a thousand lines, a few hundred times
//! per second. So nothing here builds a model of the page:
//!
//! * [`MetricSpec`] names one series: `name{label=value}`.
//! * [`EngineSpec`] says which series an engine uses for which [`Field`]; [`EngineTable`] holds the
//!   known engines and the user's own, and chooses one per endpoint by label.
//! * [`Plan`] is a compiled [`EngineSpec`]: the few names, and a filter that rejects nearly every
//!   other line by its first bytes.
//! * [`Scanner`] runs a plan over a page that arrives in pieces of any size and yields an
//!   [`EngineSample`].
//!
//! Cost: one pass of `memchr` over the page plus a prefix comparison per line. Memory: the longest
//! line of interest that was cut by a piece's end, at most [`MAX_LINE`] bytes. Input is untrusted:
//! a line that makes no sense is counted and skipped.
#![forbid(unsafe_code)]

mod catalog;
mod line;
mod params;
mod plan;
mod sample;
mod scan;
mod spec;
mod table;

pub use catalog::{DEFAULT_ENGINE, ENGINE_LABEL, LEGACY_ENGINE_LABEL, built_in};
pub use params::{CustomMetricParams, EngineParams, ExtractorParams};
pub use plan::{EngineSpec, Plan};
pub use sample::{EngineSample, Field, FieldSet, LoraSample, MAX_CUSTOM};
pub use scan::{MAX_LINE, Scanner, scan};
pub use spec::{MetricSpec, SpecError};
pub use table::{EngineTable, TableError};
