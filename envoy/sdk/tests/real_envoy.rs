//! The examples, loaded into every Envoy that is there.
//!
//! Needs the Envoy binaries that `make deps` fetches, and the examples, which `cargo test` builds along.

mod lab;

use std::net::SocketAddr;
use std::path::Path;

use lab::{Answer, Envoy, Pod, envoys, eventually, send, validate};

/// The bootstrap of the two-pods module.
fn two_pods(pods: &[&Pod], filter_config: &str) -> String {
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address.as_str()).collect();
    include_str!("lab/two_pods.yaml")
        .replace("FILTER_CONFIG", filter_config)
        .replace("PODS", &addresses.join(","))
}

/// An Envoy with the pods `a`, `b` and one that is dead.
struct Setup {
    envoy: Envoy,
    listener: SocketAddr,
    a: Pod,
    b: Pod,
    dead: Pod,
}

impl Setup {
    fn new(binary: &Path) -> Self {
        let (a, b, dead) = (Pod::start("a"), Pod::start("b"), Pod::dead());
        let mut envoy = Envoy::start(binary, &two_pods(&[&a, &b, &dead], "serve"));
        let listener = envoy.listener();
        Self { envoy, listener, a, b, dead }
    }

    fn rank(&self, pods: &[&Pod], headers: &[(&str, &str)]) -> Option<Answer> {
        let ranking = pods.iter().map(|pod| pod.address.as_str()).collect::<Vec<_>>().join(", ");
        let mut all = vec![("x-rank", ranking.as_str())];
        all.extend_from_slice(headers);
        send(self.listener, "POST", "/", &all, "some body")
    }

    /// The first pod of `pods` that should answer does.
    #[track_caller]
    fn assert_answers(&self, pods: &[&Pod], name: &str) -> Answer {
        let answer = self.rank(pods, &[]).expect("an answer");
        assert_eq!((answer.status, answer.body.lines().next()), (200, Some(name)), "{answer:?}");
        answer
    }
}

#[test]
fn the_chosen_pod_answers_and_a_retry_takes_the_next() {
    for (version, binary) in envoys() {
        eprintln!("Envoy {version}");
        let setup = Setup::new(&binary);
        let Setup { a, b, dead, .. } = &setup;
        for _ in 0..5 {
            setup.assert_answers(&[a, b], "a");
            setup.assert_answers(&[b, a], "b");
            setup.assert_answers(&[dead, b], "b");
        }
        let unknown = setup.rank(&[&Pod::dead()], &[]).expect("an answer");
        assert_eq!(unknown.status, 503, "{unknown:?}");

        // A token of the client's own neither counts nor, where the filter state carries the token, gets to the pod.
        let forged = setup.rank(&[a], &[("x-example-token", "999999")]).expect("an answer");
        assert_eq!(forged.status, 200, "{forged:?}");
        assert!(!forged.body.contains("999999"), "{forged:?}");
        assert_eq!(forged.body.contains("x-example-token"), version.starts_with("1.38"));

        let counted = format!("{}\"}} ", a.address);
        let stats = setup.envoy.get("/stats/prometheus").expect("statistics").body;
        assert!(
            stats
                .lines()
                .any(|line| line.starts_with("envoy_example_picks") && line.contains(&counted)),
            "no counter of picks for {}",
            a.address
        );
    }
}

#[test]
fn a_callout_goes_to_the_pod_that_its_own_header_names() {
    for (version, binary) in envoys() {
        eprintln!("Envoy {version}");
        let setup = Setup::new(&binary);
        let Setup { a, b, dead, .. } = &setup;
        let unknown = Pod::dead();
        for (first, streamed, result) in [
            (b, false, "callout Success b"),
            (b, true, "stream complete b"),
            // A pod that is down answers a callout as Envoy answers a client: with a 503.
            (dead, false, "callout Success upstream connect error"),
            (&unknown, false, "CannotCreateRequest"),
        ] {
            let mut headers = vec![("x-first", first.address.as_str())];
            headers.extend(streamed.then_some(("x-streamed", "yes")));
            let answer = setup.rank(&[a], &headers).expect("an answer");
            let expected = format!("x-first-answer: {result}");
            assert!(
                answer.status == 200
                    && answer.body.starts_with("a\n")
                    && answer.body.contains(&expected),
                "{expected}: {answer:?}"
            );
        }
    }
}

#[test]
fn pods_come_and_go_while_serving() {
    for (version, binary) in envoys() {
        eprintln!("Envoy {version}");
        let setup = Setup::new(&binary);
        let c = Pod::start("c");
        let status = || setup.rank(&[&c], &[]).expect("an answer").status;
        for _ in 0..3 {
            assert_eq!(status(), 503);
            let changed = setup.rank(&[], &[("x-add", &c.address)]).expect("an answer");
            assert_eq!(changed.status, 202, "{changed:?}");
            eventually("the new pod", || (status() == 200).then_some(()));
            // Adding it again changes nothing.
            setup.rank(&[], &[("x-add", &c.address)]);
            setup.rank(&[], &[("x-remove", &c.address)]);
            eventually("the pod's end", || (status() == 503).then_some(()));
        }
        let hosts = setup.envoy.get("/clusters").expect("clusters").body;
        assert!(hosts.contains(&setup.a.address) && !hosts.contains(&c.address), "{hosts}");
    }
}

#[test]
fn a_panic_costs_one_stream() {
    for (version, binary) in envoys() {
        eprintln!("Envoy {version}");
        let mut setup = Setup::new(&binary);
        for (hook, status) in [
            ("request_headers", Some(500)),
            ("request_body", Some(500)),
            ("scheduled", Some(500)),
            ("response_headers", None),
            ("stream_complete", Some(200)),
            ("destroy", Some(200)),
        ] {
            let answer = setup.rank(&[&setup.a], &[("x-panic", hook)]);
            assert_eq!(answer.as_ref().map(|answer| answer.status), status, "{hook}: {answer:?}");
            setup.assert_answers(&[&setup.a], "a");
            setup.envoy.assert_alive();
            let line = format!("{hook} was asked to panic");
            eventually("the panic in the log", || {
                setup
                    .envoy
                    .log()
                    .lines()
                    .any(|l| l.contains("the module panicked") && l.contains(&line))
                    .then_some(())
            });
        }
        assert!(setup.envoy.stop().success(), "{}", setup.envoy.log());
    }
}

#[test]
fn a_route_has_its_own_configuration() {
    for (version, binary) in envoys() {
        eprintln!("Envoy {version}");
        let setup = Setup::new(&binary);
        let rank = [("x-rank", setup.b.address.as_str())];
        let named = send(setup.listener, "GET", "/named", &rank, "").expect("an answer");
        assert!(named.head.contains("x-route: the-named-route"), "{named:?}");
        let other = send(setup.listener, "GET", "/", &rank, "").expect("an answer");
        assert!(other.status == 200 && !other.head.contains("x-route"), "{other:?}");
    }
}

#[test]
fn a_configuration_can_be_validated() {
    for (version, binary) in envoys() {
        eprintln!("Envoy {version}");
        let pod = Pod::dead();
        let (status, log) = validate(&binary, &two_pods(&[&pod], "serve"));
        assert!(status.success(), "{log}");
        assert!(!log.contains("is deprecated"), "the ABI version is not this Envoy's:\n{log}");
        let (status, log) = validate(&binary, &two_pods(&[&pod], "reject"));
        assert!(!status.success() && log.contains("asked to reject"), "{log}");
    }
}

#[test]
fn a_bootstrap_extension_holds_readiness_and_serves_a_page() {
    for (version, binary) in envoys() {
        eprintln!("Envoy {version}");
        let mut envoy = Envoy::start(&binary, include_str!("lab/admin_page.yaml"));
        let page = eventually("the page", || {
            let page = envoy.get("/example").filter(|page| page.status == 200)?;
            page.body.contains("worker").then_some(page)
        });
        for part in ["GET /example: story", "timer, event 7", "gauge known: true"] {
            assert!(page.body.contains(part), "{part:?} is not in {page:?}");
        }
        assert_eq!(envoy.get("/example?panic").map(|page| page.status), Some(500));
        assert!(envoy.stop().success(), "{}", envoy.log());
    }
}
