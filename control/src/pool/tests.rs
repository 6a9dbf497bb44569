//! The pool over a real segment.

use tempfile::TempDir;

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
    pool.apply(a, &sample(WAITING)).unwrap();
    pool.apply(a, &sample(RUNNING)).unwrap();
    let seen = row(&pool, a);
    assert_eq!((seen.waiting, seen.running, seen.scrapes), (3, 4, 2));
    pool.note_failure(a, "gone".into());
    assert_eq!(pool.members().next().unwrap().error.as_deref(), Some("gone"));
    pool.apply(a, &sample("<html>")).unwrap();
    assert_eq!(row(&pool, a), seen, "a useless page is no scrape");
    assert_eq!(pool.members().next().unwrap().error, None);
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
    pool.apply(a, &sample(WAITING)).unwrap();
    pool.note_failure(a, "late".into());
    assert_eq!(row(&pool, b), MetricsRow::default());
    assert_eq!(pool.counters().late_scrapes, 1);
    assert_eq!(pool.members().next().unwrap().error, None);
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
