//! What decisions are made on: one configuration applied to one topology, and where its numbers are.

use std::sync::Arc;

use inlane_core::columns::{Adapters, Col, Columns, InFlight, Metrics, NEVER_SCRAPED, Scalar};
use inlane_core::config::LoadedConfig;
use inlane_core::effect::PluginIx;
use inlane_core::endpoint::{EndpointSet, Slot};
use inlane_core::plan::Plan;
use inlane_core::plugin::LoadSource;
use inlane_core::request::BlockUnit;
use inlane_core::snapshot::{MetricsRow, Pool, ROW_PREFIX, ROW_SCALARS, ROW_WORDS};
use inlane_plugins::token_producer::{Estimate, Wish};
use inlane_segment::{Ledger, SlotGeneration, Snapshot};

use crate::scheduler::Parsers;

/// Why there is nothing to decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// No segment, or none that can be read.
    NoSnapshot,
    /// The segment has no topology yet.
    NoTopology,
    /// The segment has no configuration yet, or only refused ones.
    NoConfiguration,
}

impl Unserved {
    /// A word for it, in pages and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSnapshot => "no-snapshot",
            Self::NoTopology => "no-topology",
            Self::NoConfiguration => "no-configuration",
        }
    }
}

/// A second configuration applied to the same endpoints.
#[derive(Debug)]
pub struct ShadowPlan {
    /// Configuration and endpoints.
    pub plan: Plan,
    /// Share of the requests that it sees, 0 to 1.
    pub fraction: f64,
    /// Custom metrics of the configuration, by place in a row.
    pub scalars: Vec<(Col<Scalar>, usize)>,
    /// Instances whose state the first configuration does not have: they learn here.
    pub learners: Vec<PluginIx>,
}

impl ShadowPlan {
    /// The shadow of `config`, if it has one, with the plan that `plan_of` makes of it.
    pub fn of(
        config: &LoadedConfig,
        plan_of: impl FnOnce(&Arc<LoadedConfig>) -> Plan,
    ) -> Option<Self> {
        let shadow = config.shadow.as_ref()?;
        let known = |name: &str, type_name: &str| {
            config.plugins.iter().any(|p| p.name == name && p.type_name == type_name)
        };
        let post_choice = shadow.config.post_choice.iter().copied();
        let learners = post_choice
            .filter(|&ix| shadow.config.plugin(ix).is_some_and(|p| !known(&p.name, p.type_name)));
        let plan = plan_of(&shadow.config);
        Some(Self {
            learners: learners.collect(),
            scalars: scalar_places(&plan),
            plan,
            fraction: shadow.fraction,
        })
    }
}

/// Everything a worker needs for a decision; immutable, swapped as a whole.
#[derive(Debug)]
pub struct Serving {
    /// Configuration and endpoints.
    pub plan: Arc<Plan>,
    /// A second configuration that sees the same requests.
    pub shadow: Option<ShadowPlan>,
    /// The rows.
    pub snapshot: Snapshot,
    /// Columns of the custom metrics that the plan reads, and where in a row each is.
    pub scalars: Vec<(Col<Scalar>, usize)>,
    /// How media in prompts are counted.
    pub media: Estimate,
    /// Whose paths are read.
    pub parsers: Parsers,
    /// What the configuration wants of tokenizers.
    pub tokens: Option<Wish>,
    /// This process's bookings.
    pub ledger: Arc<Ledger>,
    /// The pool.
    pub pool: Pool,
    /// Generation of the configuration.
    pub config_generation: u64,
    /// Generation of the topology.
    pub topology_generation: u64,
}

impl Serving {
    /// The pool's members.
    pub fn endpoints(&self) -> &EndpointSet {
        self.plan.endpoints()
    }

    /// Reads every endpoint's row. An endpoint whose last scrape is older than `stale_after_ms`
    /// is marked as not fresh. One pass over the rows, a few nanoseconds each; a second cache line
    /// of each is read only where the plan reads custom metrics.
    pub fn fill_metrics(&self, columns: &mut Columns, now_ms: u64, stale_after_ms: u64) {
        self.fill_rows(&self.scalars, columns, now_ms, stale_after_ms);
    }

    /// The same for a configuration whose custom metrics are `scalars`.
    pub fn fill_rows(
        &self,
        scalars: &[(Col<Scalar>, usize)],
        columns: &mut Columns,
        now_ms: u64,
        stale_after_ms: u64,
    ) {
        for (ix, endpoint) in self.endpoints().as_slice().iter().enumerate() {
            let index = endpoint.slot.index;
            let row = if scalars.is_empty() {
                let mut words = [0; ROW_PREFIX];
                let read = self.snapshot.row(index, &mut words);
                read.then(|| MetricsRow::from_prefix(&words))
            } else {
                let mut words = [0; ROW_WORDS];
                let read = self.snapshot.row(index, &mut words[..ROW_SCALARS]);
                read.then(|| MetricsRow::from_words(&words))
            };
            let Some(row) = row else {
                columns.metrics.fresh[ix] = false;
                columns.metrics.age_ms[ix] = NEVER_SCRAPED;
                continue;
            };
            fill(&mut columns.metrics, ix, &row, now_ms, stale_after_ms);
            for &(col, place) in scalars {
                let value = row.scalars.get(place).filter(|value| value.is_finite());
                columns.get_mut(col)[ix] = value.copied().map(Scalar);
            }
        }
    }

    /// The block unit in which bodies should be hashed, from the first endpoint's present numbers,
    /// and how many blocks of a prompt. `metrics` is memory to work in.
    pub fn block_unit(&self, metrics: &mut Metrics) -> Option<(BlockUnit, usize)> {
        let first = self.endpoints().as_slice().first()?;
        metrics.reset(1);
        if let Some(row) = self.row(first.slot) {
            metrics.cache_block_size[0] = row.cache_block_size;
            metrics.cache_num_blocks[0] = row.cache_num_blocks;
        }
        // A body is cut into blocks once: a shadow that wants another size finds no blocks.
        let shadow = self.shadow.as_ref().map(|shadow| &shadow.plan);
        let plans = || std::iter::once(&*self.plan).chain(shadow);
        let unit = plans().find_map(|plan| plan.block_unit(metrics, 0))?;
        Some((unit, plans().map(|plan| plan.block_limit(unit)).max().unwrap_or(0)))
    }

    /// The row of one endpoint. Counters are absent where the control plane writes none.
    pub fn row(&self, slot: Slot) -> Option<MetricsRow> {
        let mut words = [0; ROW_WORDS];
        let width = self.snapshot.shape().row_words as usize;
        let width = if width < ROW_WORDS { ROW_SCALARS } else { ROW_WORDS };
        let read = self.snapshot.row(slot.index, &mut words[..width]);
        read.then(|| MetricsRow::from_words(&words))
    }
}

fn fill(metrics: &mut Metrics, ix: usize, row: &MetricsRow, now_ms: u64, stale_after_ms: u64) {
    metrics.waiting[ix] = row.waiting;
    metrics.running[ix] = row.running;
    metrics.kv_usage[ix] = row.kv_usage;
    metrics.cache_block_size[ix] = row.cache_block_size;
    metrics.cache_num_blocks[ix] = row.cache_num_blocks;
    let age = now_ms.saturating_sub(row.scraped_at_ms);
    let is_known = row.scraped_at_ms != 0;
    metrics.fresh[ix] = is_known && age <= stale_after_ms;
    metrics.age_ms[ix] =
        if is_known { u32::try_from(age).unwrap_or(NEVER_SCRAPED) } else { NEVER_SCRAPED };
    // Empty where the configuration reads no adapters.
    if let Some(adapters) = metrics.adapters.get_mut(ix) {
        *adapters = Adapters {
            active: row.active_models,
            waiting: row.waiting_models,
            served: row.served_models,
            max_active: row.max_active_models,
            loaded: row.loaded_models,
        };
    }
}

/// Where in a row the custom metrics are that `plan` reads, of those that its topology names. A
/// column whose key names no producer gets the first metric of that name.
pub(super) fn scalar_places(plan: &Plan) -> Vec<(Col<Scalar>, usize)> {
    let keys = plan.endpoints().scalars();
    let columns = plan.config().schema.keys::<Scalar>();
    columns
        .filter_map(|(key, col)| Some((col, keys.iter().position(|scalar| scalar.answers(key))?)))
        .collect()
}

impl LoadSource for Serving {
    fn in_flight(&self, slot: Slot) -> InFlight {
        let observed = self.ledger.observe(slot.index);
        if slot_generation(slot) != Some(observed.generation()) {
            return InFlight::default();
        }
        InFlight {
            requests: observed.requests(),
            tokens: u64::from(observed.tokens()),
            word: observed.word,
        }
    }
}

/// The slot's generation in the ledger's terms.
pub fn slot_generation(slot: Slot) -> Option<SlotGeneration> {
    SlotGeneration::new(u16::try_from(slot.generation).ok()?)
}

/// What is served at the moment.
#[derive(Debug)]
pub struct Served {
    /// Differs between any two of one runtime.
    pub epoch: u64,
    /// What to decide on, or why there is nothing.
    pub state: Result<Serving, Unserved>,
}

impl Served {
    /// Before the first snapshot.
    pub fn empty() -> Self {
        Self { epoch: 0, state: Err(Unserved::NoSnapshot) }
    }

    /// What to decide on, if there is something.
    pub fn serving(&self) -> Option<&Serving> {
        self.state.as_ref().ok()
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::plugin::Roles;
    use inlane_core::registry::{PluginType, Registry};
    use inlane_core::snapshot::{MAX_SCALARS, ScalarKey};
    use inlane_segment::Shape;

    use crate::testing::{LEAST_BOOKED, World, registry, settings};

    use super::*;

    const READER: PluginType = PluginType::new("scalar-reader", |build, _| {
        build.scalar("gpu", "");
        build.scalar("gpu", "second");
        build.scalar("absent", "");
        Ok(Roles::default())
    });

    fn with_reader() -> Registry {
        let mut registry = registry();
        registry.register(READER);
        registry
    }

    fn row() -> MetricsRow {
        let mut scalars = [f64::NAN; MAX_SCALARS];
        (scalars[0], scalars[2], scalars[5]) = (9.0, 1.5, 2.5);
        MetricsRow {
            waiting: 3,
            scraped_at_ms: 1_000,
            max_active_models: 4,
            loaded_models: 2,
            active_models: 1,
            waiting_models: 2,
            served_models: 4,
            scalars,
            ..MetricsRow::default()
        }
    }

    /// Two endpoints, of which the first one's row is [`row`].
    fn world(registry: fn() -> Registry, config: &str) -> World {
        let mut world = World::empty(settings(), registry);
        world.open(Shape { slots: 16, ..Shape::default() });
        world.publish_config(config);
        let key =
            |name: &str, producer: &str| ScalarKey { name: name.into(), producer: producer.into() };
        world.topology.scalars =
            vec![key("other", "first"), key("", ""), key("gpu", "first"), key("", "")];
        world.topology.scalars.extend([key("", ""), key("gpu", "second")]);
        world.set_endpoints(0..2);
        let slot = world.topology.endpoints[0].slot;
        assert!(world.writer().publish_row(slot, &row().to_words()));
        world.tick();
        world
    }

    #[test]
    fn custom_metrics_reach_the_columns_of_those_who_read_them() {
        let config =
            LEAST_BOOKED.replace("plugins:\n- type", "plugins:\n- type: scalar-reader\n- type");
        let world = world(with_reader, &config);
        let served = world.served();
        let serving = served.serving().unwrap();
        let schema = &serving.plan.config().schema;
        let col = |name: &str, producer: &str| {
            let found = schema
                .keys::<Scalar>()
                .find(|(key, _)| key.name == name && key.producer == producer);
            found.unwrap().1
        };
        let mut columns = Columns::default();
        columns.metrics.with_adapters = true;
        columns.reset(2);
        serving.fill_metrics(&mut columns, 1_500, 400);
        assert_eq!(columns.get(col("gpu", "")), [Some(Scalar(1.5)), None]);
        assert_eq!(columns.get(col("gpu", "second")), [Some(Scalar(2.5)), None]);
        assert!(columns.get(col("absent", "")).iter().all(Option::is_none));
        assert_eq!((columns.metrics.waiting[0], columns.metrics.fresh[0]), (3, false));
        assert_eq!(columns.metrics.age_ms[0], 500);
        let adapters = Adapters { active: 1, waiting: 2, served: 4, max_active: 4, loaded: 2 };
        assert_eq!(columns.metrics.adapters, [adapters, Adapters::default()]);
    }

    #[test]
    fn where_nobody_reads_custom_metrics_the_rest_is_the_same() {
        let world = world(registry, LEAST_BOOKED);
        let served = world.served();
        let serving = served.serving().unwrap();
        assert!(serving.scalars.is_empty());
        let mut columns = Columns::default();
        columns.reset(2);
        serving.fill_metrics(&mut columns, 1_000, 400);
        assert_eq!(columns.metrics.waiting, [3, 0]);
        assert_eq!(columns.metrics.fresh, [true, false]);
        assert_eq!(columns.metrics.age_ms, [0, NEVER_SCRAPED]);
        assert!(columns.metrics.adapters.is_empty());
    }
}
