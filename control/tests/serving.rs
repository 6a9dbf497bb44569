//! What a running control plane publishes and shows.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod common;

use inlane_segment::Ledger;

use common::{Control, ModelServer, Scene, eventually, vllm_page};

#[test]
fn rows_follow_the_model_servers() {
    let scene = Scene::new();
    let (a, b) =
        (ModelServer::start(&vllm_page(3, 4, 0.25)), ModelServer::start(&vllm_page(0, 1, 0.5)));
    scene.endpoints(&[a.entry("a"), b.entry("b")]);
    let control = scene.start(&["--pool-name", "p", "--pool-namespace", "n"]);
    let mut reader = scene.reader();
    reader.wait_for_names(&["a", "b"]);
    let (_, topology) = reader.topology().unwrap();
    assert_eq!((topology.pool.name.as_str(), topology.pool.namespace.as_str()), ("p", "n"));
    let slot = reader.endpoint("a").unwrap().slot;
    let row = eventually("a row", || Some(reader.row(slot)).filter(|row| row.scrapes > 0));
    assert_eq!((row.waiting, row.running, row.kv_usage), (3, 4, 0.25));
    assert_eq!((row.cache_block_size, row.cache_num_blocks), (16, 1_000));
    assert!(inlane_segment::boottime_ns() / 1_000_000 - row.scraped_at_ms < 5_000);
    a.set_page(&vllm_page(9, 8, 0.75));
    eventually("the new numbers", || (reader.row(slot).waiting == 9).then_some(()));
    assert!(reader.0.heartbeat_age() < std::time::Duration::from_secs(5));
    assert!(control.stop().success());
}

/// A configuration whose engine has two custom metrics, of which `scorers` may read one.
fn with_custom_metrics(scorers: &str) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{scorers}\
         - type: random-picker\n\
         - type: core-metrics-extractor\n  parameters:\n    engineConfigs:\n    - name: vllm\n      \
         queuedRequestsSpec: vllm:num_requests_waiting\n      customMetrics:\n      \
         - {{attributeKey: unread, metricSpec: b}}\n      \
         - {{attributeKey: llm-d.ai/multicluster-queue-size, metricSpec: 'a{{kind=x}}'}}\n"
    )
}

#[test]
fn custom_metrics_that_somebody_reads_reach_the_rows() {
    let scene = Scene::new();
    let page = vllm_page(3, 4, 0.25) + "# TYPE a gauge\na{kind=\"y\"} 1\na{kind=\"x\"} 2.5\n";
    let server = ModelServer::start(&page);
    scene.endpoints(&[server.entry("a")]);
    let config = with_custom_metrics("- type: multicluster-queue-scorer\n");
    let path = scene.write("config.yaml", &config);
    let args = ["--config-file", path.to_str().unwrap(), "--allow-experimental-plugins"];
    let control = scene.start(&args);
    let mut reader = scene.reader();
    reader.wait_for_names(&["a"]);
    let slot = reader.endpoint("a").unwrap().slot;
    let row = eventually("a row", || Some(reader.row(slot)).filter(|row| row.scrapes > 0));
    assert_eq!((row.waiting, row.scalars[0]), (3, 2.5));
    let scalars = reader.topology().unwrap().1.scalars;
    let [scalar] = &scalars[..] else { panic!("{scalars:?}") };
    assert_eq!(scalar.name, "llm-d.ai/multicluster-queue-size");
    assert_eq!(scalar.producer, "core-metrics-extractor");
    let shown = control.json("/debug/endpoints");
    let name = "llm-d.ai/multicluster-queue-size/core-metrics-extractor";
    assert_eq!(shown["endpoints"][0]["scalars"][name], 2.5);

    scene.write("config.yaml", &with_custom_metrics(""));
    eventually("no custom metric", || {
        let gone = reader.topology()?.1.scalars.is_empty();
        (gone && reader.row(slot).scalars[0].is_nan()).then_some(())
    });
    assert!(control.stop().success());
}

#[test]
fn lora_adapters_become_bits() {
    let scene = Scene::new();
    let lora = |running: &str, waiting: &str, value: u32| {
        vllm_page(0, 0, 0.0)
            + &format!(
                "# TYPE vllm:lora_requests_info gauge\nvllm:lora_requests_info{{max_lora=\"4\",\
                 running_lora_adapters=\"{running}\",waiting_lora_adapters=\"{waiting}\"}} {value}\n"
            )
    };
    let server = ModelServer::start(&lora("sql, chat", "chat", 1));
    scene.endpoints(&[server.entry("a")]);
    let control = scene.start(&[]);
    let mut reader = scene.reader();
    let names = |reader: &mut common::Reader| -> Option<(Vec<String>, Vec<String>, u32)> {
        let (_, topology) = reader.topology()?;
        let row = reader.row(topology.endpoints.first()?.slot);
        let of = |bits: u64| -> Vec<String> {
            let names = topology.adapters.iter().enumerate();
            names.filter(|(i, _)| bits >> i & 1 == 1).map(|(_, n)| n.clone()).collect()
        };
        Some((of(row.active_models), of(row.waiting_models), row.max_active_models))
    };
    let expected = (vec!["sql".to_owned(), "chat".into()], vec!["chat".to_owned()], 4);
    eventually("adapters", || (names(&mut reader)? == expected).then_some(()));
    server.set_page(&lora("new", "", 2));
    let expected = (vec!["new".to_owned()], vec![], 4);
    eventually("other adapters", || (names(&mut reader)? == expected).then_some(()));
    let shown = control.json("/debug/endpoints");
    assert_eq!(shown["endpoints"][0]["active_models"][0], "new");
}

#[test]
fn the_metrics_page_has_the_promised_names() {
    let scene = Scene::new();
    let (a, b) =
        (ModelServer::start(&vllm_page(2, 4, 0.2)), ModelServer::start(&vllm_page(5, 5, 0.4)));
    let dead = "- {name: dead, address: \"127.0.0.1\", port: \"1\"}\n".to_owned();
    scene.endpoints(&[a.entry("a"), b.entry("b"), dead]);
    let control = scene.start(&["--pool-name=p", "--refresh-prometheus-metrics-interval=1s"]);
    let ready = "llm_d_epp_ready_endpoints{name=\"p\"}";
    eventually("gauges", || (control.metric(ready)? == 2.0).then_some(()));
    for (series, value) in [
        ("llm_d_epp_average_queue_size{name=\"p\"}", 3.5),
        ("inference_pool_average_queue_size{name=\"p\"}", 3.5),
        ("llm_d_epp_average_running_requests{name=\"p\"}", 4.5),
        ("inference_pool_average_running_requests{name=\"p\"}", 4.5),
        ("llm_d_epp_average_kv_cache_utilization{name=\"p\"}", 0.3),
        ("inference_pool_average_kv_cache_utilization{name=\"p\"}", 0.3),
        ("llm_d_epp_std_dev_queue_size{name=\"p\"}", 2.12),
        ("llm_d_epp_std_dev_running_requests{name=\"p\"}", 0.71),
        ("llm_d_epp_std_dev_kv_cache_utilization{name=\"p\"}", 0.14),
        ("inference_pool_ready_pods{name=\"p\"}", 2.0),
        ("llm_d_epp_per_endpoint_queue_size{name=\"p\",model_server_endpoint=\"b\"}", 5.0),
        ("inference_pool_per_pod_queue_size{name=\"p\",model_server_pod=\"b\"}", 5.0),
        ("inlane_control_endpoints", 3.0),
    ] {
        assert_eq!(control.metric(series), Some(value), "{series}");
    }
    for series in [
        "llm_d_epp_datalayer_poll_errors_total{source_type=\"metrics-data-source\"}",
        "llm_d_inference_scheduler_datalayer_poll_errors_total{source_type=\"metrics-data-source\"}",
    ] {
        assert!(control.metric(series).unwrap() > 0.0, "{series}");
    }
    let extract = "llm_d_epp_datalayer_extract_errors_total{source_type=\"metrics-data-source\",\
                   extractor_type=\"core-metrics-extractor\"}";
    assert_eq!(control.metric(extract), Some(0.0));
    let page = control.get("/metrics").1;
    for line in page.lines().filter(|line| line.starts_with("# HELP")) {
        let mut words = line.splitn(4, ' ').skip(2);
        let (name, help) = (words.next().unwrap(), words.next().unwrap());
        let deprecated =
            name.starts_with("inference_pool_") || name.starts_with("llm_d_inference_");
        if deprecated {
            assert!(help.starts_with("[ALPHA] [Deprecated: Use llm_d_epp_"), "{line}");
        } else if name.starts_with("llm_d_epp_") {
            assert!(help.starts_with("[ALPHA] ") && !help.contains("Deprecated"), "{line}");
        }
        assert!(page.contains(&format!("# TYPE {name} ")), "{line}");
    }
}

#[test]
fn health_and_debugging_answer() {
    let scene = Scene::new();
    let server = ModelServer::start(&vllm_page(2, 4, 0.2));
    scene.endpoints(&[server.entry("a")]);
    let control = scene.start(&[]);
    assert_eq!(control.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(control.get("/readyz").0, 200);
    let ready = control.json("/readyz");
    assert_eq!(
        (&ready["ready"], &ready["config"]["error"]),
        (&true.into(), &serde_json::Value::Null)
    );
    assert_eq!(control.get("/nothing").0, 404);
    assert_eq!(control.request("POST", "/metrics").0, 405);
    let endpoint = eventually("a scrape", || {
        let shown = control.json("/debug/endpoints")["endpoints"][0].clone();
        (shown["scrapes"].as_u64()? > 0).then_some(shown)
    });
    assert_eq!(endpoint["id"], "default/a");
    assert_eq!(endpoint["address"], server.address.to_string());
    assert_eq!((&endpoint["waiting"], &endpoint["error"]), (&2.into(), &serde_json::Value::Null));
}

#[test]
fn scraping_slows_down_when_it_costs_too_much() {
    let scene = Scene::new();
    let server = ModelServer::start(&vllm_page(2, 4, 0.2));
    scene.endpoints(&[server.entry("a")]);
    let args = ["--scrape-cpu-limit=0.00001", "--max-refresh-metrics-interval=150ms"];
    let control = scene.start(&args);
    let interval = "inlane_control_scrape_interval_seconds";
    eventually("the bound", || (control.metric(interval)? == 0.15).then_some(()));
    assert_eq!(control.metric("inlane_control_scrape_backoffs_total"), Some(2.0));
    assert!(control.logged("scrape interval changed").is_some());
}

#[test]
fn a_proxy_that_refuses_the_configuration_is_reported() {
    let scene = Scene::new();
    scene.endpoints(&[]);
    let control = scene.start(&[]);
    let generation = scene.reader().config().unwrap().0;
    let proxy = Ledger::create(scene.segment(), 64).unwrap();
    proxy.refuse_config(generation, "not with me");
    let line = eventually("a log line", || control.logged("a proxy refuses the configuration"));
    assert_eq!((&line["level"], &line["reason"]), (&"error".into(), &"not with me".into()));
    assert_eq!(control.json("/readyz")["proxies"][0]["refusal"]["reason"], "not with me");
    assert_eq!(control.metric("inlane_control_proxies_behind"), Some(1.0));
    proxy.accept_config(generation);
    eventually("agreement", || {
        (control.metric("inlane_control_proxies_behind")? == 0.0).then_some(())
    });
}

#[test]
fn there_is_one_writer() {
    let scene = Scene::new();
    scene.endpoints(&[]);
    let first = scene.start(&[]);
    let mut second = scene.start(&[]);
    assert_eq!(second.wait().code(), Some(1));
    let error = second.logged("stopped").unwrap();
    assert!(error["error"].as_str().unwrap().contains("writer.lock"), "{error}");
    assert_eq!(first.get("/healthz").0, 200);
}

#[test]
fn a_command_line_that_cannot_work_is_refused() {
    let scene = Scene::new();
    let segment = scene.segment();
    assert_eq!(Control::start(&segment, &["--unheard-of"]).wait().code(), Some(2));
    let mut aimless = Control::start(&segment, &[]);
    assert_eq!(aimless.wait().code(), Some(1));
    assert!(aimless.log_text().contains("--endpoints-file"));
    let mut missing = scene.start(&[]);
    assert_eq!(missing.wait().code(), Some(1));
    scene.write("endpoints.yaml", "endpoints: [{name: a, address: host, port: '1'}]");
    let mut invalid = scene.start(&[]);
    assert_eq!(invalid.wait().code(), Some(1));
    assert!(invalid.log_text().contains("not an IPv4 address"));
}
