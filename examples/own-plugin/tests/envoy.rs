//! The module and the control plane of this crate at work in a real Envoy.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use inlane_cli::lab::{Binaries, Lab, Plan, paths};

/// A directory in which the programs of this crate stand under the names of the shipped ones.
fn programs() -> PathBuf {
    let test = env::current_exe().unwrap();
    let beside = test.parent().unwrap();
    let dir = env::temp_dir().join(format!("own-plugin-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let shipped = paths::root().join("target/release");
    for (name, program) in [
        ("libinlane.so", beside.join("libown_plugin.so")),
        ("inlane-control", PathBuf::from(env!("CARGO_BIN_EXE_own-control"))),
        ("inlane-sim", shipped.join("inlane-sim")),
    ] {
        assert!(program.is_file(), "{} is not built", program.display());
        symlink(program, dir.join(name)).unwrap();
    }
    dir
}

#[test]
fn own_plugins_filter_scrape_score_and_count_in_a_real_envoy() {
    let programs = programs();
    let config = include_str!("../scheduler.yaml").to_owned();
    let plan = Plan { config, ..Plan::default() };
    let binaries = Binaries::of(&programs, &plan.envoy).unwrap();
    let mut lab = Lab::prepare_with(plan, binaries).unwrap();
    for _ in 0..3 {
        lab.add_pod().unwrap();
    }
    let label = ("example.com/maintenance".to_owned(), "true".to_owned());
    lab.pods[1].labels.insert(label.0, label.1);
    let closed = lab.pods[1].name.clone();
    lab.begin().unwrap();

    let mut served: BTreeMap<String, u32> = BTreeMap::new();
    for n in 0..12 {
        let answer = lab.client().complete(&format!("own-{n}"), "hello", 2).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        *served.entry(answer.pod().to_owned()).or_default() += 1;
        // The score follows the scraped number, so let it be scraped.
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(!served.contains_key(&closed), "{served:?}");
    assert_eq!(served.values().copied().collect::<Vec<_>>(), [6, 6], "{served:?}");
    let page = lab.admin().get("/metrics").unwrap().text();
    assert!(
        page.contains("own_plugin_picks_total{plugin_name=\"least-served-scorer\"} 12"),
        "{page}"
    );
    let decisions = lab.admin().get("/debug/decisions?limit=1").unwrap().text();
    assert!(decisions.contains("in maintenance"), "{decisions}");
    drop(lab);
    fs::remove_dir_all(programs).unwrap();
}
