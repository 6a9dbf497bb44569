//! Both strategies, in both roles.

use inlane_core::decision::{Decision, ProfileRun};
use inlane_core::effect::Effects;
use inlane_core::endpoint::{EndpointIx, EndpointSet};
use inlane_core::plugin::Responding;
use inlane_core::registry::Params;
use inlane_core::request::Request;
use inlane_core::state::{CycleState, RequestAttribute};
use xxhash_rust::xxh64::xxh64;

use super::settings::{Settings, Strategy};
use super::{session, token};
use crate::testing::{Built, Idle, World};

const SCORER: &str = "session-affinity-scorer";
const FILTER: &str = "session-affinity-filter";
const BY_ID: &str = "{strategy: session_id}";

fn with_header<R>(header: (&str, &str), call: impl FnOnce(&Request<'_>) -> R) -> R {
    let headers = [header];
    call(&Request { headers: &headers, ..Default::default() })
}

/// A request of session `u` from choice to binding; answers the scores of all endpoints.
fn serve(world: &mut World, built: &Built, candidates: &[u32], target: EndpointIx) -> Vec<f64> {
    with_header(("x-session-id", " u "), |request| {
        let scores = look(world, built, request);
        let runs = vec![run("default", candidates, Some(target))];
        choose(world, built, request, runs);
        scores
    })
}

fn look(world: &mut World, built: &Built, request: &Request<'_>) -> Vec<f64> {
    world.columns.reset(world.endpoints.len());
    world.produce(built, request, &Idle).unwrap();
    world.score_for(built, request)
}

fn run(name: &str, candidates: &[u32], target: Option<EndpointIx>) -> ProfileRun {
    ProfileRun {
        name: name.into(),
        ran: true,
        candidates: candidates.to_vec(),
        targets: target.into_iter().collect(),
        ..Default::default()
    }
}

fn choose(world: &World, built: &Built, request: &Request<'_>, profiles: Vec<ProfileRun>) {
    let decision = Decision { profiles, ..Decision::default() };
    let mut effects = Effects::new();
    let hook = built.roles.post_choice.as_ref().unwrap();
    hook.post_choice(&world.cycle(request), &decision, &mut effects);
    world.apply(built, request, &effects);
}

#[test]
fn a_session_is_bound_sticks_and_moves_when_its_endpoint_is_gone() {
    let mut world = World::new(3);
    let scorer = world.build(SCORER, BY_ID).unwrap();
    assert_eq!(serve(&mut world, &scorer, &[0, 1, 2], 1), [0.0; 3]);
    assert_eq!(serve(&mut world, &scorer, &[0, 1, 2], 0), [0.0, 1.0, 0.0], "bound");
    assert_eq!(serve(&mut world, &scorer, &[0, 2], 2), [0.0, 1.0, 0.0], "outscored, kept");
    assert_eq!(serve(&mut world, &scorer, &[0, 1, 2], 2), [0.0, 0.0, 1.0], "moved");
    let other = with_header(("x-session-id", "v"), |r| look(&mut world, &scorer, r));
    assert_eq!(other, [0.0; 3]);
    let none = look(&mut world, &scorer, &Request::default());
    assert_eq!(none, [0.0; 3]);
}

#[test]
fn an_endpoint_that_left_the_pool_is_gone() {
    let mut world = World::new(3);
    let scorer = world.build(SCORER, BY_ID).unwrap();
    serve(&mut world, &scorer, &[0, 1, 2], 2);
    let all = world.endpoints.as_slice().to_vec();
    world.endpoints = EndpointSet::new(2, all[..2].to_vec());
    world.settled.set(0, scorer.roles.per_topology.as_ref().unwrap().settle(&world.endpoints));
    assert_eq!(serve(&mut world, &scorer, &[0, 1], 0), [0.0; 2]);
    assert_eq!(serve(&mut world, &scorer, &[0, 1], 0), [1.0, 0.0]);
}

#[test]
fn endpoints_are_known_by_id_not_by_place() {
    let mut world = World::new(3);
    let scorer = world.build(SCORER, BY_ID).unwrap();
    serve(&mut world, &scorer, &[0, 1, 2], 2);
    let all = world.endpoints.as_slice().to_vec();
    world.endpoints = EndpointSet::new(2, all[1..].to_vec());
    world.settled.set(0, scorer.roles.per_topology.as_ref().unwrap().settle(&world.endpoints));
    assert_eq!(serve(&mut world, &scorer, &[0, 1], 0), [0.0, 1.0]);
}

#[test]
fn the_filter_leaves_the_bound_endpoint_or_everybody() {
    let mut world = World::new(3);
    let filter = world.build(FILTER, BY_ID).unwrap();
    with_header(("x-session-id", "u"), |request| {
        world.produce(&filter, request, &Idle).unwrap();
        assert_eq!(world.filter_for(&filter, request), [0, 1, 2]);
        choose(&world, &filter, request, vec![run("default", &[0, 1, 2], Some(1))]);
        world.produce(&filter, request, &Idle).unwrap();
        assert_eq!(world.filter_for(&filter, request), [1]);
    });
    assert!(filter.roles.scorer.is_none());
}

#[test]
fn filter_and_scorer_do_not_share_sessions() {
    let mut world = World::new(2);
    let scorer = world.build(SCORER, BY_ID).unwrap();
    let filter = world.build(FILTER, BY_ID).unwrap();
    serve(&mut world, &scorer, &[0, 1], 1);
    with_header(("x-session-id", "u"), |request| {
        world.columns.reset(2);
        world.produce(&filter, request, &Idle).unwrap();
        assert_eq!(world.filter_for(&filter, request), [0, 1]);
    });
}

#[test]
fn a_reload_keeps_sessions() {
    let mut world = World::new(2);
    let first = world.build(SCORER, BY_ID).unwrap();
    serve(&mut world, &first, &[0, 1], 1);
    let second = world.build(SCORER, "{strategy: session_id, profileName: default}").unwrap();
    assert_eq!(serve(&mut world, &second, &[0, 1], 1), [0.0, 1.0]);
}

#[test]
fn a_named_profile_counts_when_it_ran() {
    let mut world = World::new(3);
    let parameters = "{strategy: session_id, profileName: prefill}";
    let scorer = world.build(SCORER, parameters).unwrap();
    with_header(("x-session-id", "u"), |request| {
        look(&mut world, &scorer, request);
        choose(&world, &scorer, request, vec![run("decode", &[0, 1, 2], Some(0))]);
        assert_eq!(look(&mut world, &scorer, request), [0.0; 3]);
        let skipped = ProfileRun { name: "prefill".into(), ..Default::default() };
        choose(&world, &scorer, request, vec![run("decode", &[0], Some(0)), skipped]);
        assert_eq!(look(&mut world, &scorer, request), [0.0; 3]);
        let both = vec![run("decode", &[0], Some(0)), run("prefill", &[1, 2], Some(2))];
        choose(&world, &scorer, request, both);
        assert_eq!(look(&mut world, &scorer, request), [0.0, 0.0, 1.0]);
    });
}

#[test]
fn idle_sessions_are_forgotten() {
    let mut world = World::new(2);
    let config = "{strategy: session_id, sessionIdConfig: {evictionTtlSeconds: 0.1, \
                  evictionSweepSeconds: 0.05}}";
    let scorer = world.build(SCORER, config).unwrap();
    world.now_ms = 1_000;
    serve(&mut world, &scorer, &[0, 1], 1);
    world.now_ms = 1_100;
    assert_eq!(serve(&mut world, &scorer, &[0, 1], 1), [0.0, 1.0]);
    world.now_ms = 1_500;
    assert_eq!(serve(&mut world, &scorer, &[0, 1], 0), [0.0, 0.0]);
    assert_eq!(serve(&mut world, &scorer, &[0, 1], 0), [1.0, 0.0]);
}

#[test]
fn sources_are_asked_in_order() {
    let config = "{strategy: session_id, sessionIdConfig: {sources: [{attribute: \
                  SessionIDDataKey, producer: ids}, {attribute: agent-identity}, \
                  {header: X-Session-Id}]}}";
    let mut world = World::new(0);
    let built = world.build(SCORER, config).unwrap();
    let keys: Vec<_> = built.data.requires.iter().map(ToString::to_string).collect();
    assert_eq!(keys, ["SessionIDDataKey/ids"]);

    let params = Params::new(Some(serde_yaml::from_str(config).unwrap()));
    let Strategy::SessionId { sources, .. } = Settings::read(&params).unwrap().strategy else {
        panic!("another strategy");
    };
    let found = |attributes: &[(&'static str, &str, &str)], header: &str| {
        let mut state = CycleState::default();
        for &(name, producer, value) in attributes {
            let (producer, value) = (producer.into(), value.into());
            state.set_attribute(RequestAttribute { name: name.into(), producer, value });
        }
        with_header(("x-session-id", header), |request| session(&sources, request, &state))
    };
    let by = |id: &str| Some(xxh64(id.as_bytes(), 0));
    let all = [("SessionIDDataKey", "ids", "a"), ("agent-identity", "", "b")];
    assert_eq!(found(&all, "c"), by("a"));
    assert_eq!(found(&all[1..], "c"), by("b"));
    assert_eq!(found(&[("SessionIDDataKey", "ids", " ")], " c "), by("c"));
    assert_eq!(found(&[("SessionIDDataKey", "others", "a")], " "), None);
}

#[test]
fn a_token_names_its_endpoint() {
    let mut world = World::new(3);
    let scorer = world.build(SCORER, "").unwrap();
    let filter = world.build(FILTER, "{profileName: decode}").unwrap();
    let of_b = token::encode(&world.endpoints[1].id);
    with_header(("x-session-token", &of_b), |request| {
        assert_eq!(world.score_for(&scorer, request), [0.0, 1.0, 0.0]);
        assert_eq!(world.filter_for(&filter, request), [1]);
    });
    for token in ["", "!", "ZGVmYXVsdC92bGxtLTA=", &of_b[1..], "default/000b"] {
        with_header(("x-session-token", token), |request| {
            assert_eq!(world.score_for(&scorer, request), [0.0; 3], "{token}");
            assert_eq!(world.filter_for(&filter, request), [0, 1, 2], "{token}");
        });
    }
    assert_eq!(world.score(&scorer), [0.0; 3]);
}

#[test]
fn the_response_carries_the_token() {
    let mut world = World::new(3);
    let plain = world.build(SCORER, "").unwrap();
    let config = "{profileName: prefill, encodedEndpointHeaderConfig: {header: ' X-Pod '}}";
    let named = world.build(SCORER, config).unwrap();
    let by_id = world.build(SCORER, BY_ID).unwrap();
    assert!(by_id.roles.after_response.is_none());
    let headers = |built: &Built| {
        let mut headers = Vec::new();
        let endpoint = world.endpoints.get(2);
        let response = Responding {
            endpoints: &world.endpoints,
            profiles: &[],
            targets: &[],
            kept: &[],
            request_id: "r",
            endpoint,
            streaming: false,
            status: 200,
            first_byte_ms: None,
            total_ms: 0.0,
            complete: true,
            prompt_tokens: None,
            completion_tokens: None,
            cached_tokens: None,
            tells_cached: true,
        };
        let hook = built.roles.after_response.as_ref().unwrap();
        hook.response_headers(&response, &mut headers);
        headers
    };
    let token = token::encode(&world.endpoints[2].id);
    assert_eq!(headers(&plain), [("x-session-token".to_owned(), token)]);
    assert_eq!(headers(&named), [], "the profile did not run");
}

#[test]
fn errors_name_the_field() {
    let mut world = World::new(0);
    let config = |rest: &str| format!("{{strategy: session_id, sessionIdConfig: {{{rest}}}}}");
    for (parameters, field) in [
        ("{strategy: cookie}".to_owned(), "strategy"),
        (config("sources: [{}]"), "sessionIdConfig.sources[0]"),
        (config("sources: [{header: a}, {header: a, attribute: b}]"), "sessionIdConfig.sources[1]"),
        (config("sources: [{header: a, producer: b}]"), "sessionIdConfig.sources[0]"),
        (config("evictionTtlSeconds: -1"), "sessionIdConfig.evictionTtlSeconds"),
        (config("evictionSweepSeconds: -0.5"), "sessionIdConfig.evictionSweepSeconds"),
        (config("ttl: 1"), "sessionIdConfig.ttl"),
    ] {
        for plugin in [SCORER, FILTER, "multicluster-session-affinity-filter"] {
            let error = world.build(plugin, &parameters).err().expect(&parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
    }
    for parameters in [config("evictionTtlSeconds: 0"), config("sources: []")] {
        assert!(world.build(SCORER, &parameters).is_ok(), "{parameters}");
    }
}
