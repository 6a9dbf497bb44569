use inlane_core::columns::{EncoderMatch, InFlight, LatencyInfo, PrefixMatch};
use inlane_core::config::Profile;
use inlane_core::effect::{Effect, Kept};
use inlane_core::plugin::Responding;
use inlane_core::request::{Prompt, Request};
use inlane_latency::{Available, Options, Row, Sample, Target, Trainer};

use super::*;
use crate::testing::{Built, Idle, World};

const NAME: &str = "predicted-latency-producer";
const IDS: [u32; 100] = [7; 100];
const SLO: [(&str, &str); 2] = [("x-llm-d-slo-ttft-ms", "200"), ("x-slo-tpot-ms", "8")];

/// Says the same of every endpoint but for its position.
struct Fixed {
    first_ms: f64,
    per_token_ms: f64,
    available: Available,
}

impl Predictor for Fixed {
    fn predict(
        &self,
        question: &Question<'_>,
        _work: &mut Workspace,
        out: &mut [Forecast],
    ) -> Result<Available, PluginError> {
        assert_eq!(question.rows.len(), out.len());
        for (at, out) in out.iter_mut().enumerate() {
            let first_ms = self.first_ms + at as f64;
            *out = Forecast { first_ms, per_token_ms: self.per_token_ms };
        }
        Ok(self.available)
    }
}

struct Failing;

impl Predictor for Failing {
    fn predict(
        &self,
        _question: &Question<'_>,
        _work: &mut Workspace,
        out: &mut [Forecast],
    ) -> Result<Available, PluginError> {
        out[0].first_ms = 1.0;
        Err(PluginError::new("no"))
    }
}

const ALL: Available = Available { first: true, per_token: true };

fn state(world: &World) -> Arc<LatencyState> {
    world.kept.all::<LatencyState>().pop().unwrap().1
}

fn world(parameters: &str, first_ms: f64, per_token_ms: f64) -> (World, Built) {
    let mut world = World::labelled(&[&[], &[("role", "prefill")], &[("role", "decode")]]);
    let built = world.build(NAME, parameters).unwrap();
    let fixed = Fixed { first_ms, per_token_ms, available: ALL };
    state(&world).set_predictor(Some(Box::new(fixed)));
    (world, built)
}

fn request(id: &'static str) -> Request<'static> {
    Request { id, headers: &SLO, prompts: &[Prompt::Tokens(&IDS)], ..Request::default() }
}

fn infos(world: &mut World, built: &Built, request: &Request<'_>) -> Vec<Option<LatencyInfo>> {
    let column = world.column::<LatencyInfo>(NAME);
    world.columns.get_mut(column).fill(None);
    world.produce(built, request, &Idle).unwrap();
    world.columns.get(column).to_vec()
}

fn rows(world: &World) -> Vec<Row> {
    // The first state declared is the plugin's own.
    let slot = inlane_core::state::StateLayout::default().declare::<Scratch>(NAME);
    world.state.get(slot).unwrap().rows.clone()
}

#[test]
fn headrooms_are_targets_minus_predictions() {
    let (mut world, built) = world("", 199.0, 9.0);
    let found = infos(&mut world, &built, &request("r"));
    let a = found[0].unwrap();
    assert_eq!((a.ttft, a.ttft_headroom, a.ttft_valid), (199.0, 1.0, true));
    assert_eq!((a.tpot, a.tpot_headroom, a.tpot_valid), (9.0, 0.0, true), "not streaming");
    let b = found[1].unwrap();
    assert_eq!((b.ttft_headroom, b.ttft_valid), (0.0, false), "the target itself is too late");

    let without = Request { headers: Request::default().headers, ..request("r") };
    let a = infos(&mut world, &built, &without)[0].unwrap();
    assert_eq!((a.ttft_headroom, a.ttft_valid), (-199.0, false));
}

#[test]
fn prefill_endpoints_have_no_time_per_token() {
    let streaming = "{streamingMode: true, endpointRoleLabel: role, sloBufferFactor: 2}";
    let (mut world, built) = world(streaming, 100.0, 17.0);
    let found = infos(&mut world, &built, &request("r"));
    let tpot = |ix: usize| found[ix].map(|i| (i.tpot_headroom, i.tpot_valid)).unwrap();
    assert_eq!([tpot(0), tpot(1), tpot(2)], [(-1.0, false), (0.0, true), (-1.0, false)]);
    let types: Vec<_> = rows(&world).iter().map(|row| row.pod_type).collect();
    assert_eq!(types, [PodType::None, PodType::Prefill, PodType::Decode]);
}

#[test]
fn features_come_from_metrics_and_attributes() {
    let (mut world, built) = world("{useEncoderCacheFeatures: true}", 1.0, 1.0);
    let prefix = world.column::<PrefixMatch>("approx-prefix-cache-producer");
    let found = |match_blocks, total_blocks| {
        Some(PrefixMatch { match_blocks, total_blocks, ..PrefixMatch::default() })
    };
    world.columns.get_mut(prefix).copy_from_slice(&[found(1, 4), found(0, 0), None]);
    let load = world.column::<InFlight>("inflight-load-producer");
    world.columns.get_mut(load)[1] = Some(InFlight { requests: 9, tokens: 500, word: 0 });
    let media = world.column::<EncoderMatch>("mm-embeddings-cache-producer");
    world.columns.get_mut(media)[0] = Some(EncoderMatch { matched: 9, requested: 5 });
    world.columns.metrics.kv_usage[0] = 0.5;
    world.columns.metrics.waiting[0] = 2;
    world.columns.metrics.running = vec![7, 3, 1];
    world.produce(&built, &request("r"), &Idle).unwrap();
    let rows = rows(&world);
    let expected = Row {
        kv_cache_percentage: 0.5,
        input_token_length: 100.0,
        num_request_waiting: 2.0,
        num_request_running: 7.0,
        num_tokens_generated: 1.0,
        prefix_cache_score: 0.25,
        encoder_input_size: 5.0,
        encoder_matched_size: 5.0,
        ..Row::default()
    };
    assert_eq!(rows[0], expected);
    assert_eq!((rows[1].num_request_running, rows[1].prefill_tokens_in_flight), (9.0, 500.0));
    assert_eq!((rows[1].prefix_cache_score, rows[2].prefix_cache_score), (0.0, 0.0));
    assert_eq!((rows[1].encoder_input_size, rows[1].encoder_matched_size), (5.0, 0.0));
}

#[test]
fn without_a_model_nothing_is_written() {
    let (mut world, built) = world("", 1.0, 1.0);
    let state = state(&world);
    let cold = Fixed { first_ms: 1.0, per_token_ms: 1.0, available: Available::default() };
    let others: [Option<Box<dyn Predictor>>; 3] =
        [None, Some(Box::new(Failing)), Some(Box::new(cold))];
    for predictor in others {
        state.set_predictor(predictor);
        assert_eq!(infos(&mut world, &built, &request("r")), [None, None, None]);
    }
    let half = Available { per_token: false, ..ALL };
    let fixed = Fixed { first_ms: 1.0, per_token_ms: f64::NAN, available: half };
    state.set_predictor(Some(Box::new(fixed)));
    let a = infos(&mut world, &built, &request("r"))[0].unwrap();
    assert_eq!((a.tpot, a.tpot_headroom, a.tpot_valid), (0.0, 0.0, true));

    let (mut world, built) = self::world("{predictInProduce: false}", 1.0, 1.0);
    assert_eq!(infos(&mut world, &built, &request("r")), [None, None, None]);
    assert_eq!(world.choose(&built, &request("r"), &[("default", 0)]).len(), 2, "still learns");
}

#[test]
fn the_tightest_running_target_bounds_the_headroom() {
    let (mut world, built) = world("{streamingMode: true}", 100.0, 6.0);
    let strict = [("x-llm-d-slo-tpot-ms", "5")];
    let strict = Request { headers: &strict, ..request("strict") };
    infos(&mut world, &built, &strict);
    let effects = world.choose(&built, &strict, &[("default", 0)]);
    world.apply(&built, &strict, &effects);

    let a = infos(&mut world, &built, &request("r"))[0].unwrap();
    assert_eq!((a.tpot_headroom, a.tpot_valid, a.dispatched), (-1.0, false, 1));
    let [Effect::Keep(kept), Effect::Record { .. }] = effects[..] else { panic!("{effects:?}") };
    finish(&world, &built, &[kept], "strict", |_| {});
    let a = infos(&mut world, &built, &request("r"))[0].unwrap();
    assert_eq!((a.tpot_headroom, a.tpot_valid, a.dispatched), (2.0, true, 0));
}

#[test]
fn a_request_counts_as_running_until_its_time_is_over() {
    let dispatched = |ttl: &str, later_ms: u64| {
        let (mut world, built) = world(&format!("{{contextTTL: {ttl}}}"), 1.0, 1.0);
        infos(&mut world, &built, &request("r"));
        let effects = world.choose(&built, &request("r"), &[("default", 0)]);
        world.apply(&built, &request("r"), &effects);
        world.now_ms += later_ms;
        infos(&mut world, &built, &request("s"))[0].unwrap().dispatched
    };
    assert_eq!(dispatched("2000000", 1), 1);
    assert_eq!(dispatched("2000000", 2), 0);
    assert_eq!(dispatched("0", u64::MAX / 2), 1);
}

/// Ends a stream that was served by endpoint 0, after `change`; the samples.
fn finish(
    world: &World,
    built: &Built,
    kept: &[Kept],
    request_id: &str,
    change: impl FnOnce(&mut Responding<'_>),
) -> Vec<Sample> {
    let profiles: [Profile; 0] = [];
    let mut response = Responding {
        endpoints: &world.endpoints,
        profiles: &profiles,
        targets: &[],
        kept,
        request_id,
        endpoint: world.endpoints.get(0),
        streaming: true,
        status: 200,
        first_byte_ms: Some(20.0),
        total_ms: 60.0,
        complete: true,
        prompt_tokens: None,
        completion_tokens: Some(5),
        cached_tokens: None,
        tells_cached: true,
    };
    change(&mut response);
    built.roles.after_response.as_ref().unwrap().complete(&response);
    let state = state(world);
    std::iter::from_fn(|| state.samples.pop()).collect()
}

/// The samples of a stream whose prompt was processed by `prefill`, if by another one.
fn samples(
    parameters: &str,
    prefill: Option<u32>,
    change: impl FnOnce(&mut Responding<'_>),
) -> Vec<(Target, f32, u64)> {
    let (mut world, built) = world(parameters, 30.0, 3.0);
    let prefix = world.column::<PrefixMatch>("approx-prefix-cache-producer");
    let full = PrefixMatch { match_blocks: 1, total_blocks: 1, ..PrefixMatch::default() };
    world.columns.get_mut(prefix).fill(Some(full));
    world.produce(&built, &request("r"), &Idle).unwrap();
    let results: Vec<_> = [("decode", Some(0)), ("prefill", prefill)]
        .into_iter()
        .filter_map(|(n, e)| Some((n, e?)))
        .collect();
    let effects = world.choose(&built, &request("r"), &results);
    let kept: Vec<Kept> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Keep(kept) => Some(*kept),
            _ => None,
        })
        .collect();
    let found = finish(&world, &built, &kept, "r", change);
    for sample in &found {
        assert_eq!(sample.row.num_tokens_generated, 0.0);
        let prefix = if sample.target == Target::PerToken { 0.0 } else { 1.0 };
        assert_eq!(sample.row.prefix_cache_score, prefix);
    }
    let key = |ix: u32| endpoint_key(&world.endpoints.get(ix).unwrap().id);
    let index = |sample: &Sample| (0..3).find(|&ix| key(ix) == sample.endpoint).unwrap();
    found.iter().map(|s| (s.target, s.y_ms, u64::from(index(s)))).collect()
}

const STREAMING: &str = "{streamingMode: true}";

#[test]
fn a_stream_teaches_the_first_token_and_the_others() {
    let both = [(Target::FirstToken, 20.0, 0), (Target::PerToken, 10.0, 0)];
    assert_eq!(samples(STREAMING, None, |_| {}), both);
    let apart = [(Target::FirstToken, 20.0, 1), (Target::PerToken, 10.0, 0)];
    assert_eq!(samples(STREAMING, Some(1), |_| {}), apart);
    assert_eq!(samples(STREAMING, None, |r| r.completion_tokens = Some(1)), both[..1]);
    assert_eq!(samples(STREAMING, None, |r| r.completion_tokens = None), both[..1]);
    assert_eq!(samples(STREAMING, None, |r| r.complete = false), both[..1]);
    assert_eq!(samples(STREAMING, None, |r| r.first_byte_ms = None), []);
    let at_once = |r: &mut Responding<'_>| r.first_byte_ms = Some(r.total_ms);
    assert_eq!(samples(STREAMING, None, at_once), [], "the first chunk is the last");
}

#[test]
fn a_whole_response_teaches_the_time_to_its_end() {
    let end = [(Target::EndToEnd, 60.0, 0)];
    assert_eq!(samples("", None, |_| {}), end);
    assert_eq!(samples("", None, |r| r.first_byte_ms = Some(r.total_ms)), end);
    assert_eq!(samples("", Some(2), |_| {}), [(Target::EndToEnd, 60.0, 2)]);
    assert_eq!(samples("", None, |r| r.complete = false), []);
}

#[test]
fn what_failed_or_went_elsewhere_teaches_nothing() {
    assert_eq!(samples(STREAMING, None, |r| r.status = 503), []);
    assert_eq!(samples(STREAMING, None, |r| r.status = 0), []);
    assert_eq!(samples(STREAMING, None, |r| r.endpoint = None), []);
    let retried = |r: &mut Responding<'_>| r.endpoint = r.endpoints.get(2);
    assert_eq!(samples(STREAMING, None, retried), []);
    assert_eq!(samples(STREAMING, Some(1), retried), [(Target::FirstToken, 20.0, 1)]);
}

#[test]
fn a_request_without_an_id_leaves_no_trace() {
    let (mut world, built) = world("", 1.0, 1.0);
    world.produce(&built, &request(""), &Idle).unwrap();
    assert_eq!(world.choose(&built, &request(""), &[("default", 0)]), []);
    let built = world.build(NAME, "").unwrap();
    world.state.clear();
    assert_eq!(world.choose(&built, &request("r"), &[("default", 0)]), [], "nothing was produced");
}

#[test]
fn a_trained_model_answers() {
    let mut trainer = Trainer::new(Options::default()).unwrap();
    for n in 0..200u16 {
        let row = Row { input_token_length: f32::from(n), ..Row::default() };
        let y_ms = 5.0 + 0.1 * f32::from(n);
        trainer.observe(&Sample { row, target: Target::EndToEnd, y_ms, endpoint: 1 }).unwrap();
    }
    trainer.retrain(|| true);
    let model = inlane_latency::Predictor::decode(&trainer.publish()).unwrap();
    let predict = |parameters: &str| {
        let (mut world, built) = world(parameters, 1.0, 1.0);
        state(&world).set_predictor(Some(Box::new(model.clone())));
        infos(&mut world, &built, &request("r"))[2].unwrap().ttft
    };
    let (usual, upper) = (predict(""), predict("{predictUpper: true}"));
    assert!((usual - 15.0).abs() < 1.5, "{usual}");
    assert!(upper > usual, "{upper} {usual}");
}

#[test]
fn parameters_are_checked() {
    let mut world = World::new(0);
    for (parameters, field) in [
        ("{sloBufferFactor: 0}", "sloBufferFactor"),
        ("{sloBufferFactor: -1}", "sloBufferFactor"),
        ("{sloBufferFactor: .nan}", "sloBufferFactor"),
        ("{contextTTL: 5m}", "contextTTL"),
        ("{streaming: true}", "streaming"),
    ] {
        let error = world.build(NAME, parameters).err().expect(parameters);
        assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
    }
    let ignored = "{samplingMean: -5, maxDecodeTokenSamplesForPrediction: 3, contextTTL: 1}";
    let built = world.build(NAME, ignored).unwrap();
    let required: Vec<_> = built.data.requires.iter().map(ToString::to_string).collect();
    assert_eq!(
        required,
        [
            "TokenizedPrompt/token-producer",
            "PrefixCacheMatchInfoDataKey/approx-prefix-cache-producer",
            "InFlightLoadDataKey/inflight-load-producer"
        ]
    );
}
