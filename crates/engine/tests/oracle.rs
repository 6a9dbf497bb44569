//! The scanner against a literal reader that builds the whole page, on generated pages.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_engine::{EngineSample, EngineTable, Field, Plan, Scanner, scan};
use proptest::prelude::*;

fn plan(engine: &str) -> Arc<Plan> {
    Arc::clone(EngineTable::default().get(engine).unwrap())
}

/// A sample line as the page means it.
#[derive(Debug, Clone)]
struct Series {
    labels: BTreeMap<String, String>,
    value: f64,
    timestamp: Option<i64>,
}

/// A family as the page means it.
#[derive(Debug, Clone)]
struct Family {
    name: &'static str,
    kind: Option<&'static str>,
    series: Vec<Series>,
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn print(families: &[Family]) -> String {
    let mut page = String::new();
    for family in families {
        page += &format!("# HELP {} Some \\n help {{x=\"y\"}} 3\n", family.name);
        if let Some(kind) = family.kind {
            page += &format!("# TYPE {} {kind}\n", family.name);
        }
        for series in &family.series {
            page += family.name;
            if !series.labels.is_empty() {
                let labels: Vec<_> =
                    series.labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escape(v))).collect();
                page += &format!("{{{}}}", labels.join(","));
            }
            page += &format!(" {}", series.value);
            if let Some(timestamp) = series.timestamp {
                page += &format!(" {timestamp}");
            }
            page.push('\n');
        }
    }
    page
}

/// The selection rules, word by word, over the page's meaning.
fn expected(plan: &Plan, families: &[Family]) -> EngineSample {
    let mut out = EngineSample { custom: vec![], ..EngineSample::default() };
    for (field, spec) in plan.engine().specs() {
        let family = families.iter().find(|f| f.name == spec.name());
        let matching: Vec<(f64, &Series)> = family
            .iter()
            .flat_map(|f| f.series.iter().map(move |s| (f, s)))
            .filter(|(_, s)| spec.labels().iter().all(|(k, v)| s.labels.get(k) == Some(v)))
            .map(|(f, s)| match f.kind {
                Some("gauge" | "counter") => (s.value, s),
                _ => (0.0, s),
            })
            .collect();
        let mut best: Option<(f64, &Series)> = None;
        for &(value, series) in &matching {
            let replaces = match best {
                None => true,
                Some((v, _)) if field == Field::Lora => value > v,
                Some((_, s)) => series.timestamp.unwrap_or(0) > s.timestamp.unwrap_or(0),
            };
            if replaces {
                best = Some((value, series));
            }
        }
        let Some((value, series)) = best else {
            if field != Field::Lora {
                out.missing.insert(field);
            }
            continue;
        };
        let label = |name: &str| series.labels.get(name).cloned().unwrap_or_default();
        let mut ok = true;
        match field {
            Field::Waiting => out.waiting = Some(value.clamp(0.0, 4_294_967_295.0) as u32),
            Field::Running => out.running = Some(value.clamp(0.0, 4_294_967_295.0) as u32),
            Field::KvUsage => out.kv_usage = Some(value),
            Field::Lora => {
                out.lora = Some(inlane_engine::LoraSample {
                    max_adapters: label("max_lora").parse().ok(),
                    active: label("running_lora_adapters"),
                    waiting: label("waiting_lora_adapters"),
                });
            }
            Field::CacheInfo => {
                let size = label("block_size");
                let blocks = label("num_gpu_blocks");
                ok = (size.is_empty() || size.parse::<u32>().is_ok())
                    && (blocks.is_empty() || blocks.parse::<u32>().is_ok());
                out.cache_block_size = Some(size.parse().unwrap_or(0));
                out.cache_num_blocks = blocks.parse().ok();
            }
            other => panic!("not generated: {other:?}"),
        }
        if ok { out.found.insert(field) } else { out.missing.insert(field) }
    }
    out
}

fn series() -> impl Strategy<Value = Series> {
    let key = prop::sample::select(vec![
        "engine",
        "model_name",
        "block_size",
        "num_gpu_blocks",
        "max_lora",
        "running_lora_adapters",
        "waiting_lora_adapters",
    ]);
    let value = prop_oneof![
        "[0-9]{1,5}",
        "[a-c ,]{0,8}",
        r#"[a\\"{}=,\n #]{0,8}"#,
        Just("None".to_owned()),
    ];
    let number = prop_oneof![
        (0_u32..50).prop_map(f64::from),
        -1e3..1e3_f64,
        (0_u64..1 << 40).prop_map(|n| n as f64),
    ];
    let labels = prop::collection::btree_map(key.prop_map(str::to_owned), value, 0..5);
    (labels, number, prop::option::of(0_i64..4)).prop_map(|(labels, value, timestamp)| Series {
        labels,
        value,
        timestamp,
    })
}

fn families() -> impl Strategy<Value = Vec<Family>> {
    let names = prop::sample::subsequence(
        vec![
            "vllm:num_requests_waiting",
            "vllm:num_requests_waiting_by_reason",
            "vllm:num_requests_running",
            "vllm:kv_cache_usage_perc",
            "vllm:lora_requests_info",
            "vllm:cache_config_info",
            "vllm:num",
            "process_cpu_seconds_total",
        ],
        0..=8,
    )
    .prop_shuffle();
    let kind = || {
        prop::option::of(prop::sample::select(vec![
            "gauge",
            "gauge",
            "counter",
            "untyped",
            "histogram",
        ]))
    };
    names.prop_flat_map(move |names| {
        names
            .into_iter()
            .map(|name| {
                (kind(), prop::collection::vec(series(), 0..4))
                    .prop_map(move |(kind, series)| Family { name, kind, series })
            })
            .collect::<Vec<_>>()
    })
}

proptest! {
    #[test]
    fn generated_pages_read_as_the_rules_say(families in families(), cut in 1_usize..200) {
        let plan = plan("vllm");
        let page = print(&families);
        let expected = expected(&plan, &families);
        prop_assert_eq!(&scan(&plan, page.as_bytes()), &expected, "{}", page);
        let mut scanner = Scanner::new(plan);
        page.as_bytes().chunks(cut).for_each(|piece| scanner.feed(piece));
        prop_assert_eq!(scanner.finish(), &expected, "cut at {}", cut);
    }

    #[test]
    fn any_bytes_are_survived_and_cuts_do_not_matter(
        pieces in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            r#"(vllm:num_requests_waiting|vllm:lora_requests_info|# TYPE )?[ {}="\\,a-c0-9\n.+-]{0,30}"#
                .prop_map(String::into_bytes),
        ], 0..30),
        cut in 1_usize..60,
    ) {
        let page = pieces.concat();
        for engine in ["vllm", "triton-tensorrt-llm", "triton"] {
            let whole = scan(&plan(engine), &page);
            let mut scanner = Scanner::new(plan(engine));
            page.chunks(cut).for_each(|piece| scanner.feed(piece));
            prop_assert_eq!(scanner.finish(), &whole);
        }
    }

    #[test]
    fn damage_to_a_real_page_is_survived(at in 0_usize..74_000, byte in any::<u8>(), len in 1_usize..200) {
        let mut page = include_bytes!("../fixtures/vllm-0.32.0-sha256_cbor-20-during-load.txt").to_vec();
        let end = (at + len).min(page.len());
        page[at..end].fill(byte);
        let sample = scan(&plan("vllm"), &page);
        // At most the damaged lines are lost: the fields lie far apart.
        prop_assert!(sample.found.len() >= 2, "{:?}", sample);
    }
}
