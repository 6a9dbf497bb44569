//! The pool over a real segment.

use tempfile::TempDir;

use inlane_core::plugin::Findings;
use inlane_core::snapshot::CacheCounters;
use inlane_engine::EngineSample;

use super::*;

fn member(name: &str) -> Member {
    Member {
        namespace: "default".into(),
        name: name.into(),
        pod_name: name.into(),
        address: [127, 0, 0, 1].into(),
        port: 8000,
        rank: 0,
        labels: BTreeMap::new(),
        metrics: None,
    }
}

fn open(dir: &TempDir) -> PublishedPool {
    let path = dir.path().join("segment");
    PublishedPool::open(&path, 8, Pool::default()).unwrap().0
}

fn row(pool: &PublishedPool, slot: Slot) -> MetricsRow {
    let mut words = [0; ROW_WORDS];
    assert!(pool.writer.row(slot.index, &mut words));
    MetricsRow::from_words(&words)
}

fn slot(pool: &PublishedPool, name: &str) -> Slot {
    pool.members().find(|m| m.member.name == name).unwrap().core_slot()
}

/// A sample as the scanner makes it.
fn sample(page: &str) -> EngineSample {
    let table = inlane_engine::EngineTable::default();
    inlane_engine::scan(table.get("vllm").unwrap(), page.as_bytes())
}

const WAITING: &str = "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 3\n";
const RUNNING: &str = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 4\n";

#[test]
fn values_that_a_page_lacks_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a")]).unwrap();
    let a = slot(&pool, "a");
    pool.apply((a, 0), &sample(WAITING), &[]).unwrap();
    pool.apply((a, 0), &sample(RUNNING), &[]).unwrap();
    let seen = row(&pool, a);
    assert_eq!((seen.waiting, seen.running, seen.scrapes), (3, 4, 2));
    pool.note_failure((a, 0), "gone".into());
    assert_eq!(pool.members().next().unwrap().error(), Some("gone"));
    pool.apply((a, 0), &sample("<html>"), &[]).unwrap();
    assert_eq!(row(&pool, a), seen, "a useless page is no scrape");
    assert_eq!(pool.members().next().unwrap().error(), None);
}

#[test]
fn counters_of_the_prefix_cache_travel_in_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a")]).unwrap();
    let a = slot(&pool, "a");
    let recorded =
        include_str!("../../../crates/engine/fixtures/vllm-0.32.0-sha256_cbor-10-after-basic.txt");
    pool.apply((a, 0), &sample(recorded), &[]).unwrap();
    let counted = CacheCounters { queries: 5_077, hits: 1_600 };
    assert_eq!(row(&pool, a).cache, counted);
    let half =
        "# TYPE vllm:prefix_cache_queries_total counter\nvllm:prefix_cache_queries_total 9\n";
    pool.apply((a, 0), &sample(&format!("{WAITING}{half}")), &[]).unwrap();
    assert_eq!(row(&pool, a).cache, counted);
    // A successor reads what its predecessor wrote.
    drop(pool);
    assert_eq!(row(&open(&dir), a).cache, counted);
}

#[test]
fn scrapes_of_a_former_tenant_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a")]).unwrap();
    let a = slot(&pool, "a");
    pool.set_members(vec![]).unwrap();
    pool.reclaim().unwrap();
    pool.set_members(vec![member("b")]).unwrap();
    let b = slot(&pool, "b");
    assert_eq!((b.index, b.generation), (a.index, a.generation + 1));
    pool.apply((a, 0), &sample(WAITING), &[]).unwrap();
    pool.note_failure((a, 0), "late".into());
    assert_eq!(row(&pool, b), MetricsRow::default());
    assert_eq!(pool.counters().late_scrapes, 1);
    assert_eq!(pool.members().next().unwrap().error(), None);
}

#[test]
fn the_same_pool_is_not_published_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a"), member("b")]).unwrap();
    let generation = pool.topology_generation();
    pool.set_members(vec![member("b"), member("a")]).unwrap();
    assert_eq!(pool.topology_generation(), generation);
    let mut labelled = member("a");
    labelled.labels.insert("role".into(), "decode".into());
    let before = slot(&pool, "a");
    pool.set_members(vec![labelled, member("b")]).unwrap();
    assert_eq!((pool.topology_generation(), slot(&pool, "a")), (generation + 1, before));
}

#[test]
fn slots_that_no_topology_names_are_found_and_freed() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a")]).unwrap();
    let a = slot(&pool, "a");
    // As if it had died after the assignment and before the topology, and after a retirement.
    let orphan = pool.writer.assign_slot().unwrap();
    let retired = pool.writer.assign_slot().unwrap();
    assert!(pool.writer.retire_slot(retired));
    drop(pool);
    let mut pool = open(&dir);
    assert_eq!((slot(&pool, "a"), pool.retired_slots()), (a, 2));
    pool.reclaim().unwrap();
    assert_eq!(pool.retired_slots(), 0);
    let free = |id: SlotId| pool.writer.slots().any(|slot| slot == (id, SlotState::Free));
    assert!(free(orphan) && free(retired));
}

#[test]
fn a_topology_that_makes_no_sense_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a")]).unwrap();
    let a = slot(&pool, "a");
    let forged = br#"{"pool":{"name":"","namespace":""},"endpoints":[
        {"namespace":"n","name":"x","pod_name":"x","address":"127.0.0.1","port":1,"slot":99,"slot_generation":1},
        {"namespace":"n","name":"y","pod_name":"y","address":"?","port":1,"slot":0,"slot_generation":1},
        {"namespace":"n","name":"z","pod_name":"z","address":"127.0.0.1","port":1,"slot":0,"slot_generation":70000}]}"#;
    pool.writer.publish_document(Document::Topology, forged).unwrap();
    drop(pool);
    let mut pool = open(&dir);
    assert_eq!((pool.members().count(), pool.retired_slots()), (0, 1));
    pool.set_members(vec![member("a")]).unwrap();
    assert_ne!(slot(&pool, "a"), a, "its old slot waits for its claims");
}

fn key(name: &str) -> ScalarKey {
    ScalarKey { name: name.into(), producer: "p".into() }
}

/// Lets an extraction write into the row of `slot`, its custom metrics at `places`.
fn extract(
    pool: &mut PublishedPool,
    slot: Slot,
    places: &[Option<u8>],
    read: impl FnOnce(&mut Findings<'_>),
) {
    pool.extract((slot, 1), places, read).unwrap();
}

#[test]
fn loaded_models_count_those_without_a_bit() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a")]).unwrap();
    let a = slot(&pool, "a");
    let running: Vec<String> = (0..70).map(|n| format!("l{n}")).collect();
    let lora = LoraSample {
        active: format!("{},l0", running.join(",")),
        waiting: "l0, w".into(),
        max_adapters: Some(80),
    };
    let found = EngineSample { lora: Some(lora), ..sample(WAITING) };
    pool.apply((a, 0), &found, &[]).unwrap();
    let seen = row(&pool, a);
    assert_eq!((seen.loaded_models, seen.max_active_models), (72, 80));
    assert_eq!(seen.active_models, u64::MAX);
}

#[test]
fn custom_metrics_go_to_their_places_and_stay_when_a_page_lacks_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a")]).unwrap();
    let a = slot(&pool, "a");
    let mut found = sample(WAITING);
    found.custom = vec![Some(1.5), Some(2.5), None];
    pool.apply((a, 0), &found, &[Some(3), None, Some(4)]).unwrap();
    pool.apply((a, 0), &sample(WAITING), &[Some(3), None, Some(4)]).unwrap();
    let scalars = row(&pool, a).scalars;
    assert_eq!(scalars[3], 1.5);
    assert_eq!(scalars.iter().filter(|value| value.is_finite()).count(), 1);
}

#[test]
fn custom_metrics_keep_their_places_and_a_new_one_gets_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a")]).unwrap();
    let a = slot(&pool, "a");
    pool.set_scalars(&[key("x"), key("y")]).unwrap();
    assert_eq!(pool.scalars(), [key("x"), key("y")]);
    extract(&mut pool, a, &[Some(0), Some(1)], |found| {
        found.scalar(0, 1.0);
        found.scalar(1, 2.0);
    });
    let generation = pool.topology_generation();
    pool.set_scalars(&[key("y"), key("x")]).unwrap();
    assert_eq!(pool.topology_generation(), generation, "nothing has changed");

    pool.set_scalars(&[key("z"), key("y")]).unwrap();
    assert_eq!(pool.scalars(), [key("z"), key("y")]);
    let scalars = row(&pool, a).scalars;
    assert!(scalars[0].is_nan(), "the number was that of another metric");
    assert_eq!(scalars[1], 2.0);
    pool.set_scalars(&[key("y")]).unwrap();
    assert_eq!(pool.scalars(), [ScalarKey::default(), key("y")]);

    drop(pool);
    let pool = open(&dir);
    assert_eq!(pool.scalars(), [ScalarKey::default(), key("y")], "as the topology says");
    assert_eq!(row(&pool, a).scalars[1], 2.0);
    assert_eq!(pool.members().next().unwrap().row.scalars[1], 2.0);
}

#[test]
fn extractions_write_what_is_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a"), member("b")]).unwrap();
    let (a, b) = (slot(&pool, "a"), slot(&pool, "b"));
    pool.apply((a, 0), &sample(WAITING), &[]).unwrap();
    let before = row(&pool, a);
    extract(&mut pool, a, &[], |found| {
        found.row.running = 7;
        found.row.scraped_at_ms = 1;
        found.row.served_models = 99;
        found.serves(vec!["base".into(), "lora".into()]);
    });
    let after = row(&pool, a);
    assert_eq!(after, MetricsRow { running: 7, served_models: 3, ..before });
    assert_eq!(pool.adapter_names(), ["base", "lora"]);

    extract(&mut pool, b, &[], |found| {
        found.row.kv_usage = 0.5;
        found.serves(vec!["lora".into()]);
        found.is_scrape();
    });
    let other = row(&pool, b);
    assert_eq!((other.served_models, other.scrapes, other.kv_usage), (2, 1, 0.5));
    assert!(other.scraped_at_ms > 0);
    extract(&mut pool, Slot { generation: a.generation + 1, ..a }, &[], |_| panic!("it is gone"));
    assert_eq!(pool.counters().late_scrapes, 1);
}

#[test]
fn adapters_do_not_take_the_bits_of_served_models() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a")]).unwrap();
    let a = slot(&pool, "a");
    extract(&mut pool, a, &[], |found| {
        found.serves((0..64).map(|n| format!("m{n}")).collect());
    });
    let lora = LoraSample { active: "new".into(), ..LoraSample::default() };
    let found = EngineSample { lora: Some(lora), ..sample(WAITING) };
    pool.apply((a, 0), &found, &[]).unwrap();
    let seen = row(&pool, a);
    assert_eq!((seen.served_models, seen.active_models, seen.loaded_models), (u64::MAX, 0, 1));
    assert_eq!(pool.counters().adapters_left_out, 1);
}

#[test]
fn a_failure_is_over_when_its_own_source_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = open(&dir);
    pool.set_members(vec![member("a")]).unwrap();
    let a = slot(&pool, "a");
    pool.note_failure((a, 1), "refused".into());
    pool.apply((a, 0), &sample(WAITING), &[]).unwrap();
    assert_eq!(pool.members().next().unwrap().error(), Some("refused"));
    extract(&mut pool, a, &[], |_| {});
    assert_eq!(pool.members().next().unwrap().error(), None);
}
