use std::num::NonZeroU32;

use clap::Parser;
use inlane_core::snapshot::{IndexDocument, Topology, TopologyEndpoint};
use inlane_kv::extras::Extras;
use inlane_kv::keys::{Algorithm, Hasher};
use inlane_segment::table::{MirrorSpec, MirrorWriter};
use inlane_segment::{Document, Shape, Writer};
use serde_json::Value;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// Two pods with 3 and 2 blocks of the tokens 0.. of model `m`; the second has its last one in memory
/// of the host.
fn segment(dir: &Path) -> Vec<u64> {
    let spec = MirrorSpec { slots: 16, blocks: 100, pages: 4 };
    let table_words = spec.words().unwrap() as u64;
    let shape = Shape { slots: 16, table_words, ..Shape::default() };
    let (mut writer, _) = Writer::open_or_create(dir, shape).unwrap();
    let document = IndexDocument {
        block_tokens: 4,
        algorithm: "xxh64".into(),
        seed: "s".into(),
        tiers: vec!["gpu".into(), "cpu".into()],
    };
    writer.publish_document(Document::Index, &serde_json::to_vec(&document).unwrap()).unwrap();
    let endpoint = |name: &str, slot| TopologyEndpoint {
        namespace: "ns".into(),
        name: name.into(),
        pod_name: name.into(),
        address: "10.0.0.1".into(),
        port: 1,
        rank: 0,
        labels: Default::default(),
        slot,
        slot_generation: 1,
    };
    let endpoints = vec![endpoint("a", 3), endpoint("b", 5)];
    let topology = Topology { endpoints, ..Topology::default() };
    writer.publish_document(Document::Topology, &serde_json::to_vec(&topology).unwrap()).unwrap();
    let hasher = Hasher::new(Algorithm::Xxh64, "s", NonZeroU32::new(4).unwrap());
    let tokens: Vec<u32> = (0..12).collect();
    let mut keys = Vec::new();
    hasher.extend(hasher.start("m"), &tokens, &Extras::NONE, &mut keys);
    let mut mirror = MirrorWriter::create(writer.table(), &spec, 1).unwrap();
    assert_eq!(mirror.hold(3, 0, &[1, 2, 3], &keys), 0);
    assert_eq!(mirror.hold(5, 0, &[1], &keys[..1]), 0);
    assert_eq!(mirror.hold(5, 1, &[2], &keys[1..2]), 0);
    keys
}

fn ask(dir: &Path, args: &[&str]) -> Result<Value, String> {
    let mut line = vec!["index", "--json", "--segment-dir", dir.to_str().unwrap()];
    line.extend(args);
    let args = Line::try_parse_from(line).map_err(|e| e.to_string())?.args;
    Ok(serde_json::from_str(&page(&args)?).unwrap())
}

#[test]
fn the_summary_says_who_holds_how_much() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("segment");
    segment(&dir);
    let found = ask(&dir, &[]).unwrap();
    assert_eq!(found["parameters"]["blockTokens"], 4);
    assert_eq!(found["tiers"], json!([{"tier": "gpu", "held": 4}, {"tier": "cpu", "held": 1}]));
    let endpoints = json!([{"endpoint": "ns/a", "held": 3}, {"endpoint": "ns/b", "held": 2}]);
    assert_eq!(found["endpoints"], endpoints);
}

#[test]
fn a_dump_lists_the_blocks_of_an_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("segment");
    let keys = segment(&dir);
    let found = ask(&dir, &["dump", "ns/b"]).unwrap();
    let block = |key, tier| json!({"key": hex(key), "tier": tier});
    assert_eq!(found["blocks"], json!([block(keys[0], "gpu"), block(keys[1], "cpu")]));
    assert_eq!(ask(&dir, &["dump", "ns/a", "--limit", "1"]).unwrap()["held"], 3);
    assert!(ask(&dir, &["dump", "ns/x"]).unwrap_err().contains("ns/x"));
}

#[test]
fn holders_of_a_prompt_are_found_by_tokens_and_by_keys() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.json");
    std::fs::write(&tokens, "[0,1,2,3,4,5,6,7,8,9,10,11,12,13]").unwrap();
    let dir = dir.path().join("segment");
    let keys = segment(&dir);
    let tokens = tokens.to_str().unwrap();
    let found = ask(&dir, &["holders", "--tokens", tokens, "--model", "m"]).unwrap();
    assert_eq!(found["blocks"], 3);
    let prefix = |endpoint, blocks| json!({"endpoint": endpoint, "tier": "gpu", "blocks": blocks});
    assert_eq!(found["prefixes"], json!([prefix("ns/a", 3), prefix("ns/b", 1)]));
    let counts: Vec<_> = found["runs"].as_array().unwrap().iter().map(|r| &r["blocks"]).collect();
    assert_eq!(counts, [1, 1, 1]);
    let list = keys.iter().map(|key| hex(*key)).collect::<Vec<_>>().join(",");
    assert_eq!(ask(&dir, &["holders", "--keys", &list]).unwrap(), found);
    let other = ask(&dir, &["holders", "--tokens", tokens, "--model", "n"]).unwrap();
    assert_eq!(other["prefixes"], json!([]));
    assert!(ask(&dir, &["holders", "--keys", "x"]).is_err());
}

#[test]
fn without_an_index_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    assert!(ask(&path, &[]).is_err());
    drop(Writer::open_or_create(&path, Shape::default()).unwrap());
    assert!(ask(&path, &[]).unwrap_err().contains("has no index"));
    let error = ask(&path, &["reset", "--control", "http://127.0.0.1:1"]).unwrap_err();
    assert!(error.contains("127.0.0.1:1"), "{error}");
}

#[test]
fn pages_for_people_have_a_line_per_row() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("segment");
    segment(&dir);
    let page = text(&summary(&Contents::open(&dir).unwrap()), Paint::plain());
    assert!(page.contains("  endpoint ns/a  held 3\n"), "{page}");
}
