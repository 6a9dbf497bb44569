//! Attempts of decided streams, as Envoy asks for their hosts.

use std::sync::Arc;

use envoy_proxy_dynamic_modules_rust_sdk::{
    ClusterLb, EnvoyBuffer, HostSelectionResult, MockClusterLbContext,
};

use super::balancer::Balancer;
use super::hosts::HostPtr;
use crate::scheduler::testing::Stream;
use crate::scheduler::{STREAM_TOKEN, TOKEN_STATE};
use crate::testing::{FakeCluster, PROBED, World, registry, script, settings};

const BODY: &str = r#"{"model":"m","prompt":"hello there"}"#;

/// A pool with a cluster.
struct Lab {
    world: World,
    balancer: Balancer,
    hosts: Arc<crate::runtime::PodsHosts>,
}

impl Lab {
    fn new(world: World) -> Self {
        let (hosts, _) = world.attach();
        let attached = (Arc::clone(&world.runtime), Arc::clone(&hosts));
        Self { world, balancer: Balancer::new(Some(attached)), hosts }
    }

    /// Asks for the host of an attempt that shows these bytes as its filter state and header.
    fn ask(&mut self, state: Option<&[u8]>, header: Option<&[u8]>) -> Option<HostPtr> {
        let leak = |bytes: &[u8]| &*bytes.to_vec().leak();
        let (state, header) = (state.map(leak), header.map(leak));
        let mut context = MockClusterLbContext::new();
        context.expect_get_filter_state_bytes().returning(move |key| {
            assert_eq!(key, TOKEN_STATE);
            state.map(EnvoyBuffer::new_from_slice)
        });
        context.expect_get_downstream_header().returning(move |name, index| {
            assert_eq!((name, index), (STREAM_TOKEN, 0));
            header.map(|header| (EnvoyBuffer::new_from_slice(header), 1))
        });
        match self.balancer.choose_host_now(Some(&context)) {
            Some(HostSelectionResult::Selected(host)) => Some(host),
            Some(HostSelectionResult::NoHost) => None,
            other => panic!("{other:?}"),
        }
    }

    /// The next attempt of a stream; the pod's number.
    fn attempt(&mut self, stream: &Stream) -> Option<u32> {
        let state = stream.seen().filter_state[TOKEN_STATE].clone();
        self.ask(Some(&state), None).map(pod)
    }
}

fn pod(host: HostPtr) -> u32 {
    (0..64).find(|pod| FakeCluster::host(*pod) == host).unwrap()
}

#[test]
fn each_attempt_goes_to_the_next_pod_and_takes_the_claim_along() {
    let mut lab = Lab::new(World::new(3));
    let mut stream = Stream::sent(&lab.world, BODY);
    let mut tried = Vec::new();
    for _ in 0..3 {
        let pod = lab.attempt(&stream).unwrap();
        assert!(!tried.contains(&pod), "{pod} after {tried:?}");
        tried.push(pod);
        let mut expected = [0; 3];
        expected[pod as usize] = 1;
        assert_eq!(lab.world.booked(), expected);
        assert!(lab.world.load(pod).tokens() > 0, "the projected tokens move too");
    }
    assert_eq!(lab.attempt(&stream), None, "nobody is left");
    assert!(lab.world.metrics().contains("inlane_retries_total 3"));
    assert_eq!(lab.world.booked().iter().sum::<u32>(), 1);
    stream.destroy();
    assert_eq!(lab.world.booked(), [0; 3]);
    assert_eq!(lab.world.stale_releases(), 0);
}

#[test]
fn the_first_attempt_goes_where_the_decision_said() {
    let mut lab = Lab::new(World::new(8));
    for _ in 0..16 {
        let stream = Stream::sent(&lab.world, BODY);
        let pod = lab.attempt(&stream).unwrap();
        let destination = stream.request_header("x-gateway-destination-endpoint").unwrap();
        assert_eq!(destination, format!("10.0.0.{}:8000", pod + 1));
    }
}

#[test]
fn pods_without_a_host_are_passed_over() {
    let mut lab = Lab::new(World::new(3));
    let served = lab.world.served();
    for endpoint in [0, 2] {
        lab.hosts.table.clear(served.serving().unwrap().endpoints()[endpoint].slot);
    }
    let stream = Stream::sent(&lab.world, BODY);
    assert_eq!(lab.attempt(&stream), Some(1));
    assert_eq!(lab.world.booked(), [0, 1, 0]);
    assert_eq!(lab.attempt(&stream), None);
}

#[test]
fn tokens_of_no_stream_find_no_host() {
    let mut lab = Lab::new(World::new(2));
    let mut ended = Stream::sent(&lab.world, BODY);
    let void = ended.seen().filter_state[TOKEN_STATE].clone();
    ended.destroy();
    let forged: [&[u8]; 3] = [&void, b"ffffffffffffffff", b"0000000100000000"];
    for token in forged {
        assert_eq!(lab.ask(Some(token), None), None);
        assert_eq!(lab.ask(None, Some(token)), None);
    }
    assert_eq!(lab.world.booked(), [0, 0]);
}

#[test]
fn the_header_carries_the_token_where_filter_state_does_not() {
    let mut lab = Lab::new(World::new(2));
    let stream = Stream::sent(&lab.world, BODY);
    let token = stream.request_header(STREAM_TOKEN).unwrap();
    assert!(lab.ask(None, Some(token.as_bytes())).is_some());
    assert!(lab.ask(None, Some(token.as_bytes())).is_some());
    assert_eq!(lab.ask(None, Some(token.as_bytes())), None, "both have been tried");
}

#[test]
fn without_a_token_any_pod_serves() {
    let mut lab = Lab::new(World::new(3));
    let mut seen = [false; 3];
    for _ in 0..200 {
        seen[pod(lab.ask(None, None).unwrap()) as usize] = true;
    }
    assert_eq!(seen, [true; 3], "each has a chance of one in three, 200 times");
    assert!(matches!(lab.balancer.choose_host_now(None), Some(HostSelectionResult::Selected(_))));
    assert_eq!(lab.world.booked(), [0; 3]);
}

#[test]
fn an_empty_pool_has_no_host() {
    let mut lab = Lab::new(World::new(0));
    assert_eq!(lab.ask(None, None), None);
    let detached = Balancer::new(None).choose_host_now(None);
    assert!(matches!(detached, Some(HostSelectionResult::NoHost)));
}

#[test]
fn plugins_hear_of_the_pod_that_served_in_the_end() {
    let mut lab = Lab::new(World::with(settings(), registry, PROBED, 2));
    let mut stream = Stream::sent(&lab.world, BODY);
    let first = lab.attempt(&stream).unwrap();
    let second = lab.attempt(&stream).unwrap();
    assert_ne!(first, second);
    stream.respond(&[(":status", "200")], true);
    stream.destroy();
    let name = format!("pod-{second}");
    assert_eq!(script(|script| script.answered.clone()), [(name.clone(), 200)]);
    assert_eq!(script(|script| script.completed.clone()), [(name, 200, None)]);
}
