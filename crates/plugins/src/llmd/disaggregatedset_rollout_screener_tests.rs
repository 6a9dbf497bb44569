use inlane_core::decision::Rejection;
use inlane_core::endpoint::EndpointIx;
use inlane_core::exposition::Exposition;
use inlane_core::plugin::{Candidates, Producing, Responding};
use inlane_core::request::Request;

use crate::testing::{Built, Idle, World};

const REVISION: &str = "disaggregatedset.x-k8s.io/revision";
const ROLE: &str = "disaggregatedset.x-k8s.io/role";
const ROLES: &str = "requireRoles: {values: [prefill, decode]}";
const SELECTORS: &str = "headerSelectors: [
    {name: revision, headerName: X-Revision, labelKey: disaggregatedset.x-k8s.io/revision, mode: strict},
    {name: slice, headerName: x-slice, labelKey: slice, mode: prefer}]";

/// Two prefill and nine decode pods of revision A, one of each of B, a prefill pod alone of C.
fn rollout() -> World {
    let pod = |revision, role| [("app", "m"), (REVISION, revision), (ROLE, role), ("slice", "s1")];
    let mut pods = vec![pod("A", "prefill"); 2];
    pods.extend([pod("A", "decode"); 9]);
    pods.extend([pod("B", "prefill"), pod("B", "decode"), pod("C", "prefill")]);
    let pods: Vec<&[(&str, &str)]> = pods.iter().map(|pod| &pod[..]).collect();
    World::labelled(&pods)
}

fn build(world: &mut World, gating: &str) -> Built {
    let parameters =
        format!("{{scope: {{labelSelector: app=m}}, {SELECTORS}, revisionGating: {{{gating}}}}}");
    world.build("disaggregatedset-rollout-screener", &parameters).unwrap()
}

fn screen(world: &World, built: &Built, headers: &[(&str, &str)], seed: u64) -> Vec<EndpointIx> {
    let request = Request { headers: &headers.to_vec(), ..Default::default() };
    let all = world.all();
    screen_some(world, built, &request, &all, seed)
}

fn screen_some(
    world: &World,
    built: &Built,
    request: &Request<'_>,
    among: &[EndpointIx],
    seed: u64,
) -> Vec<EndpointIx> {
    let (mut kept, mut rejections) = (among.to_vec(), Vec::<Rejection>::new());
    let cx = Producing {
        request,
        endpoints: &world.endpoints,
        candidates: among,
        load: &Idle,
        settled: &world.settled,
        tickets: &[],
        now_ms: 0,
        seed,
    };
    let screener = built.roles.screener.as_ref().unwrap();
    screener.screen(&cx, &mut Candidates::new(&mut kept, &mut rejections, 0)).unwrap();
    assert_eq!(kept.len() + rejections.len(), among.len());
    kept
}

/// How often each of 10,000 requests stayed with A and with B.
fn draws(gating: &str) -> (u32, u32) {
    let mut world = rollout();
    let built = build(&mut world, gating);
    let (mut a, mut b) = (0, 0);
    for seed in 0..10_000 {
        match screen(&world, &built, &[], seed).as_slice() {
            [11, 12] => b += 1,
            kept => {
                assert_eq!(kept, (0..11).collect::<Vec<_>>());
                a += 1;
            }
        }
    }
    (a, b)
}

#[test]
fn revisions_are_drawn_by_weight() {
    let close = |count: u32, share: f64| (f64::from(count) / 10_000.0 - share).abs() < 0.015;
    let (a, b) = draws(&format!("mode: max-role, {ROLES}"));
    assert!(close(a, 0.9) && close(b, 0.1), "{a} {b}");
    let (a, b) = draws(&format!("mode: sum, {ROLES}"));
    assert!(close(a, 11.0 / 13.0) && close(b, 2.0 / 13.0), "{a} {b}");
}

#[test]
fn a_strict_header_decides_instead_of_the_draw() {
    let mut world = rollout();
    let built = build(&mut world, &format!("mode: sum, {ROLES}"));
    for seed in 0..50 {
        assert_eq!(screen(&world, &built, &[("x-revision", "B")], seed), [11, 12]);
    }
    assert!(screen(&world, &built, &[("x-revision", "C")], 1).is_empty(), "C is incomplete");
    assert!(screen(&world, &built, &[("x-revision", "D")], 1).is_empty());
    assert!(!screen(&world, &built, &[("x-revision", "")], 1).is_empty());
    let mut page = Exposition::default();
    built.roles.collector.as_ref().unwrap().collect(&mut page);
    let text = page.render();
    assert!(text.contains("strict_header_no_match_total{plugin_type=\"disaggregatedset-rollout-screener\",plugin_name=\"disaggregatedset-rollout-screener\",selector=\"revision\"} 2"), "{text}");
    assert!(text.contains("mode=\"sum\",revision=\"C\"} 0"), "{text}");
    assert!(!text.contains("selector=\"slice\""), "{text}");
}

#[test]
fn a_prefer_header_keeps_everybody() {
    let mut world = rollout();
    let built = build(&mut world, "mode: disabled");
    assert_eq!(screen(&world, &built, &[("x-slice", "other")], 1).len(), 14);
    assert_eq!(screen(&world, &built, &[("x-revision", "C")], 1), [13]);
}

#[test]
fn only_revisions_among_the_candidates_are_drawn() {
    let mut world = rollout();
    let built = build(&mut world, &format!("mode: max-role, {ROLES}"));
    let request = Request::default();
    for seed in 0..50 {
        assert_eq!(screen_some(&world, &built, &request, &[12, 13], seed), [12]);
    }
}

#[test]
fn pods_outside_the_scope_and_further_ranks_do_not_count() {
    let pod = |app, role| [("app", app), (REVISION, "A"), (ROLE, role)];
    let mut world = World::labelled(&[&pod("m", "prefill"), &pod("other", "decode")]);
    let built = build(&mut world, &format!("mode: sum, {ROLES}"));
    assert!(screen(&world, &built, &[], 1).is_empty());
}

#[test]
fn labels_are_told_in_the_response() {
    let mut world = rollout();
    let built = build(&mut world, "mode: disabled");
    let mut headers = Vec::new();
    let cx = Responding {
        endpoints: &world.endpoints,
        profiles: &[],
        targets: &[],
        kept: &[],
        request_id: "r",
        endpoint: world.endpoints.get(11),
        streaming: false,
        status: 200,
        first_byte_ms: None,
        total_ms: 1.0,
        complete: true,
        prompt_tokens: None,
        completion_tokens: None,
        cached_tokens: None,
        tells_cached: true,
    };
    built.roles.after_response.as_ref().unwrap().response_headers(&cx, &mut headers);
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(headers, [pair("x-revision", "B"), pair("x-slice", "s1")]);
}

#[test]
fn errors_name_the_field() {
    let mut world = World::new(0);
    let scope = "scope: {labelSelector: app=m}";
    let off = "revisionGating: {mode: disabled}";
    let selector = |rest: &str| format!("{{{scope}, {off}, headerSelectors: [{{{rest}}}]}}");
    for (parameters, field) in [
        (format!("{{{off}}}"), "scope.labelSelector"),
        (format!("{{scope: {{labelSelector: 'a b'}}, {off}}}"), "scope.labelSelector"),
        (format!("{{{scope}}}"), "revisionGating"),
        (format!("{{{scope}, revisionGating: {{}}}}"), "revisionGating.mode"),
        (format!("{{{scope}, revisionGating: {{mode: max}}}}"), "revisionGating.mode"),
        (
            format!("{{{scope}, revisionGating: {{mode: sum}}}}"),
            "revisionGating.requireRoles.values",
        ),
        (
            format!("{{{scope}, revisionGating: {{mode: sum, requireRoles: {{values: [a, a]}}}}}}"),
            "revisionGating.requireRoles.values",
        ),
        (
            format!("{{{scope}, revisionGating: {{mode: disabled, roleLabelKey: 'a b'}}}}"),
            "revisionGating.roleLabelKey",
        ),
        (selector("headerName: h, labelKey: l, mode: strict"), "headerSelectors[0].name"),
        (
            selector("name: n, headerName: 'h h', labelKey: l, mode: strict"),
            "headerSelectors[0].headerName",
        ),
        (selector("name: n, headerName: h, mode: strict"), "headerSelectors[0].labelKey"),
        (selector("name: n, headerName: h, labelKey: l"), "headerSelectors[0].mode"),
        (selector("name: n, headerName: h, labelKey: l, mode: soft"), "headerSelectors[0].mode"),
    ] {
        let error = world.build("disaggregatedset-rollout-screener", &parameters).err();
        assert_eq!(error.expect(&parameters).field.as_deref(), Some(field), "{parameters}");
    }
}
