//! The module and the control plane of this crate at work in a real Envoy.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use inlane_cli::lab::{Binaries, Bootstrap, Lab, Plan, paths};
use inlane_core::request::{Prompt, Request};
use inlane_plugins::precise::keying::Keying;
use inlane_plugins::precise::parameters::HashAlgorithm;

const LIMIT: Duration = Duration::from_secs(20);

/// A directory in which the programs of this crate stand under the names of the shipped ones.
fn programs(test_name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let beside = test.parent().unwrap();
    let dir = env::temp_dir().join(format!("own-plugin-{test_name}-{}", std::process::id()));
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

/// A prompt that is cached, block by block, on a pod that nothing else speaks for.
#[test]
fn own_cache_events_draw_prompts_to_the_pod_that_holds_them() {
    let programs = programs("cache");
    let events = programs.join("events");
    let config = format!(
        "{}- type: cache-log-producer\n  parameters: {{events: {}}}\n- type: prefix-cache-scorer\n  \
         parameters: {{prefixMatchInfoProducerName: cache-log-producer}}\n\
         schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: prefix-cache-scorer\n",
        include_str!("../scheduler.yaml").split("- type: metrics-data-source").next().unwrap(),
        events.display(),
    );
    let discovery = "dataLayer:\n  discovery: {pluginRef: file-discovery}\n";
    // However busy the machine is, it is looked up who holds what.
    let bootstrap = Bootstrap { settings: "decisionBudget: 10s".into(), ..Bootstrap::default() };
    let plan = Plan { config: config + discovery, bootstrap, ..Plan::default() };
    let binaries = Binaries::of(&programs, &plan.envoy).unwrap();
    let mut lab = Lab::prepare_with(plan, binaries).unwrap();
    for _ in 0..4 {
        lab.add_pod().unwrap();
    }
    lab.begin().unwrap();
    let tokens: Vec<u32> = (1_000..1_064).collect();
    let body = format!(r#"{{"model":"random","prompt":{tokens:?},"max_tokens":1}}"#);
    let mut n = 0;
    let mut send = |lab: &Lab| {
        n += 1;
        let id = format!("cached-{n}");
        let headers = [("content-type", "application/json"), ("x-request-id", id.as_str())];
        let answer = lab.client().post("/v1/completions", &headers, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.pod().to_owned()
    };
    // The first request starts the thread that follows the file.
    send(&lab);
    let keying = Keying::new(HashAlgorithm::CborFnv, "", NonZeroU32::new(16).unwrap());
    let (prompts, mut keys) = ([Prompt::Tokens(&tokens)], Vec::new());
    let request = Request { target_model: "random", prompts: &prompts, ..Request::default() };
    keying.keys(&request, 0, &mut keys);
    assert_eq!(keys.len(), 4);
    for pod in [2, 1] {
        let name = lab.pods[pod].name.clone();
        let lines: String =
            keys.iter().map(|key| format!("stored default/{name} {key:x}\n")).collect();
        fs::write(&events, format!("cleared default/{}\n{lines}", lab.pods[2].name)).unwrap();
        let all_there = || (0..8).all(|_| send(&lab) == name);
        lab.wait_until("all prompts to go to the holder", LIMIT, all_there).unwrap();
        if pod == 2 {
            // A shorter file is another one, and begins with the same word: nobody holds anything.
            fs::write(&events, format!("cleared default/{name}\n")).unwrap();
            lab.wait_until("a prompt to go elsewhere", LIMIT, || send(&lab) != name).unwrap();
        }
    }
    drop(lab);
    fs::remove_dir_all(programs).unwrap();
}

#[test]
fn own_plugins_filter_scrape_score_and_count_in_a_real_envoy() {
    let programs = programs("served");
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
