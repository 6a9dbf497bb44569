//! A segment that is forged, damaged, too big for its volume, or left by a control plane that was
//! killed at any moment.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use inlane_cli::lab::process::tail;
use inlane_cli::lab::{Client, Lab, Plan};
use inlane_integration::scenario::{Scenario, config, load};
use load::Kind;

const LIMIT: Duration = Duration::from_secs(10);

fn plan() -> Plan {
    Plan {
        pods: 2,
        config: config::by_active_requests(),
        pod_args: ["--max-num-seqs", "64"].map(String::from).into(),
        ..Plan::default()
    }
}

/// Pods that run, and nothing else yet.
fn pods_only() -> Scenario {
    let mut lab = Lab::prepare(plan()).unwrap();
    lab.add_pod().unwrap();
    lab.add_pod().unwrap();
    lab.write_endpoints().unwrap();
    Scenario::of(lab)
}

fn make_dir(lab: &Lab, mode: u32) {
    fs::create_dir(&lab.segment_dir).unwrap();
    fs::set_permissions(&lab.segment_dir, fs::Permissions::from_mode(mode)).unwrap();
}

/// Writes a file that only its owner may write.
fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn assert_serves(lab: &Lab) {
    let answer = lab.client().complete("any", "hi", 1).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The one data file of the segment.
fn data_file(lab: &Lab) -> PathBuf {
    let files = fs::read_dir(&lab.segment_dir).unwrap().flatten().map(|entry| entry.path());
    let mut data = files.filter(|path| path.extension().is_some_and(|e| e == "seg"));
    let found = data.next().unwrap();
    assert_eq!(data.next(), None);
    found
}

fn wait_for_refusal(lab: &Lab, file: &Path, field: &str) {
    let line = format!("{} is refused: {field} is ", file.display());
    lab.wait_until(&line, LIMIT, || tail(&lab.log("envoy"), 1_000).contains(&line)).unwrap();
}

/// Starts Envoy, which has to refuse the segment because of that field of that file, and to live on.
fn assert_refused(lab: &mut Lab, file: &Path, field: &str) {
    lab.start_envoy().unwrap();
    wait_for_refusal(lab, file, field);
    let answer = lab.client().complete("refused", "hi", 1).unwrap();
    let reason = answer.header("x-llm-d-request-dropped-reason");
    assert_eq!((answer.status, reason), (503, "rejected-no-snapshot"), "{field}");
    assert_eq!(lab.admin().get("/healthz").unwrap().text(), "no-snapshot\n");
}

fn assert_recovers(mut lab: Scenario) {
    lab.start_control().unwrap();
    lab.wait_ready(Duration::from_secs(20)).unwrap();
    assert_serves(&lab);
    lab.end();
}

#[test]
fn a_head_that_is_none_is_refused_and_replaced() {
    let garbage: Vec<u8> = (0..4096u32).map(|n| (n * 7 + 13) as u8).collect();
    for (bytes, field) in [
        (&garbage[..], "magic"),
        (&[0; 4096], "magic"),
        (&garbage[..2048], "length in words"),
        (&garbage[..100], "length"),
        (&[], "length in words"),
    ] {
        let mut lab = pods_only();
        make_dir(&lab, 0o700);
        let head = lab.segment_dir.join("head");
        write(&head, bytes);
        assert_refused(&mut lab, &head, field);
        assert_recovers(lab);
    }
}

#[test]
fn a_damaged_data_file_is_refused_and_replaced() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(Damage, &str); 5] = [
        (|bytes| bytes[..8].fill(0xff), "magic"),
        (|bytes| bytes[8] ^= 2, "layout version"),
        (|bytes| bytes[4 * 8] ^= 1, "header checksum"),
        (|bytes| bytes.truncate(bytes.len() / 2), "length in words"),
        (|bytes| bytes.truncate(0), "length in words"),
    ];
    for (damage, field) in damages {
        let mut lab = pods_only();
        lab.start_control().unwrap();
        lab.control.take().unwrap().kill();
        let data = data_file(&lab);
        let mut bytes = fs::read(&data).unwrap();
        damage(&mut bytes);
        fs::remove_file(&data).unwrap();
        write(&data, &bytes);
        assert_refused(&mut lab, &data, field);
        assert_recovers(lab);
    }
}

#[test]
fn a_directory_that_others_may_enter_is_refused_until_it_is_closed() {
    let mut lab = pods_only();
    make_dir(&lab, 0o777);
    let dir = lab.segment_dir.clone();
    assert_refused(&mut lab, &dir, "mode");
    // The control plane does not write there either.
    let error = lab.start_control().unwrap_err().to_string();
    assert!(error.contains("mode is 0777, expected 0700"), "{error}");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert_recovers(lab);
}

#[test]
fn a_directory_or_file_of_another_owner_is_refused() {
    let mut lab = pods_only();
    make_dir(&lab, 0o700);
    let dir = lab.segment_dir.clone();
    if let Err(error) = chown(&dir, Some(4_242), None) {
        println!("skipped: only root can give a directory away ({error})");
        drop(lab.into_lab());
        return;
    }
    assert_refused(&mut lab, &dir, "owner");
    chown(&dir, Some(0), None).unwrap();
    let head = dir.join("head");
    write(&head, &[0; 4096]);
    chown(&head, Some(4_242), None).unwrap();
    wait_for_refusal(&lab, &head, "owner");
    assert_eq!(lab.admin().get("/healthz").unwrap().status, 503);
    fs::remove_file(&head).unwrap();
    assert_recovers(lab);
}

#[test]
fn a_head_forged_under_a_living_envoy_changes_nothing() {
    let mut lab = Scenario::start(plan());
    lab.control.take().unwrap().kill();
    let (head, forged) = (lab.segment_dir.join("head"), lab.segment_dir.join("forged"));
    write(&forged, &[0x5a; 4096]);
    fs::rename(&forged, &head).unwrap();
    wait_for_refusal(&lab, &head, "magic");
    // The old snapshot goes on being used, until there is another one.
    assert_serves(&lab);
    let topology = |lab: &Lab| lab.pool().unwrap()["topology_generation"].clone();
    let before = topology(&lab);
    lab.start_control().unwrap();
    lab.wait_until("the new topology", LIMIT, || topology(&lab) != before).unwrap();
    lab.wait_ready(LIMIT).unwrap();
    assert_serves(&lab);
    lab.end();
}

/// A small volume of its own; unmounted when it is dropped.
struct Volume(PathBuf);

impl Volume {
    /// `None`, with the reason printed, where this user may not mount.
    fn mount(megabytes: u32) -> Option<Self> {
        let name = format!("inlane-volume-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let options = format!("size={megabytes}m,mode=0700");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "inlane-test"])
            .arg(&dir)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(dir)),
            failed => {
                println!("skipped: no volume can be mounted here ({failed:?})");
                fs::remove_dir(&dir).unwrap();
                None
            }
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_volume_fails_the_writer_and_no_reader() {
    // Outlives the lab.
    let Some(volume) = Volume::mount(40) else { return };
    let mut lab = Lab::prepare(plan()).unwrap();
    lab.segment_dir = volume.0.clone();
    for _ in 0..2 {
        lab.add_pod().unwrap();
    }
    lab.write_endpoints().unwrap();
    lab.start_control().unwrap();
    lab.start_envoy().unwrap();
    lab.wait_ready(Duration::from_secs(20)).unwrap();
    let mut lab = Scenario::of(lab);
    let segment = data_file(&lab);

    // All that is left of the volume is taken by something else, and the next control plane needs
    // a larger data file.
    let filler = vec![0; 64 << 10];
    let mut taken = fs::File::create(volume.0.join("taken")).unwrap();
    while std::io::Write::write_all(&mut taken, &filler).is_ok() {}
    lab.plan.control_args = ["--max-endpoints", "16384"].map(String::from).into();
    let (outcome, ()) = load::during(&mut lab, 4, Duration::from_secs(2), Kind::Mixed, |lab| {
        lab.control.take().unwrap().kill();
        let mut control = lab.spawn_control().unwrap();
        assert!(
            !control.wait_for_end(LIMIT).unwrap(),
            "the control plane ended as if all were well"
        );
        let log = tail(&lab.log("control"), 5);
        assert!(log.contains(" bytes, its volume has "), "{log}");
    });
    outcome.assert_all_served();
    assert_eq!(data_file(&lab), segment, "the old data file has not stayed");

    // With room again it goes on, with the larger file.
    drop(taken);
    fs::remove_file(volume.0.join("taken")).unwrap();
    lab.start_control().unwrap();
    lab.wait_until("the new data file", LIMIT, || data_file(&lab) != segment).unwrap();
    lab.wait_ready(Duration::from_secs(20)).unwrap();
    assert_serves(&lab);
    lab.end();
    drop(volume);
}

#[test]
fn a_control_plane_killed_at_any_moment_of_its_start_is_not_noticed() {
    let mut lab = Scenario::start(Plan {
        pod_args: ["--inter-token-latency", "3ms", "--max-num-seqs", "64"].map(String::from).into(),
        ..plan()
    });
    let slots = |lab: &Lab| {
        let pool = lab.pool().unwrap();
        let endpoints = pool["endpoints"].as_array().unwrap().iter();
        let slot = |e: &serde_json::Value| (e["slot"].clone(), e["slot_generation"].clone());
        endpoints.map(slot).collect::<Vec<_>>()
    };
    let before = slots(&lab);
    let (outcome, ()) = load::during(&mut lab, 6, Duration::from_secs(3), Kind::Mixed, |lab| {
        lab.control.take().unwrap().kill();
        // Moments from 0 to 100 ms after the start, in no order.
        for n in 0..20 {
            let control = lab.spawn_control().unwrap();
            std::thread::sleep(Duration::from_millis(n * 61 % 101));
            control.kill();
        }
        lab.start_control().unwrap();
    });
    outcome.assert_all_served();
    assert_eq!(slots(&lab), before, "slots were assigned anew");
    let scrapes = |lab: &Lab| {
        let control = Client::new(lab.control_port).get("/readyz").unwrap();
        assert_eq!(control.status, 200);
        lab.pool().unwrap()["endpoints"][0]["scrapes"].as_u64().unwrap()
    };
    let now = scrapes(&lab);
    lab.wait_until("the last one's scrapes", LIMIT, || scrapes(&lab) > now).unwrap();
    lab.end();
}
