//! The module's metrics, under the endpoint picker's names.
//!
//! Series are atomics behind handles. A worker looks a set of labels up once and keeps the handles
//! ([`families::Families::model`]); after that, recording is a few atomic additions, without lock
//! or lookup. The text is rendered when somebody asks for it.

pub mod buckets;
pub mod families;
mod labels;
mod legacy;
mod make;
pub mod plugins;
mod requests;
mod series;
mod shadow;
mod tokens;

pub use families::Families;
pub use labels::ModelLabels;
pub use make::Twin;
pub use plugins::PluginTimes;
pub use series::ModelSeries;
