//! Scraping over real sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use inlane_core::cycle::isolate;
use inlane_core::endpoint::Endpoint;
use inlane_core::plugin::{Extractor, Findings};
use inlane_core::snapshot::{MetricsRow, ScalarKey};
use inlane_engine::EngineTable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use super::source::{Engines, Reader, Source};
use super::*;

const MS: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Log {
    samples: RefCell<Vec<(Slot, EngineSample)>>,
    rows: RefCell<Vec<(Slot, MetricsRow)>>,
    failures: RefCell<Vec<(Slot, String)>>,
}

impl Log {
    fn scrapes(&self, slot: u32) -> usize {
        self.samples.borrow().iter().filter(|(s, _)| s.index == slot).count()
    }

    fn failed(&self, slot: u32) -> usize {
        self.failures.borrow().iter().filter(|(s, _)| s.index == slot).count()
    }

    fn last_waiting(&self, slot: u32) -> Option<u32> {
        let samples = self.samples.borrow();
        samples.iter().rev().find(|(s, _)| s.index == slot)?.1.waiting
    }
}

impl Sink for Log {
    fn scraped(&self, target: &Target, sample: &EngineSample, _: &[Option<u8>]) {
        self.samples.borrow_mut().push((target.slot, sample.clone()));
    }

    fn extracted(
        &self,
        target: &Target,
        places: &[Option<u8>],
        extraction: Box<dyn Extraction>,
    ) -> Result<(), PluginError> {
        let mut row = MetricsRow::default();
        let mut found = Findings::new(&mut row, places);
        let done = isolate(|| extraction.finish(&mut found));
        self.rows.borrow_mut().push((target.slot, row));
        done
    }

    fn failed(&self, target: &Target, error: &FetchError) {
        self.failures.borrow_mut().push((target.slot, error.to_string()));
    }
}

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn page(waiting: u32) -> String {
    format!(
        "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{m=\"x\"}} {waiting}\n"
    )
}

fn with_length(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Serves connections one after the other or side by side with `respond`, which gets each
/// connection; answers its address.
async fn serve<F, R>(respond: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            spawn_local(respond(stream));
        }
    });
    address
}

/// Reads one request head; false at the end of the connection.
async fn request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    assert!(head.starts_with(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:"));
    true
}

/// A well-behaved server that keeps connections alive.
async fn healthy(waiting: u32) -> SocketAddr {
    serve(move |mut stream| async move {
        while request(&mut stream).await {
            stream.write_all(&with_length(&page(waiting))).await.unwrap();
        }
    })
    .await
}

fn scrapers(log: &Rc<Log>, base: Duration) -> Scrapers {
    let limits = PaceLimits { base, longest: 60_000 * MS, cores: 64.0 };
    Scrapers::new(Rc::clone(log) as Rc<dyn Sink>, limits)
}

fn target(slot: u32, address: SocketAddr) -> Target {
    thread_local! {
        static SOURCE: Rc<Source> = Rc::new(Source {
            source_type: "metrics-data-source",
            path: "/metrics".into(),
            port: None,
            interval: None,
            engines: Some(Engines {
                producer: "core-metrics-extractor".into(),
                extractor_type: "core-metrics-extractor",
                table: EngineTable::default(),
            }),
            extractors: Vec::new(),
            identity: Vec::new(),
        });
    }
    SOURCE.with(|source| target_of(slot, address, (0, source), &[]))
}

fn target_of(
    slot: u32,
    address: SocketAddr,
    source: (u16, &Rc<Source>),
    keys: &[ScalarKey],
) -> Target {
    let endpoint = Endpoint {
        id: format!("default/p{slot}"),
        namespace: "default".into(),
        name: format!("p{slot}"),
        pod_name: format!("p{slot}"),
        address: address.ip().to_string(),
        port: address.port(),
        host_port: address.to_string(),
        rank: 0,
        labels: BTreeMap::new(),
        slot: Slot { index: slot, generation: 1 },
    };
    Target::new(Rc::new(endpoint), address, source, 1.0, keys)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        sleep(5 * MS).await;
    }
    panic!("not within 5 s: {what}");
}

#[test]
fn one_connection_carries_many_pages() {
    run(async {
        let connections = Rc::new(Cell::new(0));
        let count = Rc::clone(&connections);
        let address = serve(move |mut stream| {
            count.set(count.get() + 1);
            async move {
                while request(&mut stream).await {
                    stream.write_all(&with_length(&page(3))).await.unwrap();
                }
            }
        })
        .await;
        let log = Rc::new(Log::default());
        let scrapers = scrapers(&log, 10 * MS);
        scrapers.reconcile(vec![target(0, address)]);
        until("pages", || log.scrapes(0) >= 10).await;
        assert_eq!((connections.get(), log.last_waiting(0)), (1, Some(3)));
        assert_eq!(log.failed(0), 0);
        let expected = with_length(&page(3)).len() as u64 * scrapers.counters().pages.get();
        assert_eq!(scrapers.counters().bytes.get(), expected);
    });
}

#[test]
fn slow_and_dead_endpoints_delay_nobody() {
    run(async {
        let good = healthy(1).await;
        // Accepts and never answers.
        let mute = serve(|stream| async move {
            sleep(60_000 * MS).await;
            drop(stream);
        })
        .await;
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let log = Rc::new(Log::default());
        let scrapers = scrapers(&log, 20 * MS);
        scrapers.reconcile(vec![target(0, good), target(1, mute), target(2, closed)]);
        let started = std::time::Instant::now();
        until("timeout", || log.failed(1) >= 1).await;
        let elapsed = started.elapsed();
        assert!(elapsed >= TIMEOUT, "{elapsed:?}");
        // 50 ticks a second; a fifth of them would do on a crowded machine.
        assert!(log.scrapes(0) >= 10, "{} scrapes in {elapsed:?}", log.scrapes(0));
        assert!(log.failures.borrow().iter().any(|(s, e)| s.index == 1 && e.contains("1000 ms")));
        // Retries keep growing distance: not one per tick.
        assert!((2..=20).contains(&log.failed(2)), "{}", log.failed(2));
        assert!(scrapers.counters().dropped_ticks.get() >= 40);
    });
}

#[test]
fn pieces_of_one_byte_and_chunks_are_read() {
    run(async {
        let trickle = serve(|mut stream| async move {
            stream.set_nodelay(true).unwrap();
            while request(&mut stream).await {
                for byte in with_length(&page(7)) {
                    stream.write_all(&[byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
        let chunked = serve(|mut stream| async move {
            while request(&mut stream).await {
                let mut text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for part in page(9).as_bytes().chunks(11) {
                    text.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                    text.extend_from_slice(part);
                    text.extend_from_slice(b"\r\n");
                }
                text.extend_from_slice(b"0\r\n\r\n");
                stream.write_all(&text).await.unwrap();
            }
        })
        .await;
        let log = Rc::new(Log::default());
        let scrapers = scrapers(&log, 10 * MS);
        scrapers.reconcile(vec![target(0, trickle), target(1, chunked)]);
        until("pages", || log.scrapes(0) >= 3 && log.scrapes(1) >= 3).await;
        assert_eq!((log.last_waiting(0), log.last_waiting(1)), (Some(7), Some(9)));
        assert_eq!(log.failed(0) + log.failed(1), 0);
    });
}

#[test]
fn a_connection_that_ends_after_each_page_is_replaced_unnoticed() {
    run(async {
        // Promises keep-alive and hangs up.
        let address = serve(|mut stream| async move {
            if request(&mut stream).await {
                stream.write_all(&with_length(&page(2))).await.unwrap();
            }
        })
        .await;
        let log = Rc::new(Log::default());
        let scrapers = scrapers(&log, 10 * MS);
        scrapers.reconcile(vec![target(0, address)]);
        until("pages", || log.scrapes(0) >= 5).await;
        assert_eq!(log.failed(0), 0);
    });
}

#[test]
fn a_cut_page_and_a_wrong_status_are_failures_and_recovery_is_seen() {
    run(async {
        let broken = Rc::new(Cell::new(0));
        let state = Rc::clone(&broken);
        let address = serve(move |mut stream| {
            let state = Rc::clone(&state);
            async move {
                while request(&mut stream).await {
                    let answer = match state.get() {
                        0 => with_length(&page(1)),
                        1 => with_length(&page(1))[..60].to_vec(),
                        _ => b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_vec(),
                    };
                    stream.write_all(&answer).await.unwrap();
                    if state.get() == 1 {
                        return;
                    }
                }
            }
        })
        .await;
        let log = Rc::new(Log::default());
        let scrapers = scrapers(&log, 10 * MS);
        scrapers.reconcile(vec![target(0, address)]);
        until("first page", || log.scrapes(0) >= 1).await;
        broken.set(1);
        until("cut page", || log.failed(0) >= 1).await;
        broken.set(2);
        until("status", || log.failures.borrow().iter().any(|f| f.1 == "status 503")).await;
        broken.set(0);
        let before = log.scrapes(0);
        until("recovery", || log.scrapes(0) > before).await;
        assert!(scrapers.counters().poll_errors.get() >= 2);
    });
}

#[test]
fn targets_come_go_and_stay() {
    run(async {
        let connections = Rc::new(Cell::new(0));
        let count = Rc::clone(&connections);
        let address = serve(move |mut stream| {
            count.set(count.get() + 1);
            async move {
                while request(&mut stream).await {
                    stream.write_all(&with_length(&page(1))).await.unwrap();
                }
            }
        })
        .await;
        let log = Rc::new(Log::default());
        let scrapers = scrapers(&log, 10 * MS);
        scrapers.reconcile(vec![target(0, address), target(1, address)]);
        until("both", || log.scrapes(0) >= 2 && log.scrapes(1) >= 2).await;
        scrapers.reconcile(vec![target(0, address), target(2, address)]);
        let gone = log.scrapes(1);
        until("the new one", || log.scrapes(2) >= 5).await;
        // At most the scrape that was under way.
        assert!(log.scrapes(1) <= gone + 1);
        assert_eq!(connections.get(), 3, "the one that stayed kept its connection");
        assert_eq!(scrapers.counters().running.get().min(2), scrapers.counters().running.get());
    });
}

#[test]
fn a_page_without_a_wanted_metric_counts_as_an_extract_error() {
    run(async {
        let address = healthy(1).await;
        let log = Rc::new(Log::default());
        let scrapers = scrapers(&log, 10 * MS);
        scrapers.reconcile(vec![target(0, address)]);
        until("pages", || log.scrapes(0) >= 2).await;
        let counters = scrapers.counters();
        assert_eq!(counters.extract_errors.get(), counters.pages.get());
        assert_eq!(counters.poll_errors.get(), 0);
    });
}

/// Counts the bytes of a page, and fails or panics on a page of too many.
struct Measure;

struct Measuring(usize);

impl Extractor for Measure {
    fn begin(&self, endpoint: &Endpoint) -> Box<dyn Extraction> {
        assert!(endpoint.name != "p9", "not this one");
        Box::new(Measuring(0))
    }
}

impl Extraction for Measuring {
    fn chunk(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn finish(self: Box<Self>, found: &mut Findings<'_>) -> Result<(), PluginError> {
        found.scalar(1, self.0 as f64);
        if self.0 > 10 { Err(PluginError::new("too long")) } else { Ok(()) }
    }
}

/// A server that answers every path with `body`.
async fn any_path(body: &'static str) -> SocketAddr {
    serve(move |mut stream| async move {
        let mut head = Vec::new();
        while let Ok(byte) = stream.read_u8().await {
            head.push(byte);
            if head.ends_with(b"\r\n\r\n") {
                assert!(head.starts_with(b"GET /models HTTP/1.1\r\n"));
                head.clear();
                stream.write_all(&with_length(body)).await.unwrap();
            }
        }
    })
    .await
}

#[test]
fn every_source_is_fetched_and_read_by_its_plugins() {
    run(async {
        let (metrics, short) = (healthy(3).await, any_path("seven b").await);
        let long = any_path("more than ten").await;
        let reader = |producer: &str, reports: &[&str]| Reader {
            producer: producer.into(),
            extractor_type: "measure",
            extractor: Arc::new(Measure),
            reports: reports.iter().map(|name| (*name).to_owned()).collect(),
        };
        let source = Rc::new(Source {
            source_type: "models-data-source",
            path: "/models".into(),
            port: Some(short.port()),
            interval: None,
            engines: None,
            extractors: vec![reader("m", &["unread", "bytes"]), reader("n", &["bytes", "other"])],
            identity: Vec::new(),
        });
        let other = Rc::new(Source {
            port: Some(long.port()),
            extractors: vec![reader("m", &["unread", "bytes"])],
            path: "/models".into(),
            identity: Vec::new(),
            engines: None,
            ..*source
        });
        let key =
            |producer: &str, name: &str| ScalarKey { name: name.into(), producer: producer.into() };
        let keys = [key("x", "bytes"), key("n", "other"), key("m", "bytes")];
        let log = Rc::new(Log::default());
        let scrapers = scrapers(&log, 10 * MS);
        scrapers.reconcile(vec![
            target(0, metrics),
            target_of(0, metrics, (1, &source), &keys),
            target_of(0, metrics, (2, &other), &keys),
            // Its first page comes long before its interval has passed.
            Target { stretch: 1e5, ..target_of(4, metrics, (1, &source), &keys) },
            target_of(9, metrics, (1, &source), &keys),
        ]);
        let seen = |scalar: usize, value: f64| {
            log.rows.borrow().iter().any(|(_, row)| row.scalars[scalar] == value)
        };
        until("all pages", || {
            log.last_waiting(0) == Some(3) && seen(2, 7.0) && seen(1, 7.0) && seen(2, 13.0)
        })
        .await;
        let seldom = || log.rows.borrow().iter().filter(|(slot, _)| slot.index == 4).count();
        until("the first page, for two readers", || seldom() == 2).await;
        let panics = ("models-data-source", Some("measure"));
        until("failures", || scrapers.counters().failures().get(&panics) >= Some(&5)).await;
        assert!(log.rows.borrow().iter().all(|(slot, row)| {
            slot.index != 9 && row.scalars[0].is_nan() && row.scalars[3].is_nan()
        }));
        assert_eq!(scrapers.counters().poll_errors.get(), 0, "{:?}", log.failures);
    });
}
