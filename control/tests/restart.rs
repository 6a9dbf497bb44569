//! Death and return of the control plane, and the reuse of slots.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod common;

use common::{ModelServer, Scene, eventually, vllm_page};
use inlane_segment::{Ledger, SlotGeneration};

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

fn entry(name: &str) -> String {
    format!("- {{name: {name}, address: \"127.0.0.1\", port: \"1\"}}\n")
}

#[test]
fn a_successor_goes_on_with_what_it_finds() {
    let scene = Scene::new();
    let server = ModelServer::start(&vllm_page(6, 1, 0.5));
    scene.endpoints(&[entry("a"), server.entry("b"), entry("c")]);
    let control = scene.start(&[]);
    let mut reader = scene.reader();
    reader.wait_for_names(&["a", "b", "c"]);
    let before: Vec<_> = reader.topology().unwrap().1.endpoints;
    let slot = before[1].slot;
    eventually("a scrape", || (reader.row(slot).scrapes > 0).then_some(()));
    let generations = (reader.topology().unwrap().0, reader.config().unwrap().0);
    control.kill();

    // The proxy still reads the last word, and then follows the successor.
    assert_eq!(reader.row(slot).waiting, 6);
    let scrapes = reader.row(slot).scrapes;
    let control = scene.start(&[]);
    assert_eq!(reader.topology().unwrap().1.endpoints, before, "same slots, same generations");
    assert_eq!((reader.topology().unwrap().0, reader.config().unwrap().0), generations);
    eventually("a scrape", || (reader.row(slot).scrapes > scrapes).then_some(()));
    assert!(reader.row(slot).scrapes > scrapes, "counting goes on");
    assert!(control.stop().success());

    // What changed in between is taken in at the next start.
    scene.endpoints(&[entry("a"), entry("d")]);
    let _control = scene.start(&[]);
    reader.wait_for_names(&["a", "d"]);
    assert!(reader.topology().unwrap().0 > generations.0);
    assert_eq!(reader.endpoint("a").unwrap(), before[0]);
}

#[test]
fn a_slot_is_reused_only_when_no_claim_is_left() {
    let scene = Scene::new();
    scene.endpoints(&[entry("a"), entry("b")]);
    let control = scene.start(&[]);
    let mut reader = scene.reader();
    reader.wait_for_names(&["a", "b"]);
    let a = reader.endpoint("a").unwrap();
    let generation = SlotGeneration::new(a.slot_generation as u16).unwrap();
    let proxy = Ledger::create(scene.segment(), 64).unwrap();
    proxy.accept_topology(reader.topology().unwrap().0);
    proxy.adopt(a.slot, generation).unwrap();
    let claim = proxy.claim_any(a.slot, generation, 10).unwrap();
    let claimed = || control.json("/debug/endpoints")["endpoints"][0]["claimed_requests"].as_u64();
    eventually("the claim", || (claimed()? == 1).then_some(()));

    scene.endpoints(&[entry("b")]);
    reader.wait_for_names(&["b"]);
    let retired = "inlane_control_retired_slots";
    eventually("retirement", || (control.metric(retired)? == 1.0).then_some(()));
    scene.endpoints(&[entry("b"), entry("x")]);
    reader.wait_for_names(&["b", "x"]);
    assert_ne!(reader.endpoint("x").unwrap().slot, a.slot, "the proxy has a claim on it");

    // The same after a restart, which knows of the claim from the ledger alone.
    control.kill();
    let control = scene.start(&[]);
    scene.endpoints(&[entry("b"), entry("x"), entry("y")]);
    reader.wait_for_names(&["b", "x", "y"]);
    assert_ne!(reader.endpoint("y").unwrap().slot, a.slot);

    assert!(proxy.release(claim));
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert_eq!(control.metric(retired), Some(1.0), "the proxy still works with an older topology");
    proxy.accept_topology(reader.topology().unwrap().0);
    eventually("release", || (control.metric(retired)? == 0.0).then_some(()));
    scene.endpoints(&[entry("b"), entry("x"), entry("y"), entry("z")]);
    reader.wait_for_names(&["b", "x", "y", "z"]);
    let z = reader.endpoint("z").unwrap();
    assert_eq!((z.slot, z.slot_generation), (a.slot, a.slot_generation + 1));
}

#[test]
fn another_address_is_another_tenant() {
    let scene = Scene::new();
    let (old, new) =
        (ModelServer::start(&vllm_page(5, 5, 0.5)), ModelServer::start(&vllm_page(1, 1, 0.1)));
    scene.endpoints(&[old.entry("a")]);
    let _control = scene.start(&[]);
    let mut reader = scene.reader();
    reader.wait_for_names(&["a"]);
    let first = reader.endpoint("a").unwrap();
    eventually("numbers", || (reader.row(first.slot).waiting == 5).then_some(()));
    scene.endpoints(&[new.entry("a")]);
    let second = eventually("the new address", || {
        reader.endpoint("a").filter(|e| e.port == new.address.port())
    });
    assert_ne!((second.slot, second.slot_generation), (first.slot, first.slot_generation));
    eventually("its numbers", || (reader.row(second.slot).waiting == 1).then_some(()));
}

#[test]
fn a_bad_configuration_does_not_stop_a_restart() {
    let scene = Scene::new();
    scene.endpoints(&[entry("a")]);
    let good = format!("{HEAD}plugins: [{{type: random-picker}}]\n");
    let config = scene.write("config.yaml", &good);
    let args = ["--config-file", config.to_str().unwrap()];
    scene.start(&args).kill();
    scene.write("config.yaml", "nonsense");
    let control = scene.start(&args);
    let mut reader = scene.reader();
    assert_eq!(reader.config().unwrap().1.text, good);
    assert!(control.json("/readyz")["config"]["error"].is_string());
    scene.write("config.yaml", &format!("{good}# repaired\n"));
    eventually("repair", || reader.config().filter(|c| c.1.text.ends_with("# repaired\n")));
}

#[test]
fn the_segment_grows_with_the_pool() {
    let scene = Scene::new();
    scene.endpoints(&[entry("a")]);
    let control = scene.start(&["--max-endpoints", "4"]);
    let mut reader = scene.reader();
    reader.wait_for_names(&["a"]);
    let first = reader.endpoint("a").unwrap();
    let names: Vec<String> = (0..40).map(|n| format!("p{n:02}")).collect();
    let mut entries = vec![entry("a")];
    entries.extend(names.iter().map(|name| entry(name)));
    scene.endpoints(&entries);
    eventually("all of them", || (reader.names().len() == 41).then_some(()));
    assert_eq!(reader.endpoint("a").unwrap(), first);
    let mut slots: Vec<u32> =
        reader.topology().unwrap().1.endpoints.iter().map(|e| e.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), 41);
    assert!(control.logged("segment grew").is_some());
}
