//! The scenes of the demonstration, one function each.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde_json::Value;

use super::load;
use super::print::Printer;
use crate::lab::Lab;

fn check(holds: bool, what: impl Into<String>) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(what.into())) }
}

/// What has been started.
pub(super) fn introduce(lab: &Lab, printer: &Printer) -> io::Result<()> {
    let pool = lab.pool()?;
    let (control, envoy) = (lab.control.as_ref(), lab.envoy.as_ref());
    let pid = |p: Option<&crate::lab::Process>| p.map_or(0, crate::lab::Process::pid).to_string();
    let mut rows = vec![["part", "pid", "where"].map(String::from).to_vec()];
    for pod in &lab.pods {
        let place = format!("http://127.0.0.1:{}", pod.port);
        rows.push(vec![format!("inlane-sim {}", pod.name), pid(pod.process.as_ref()), place]);
    }
    let segment = lab.segment_dir.display().to_string();
    rows.push(vec!["inlane-control".into(), pid(control), segment]);
    let place = format!("http://127.0.0.1:{}  ({} workers)", lab.port, lab.plan.concurrency);
    rows.push(vec![format!("envoy {} + libinlane.so", lab.plan.envoy), pid(envoy), place]);
    printer.table(&rows);
    printer.note(&format!(
        "pool {}/{}, topology generation {}, configuration generation {}",
        text(&pool["pool"]["namespace"]),
        text(&pool["pool"]["name"]),
        pool["topology_generation"],
        pool["config_generation"],
    ));
    Ok(())
}

/// Prefix-cache skew: the same long prompt eight times.
pub(super) fn prefix_skew(lab: &mut Lab, printer: &Printer) -> io::Result<()> {
    printer.section("1. The same prompt eight times: the pod that has it in its cache wins");
    printer.note(
        "profile: decode-filter, load-aware-scorer x1, prefix-cache-scorer x2, \
         kv-cache-utilization-scorer x1, max-score-picker",
    );
    let prompt = format!("verify-prefix-test-{}", "x".repeat(5_000));
    let mut rows =
        vec![["request", "pod", "load", "prefix", "kv", "total"].map(String::from).to_vec()];
    let mut first = String::new();
    let mut warm = 0;
    for n in 1..=8 {
        settle(lab)?;
        let id = format!("skew-{n}");
        let answer = lab.client().complete(&id, &prompt, 32)?;
        check(answer.status == 200, format!("{id}: status {}: {}", answer.status, answer.text()))?;
        let decision = lab.decision(&id)?;
        let picked = text(&decision["endpoint"]);
        let served = answer.pod().to_owned();
        check(
            picked.ends_with(&served),
            format!("{id}: decided for {picked}, served by {served}"),
        )?;
        if n == 1 {
            first.clone_from(&picked);
        } else if picked == first {
            warm += 1;
        }
        for endpoint in endpoints(&decision) {
            let name = text(&endpoint["endpoint"]);
            let scores = &endpoint["scores"];
            let (prefix, total) = (&scores["prefix-cache-scorer"], &endpoint["total"]);
            let hit = n > 1 && name == first;
            let expected = if hit { (1.0, 3.5) } else { (0.0, 1.5) };
            check(
                close(prefix, expected.0) && close(total, expected.1),
                format!(
                    "{id} {name}: prefix {prefix} and total {total}, expected {} and {}",
                    expected.0, expected.1
                ),
            )?;
            let mark = if name == picked { "*" } else { " " };
            rows.push(vec![
                format!("{mark}{n}{}", if n == 1 { " cold" } else { " warm" }),
                name,
                score(&scores["load-aware-scorer"]),
                score(prefix),
                score(&scores["kv-cache-utilization-scorer"]),
                score(total),
            ]);
        }
    }
    printer.table(&rows);
    check(warm == 7, format!("{warm} of 7 warm requests went to {first}"))?;
    printer.success(&format!("cold 1.500 everywhere; 7 of 7 warm requests on {first} with 3.500"));
    Ok(())
}

/// Waits until no pod has queue or cache use left, so that scores are those of an idle pool.
fn settle(lab: &Lab) -> io::Result<()> {
    lab.wait_until("the pool to be idle", Duration::from_secs(5), || {
        lab.pool().is_ok_and(|pool| {
            pool["endpoints"].as_array().is_some_and(|endpoints| {
                endpoints.iter().all(|e| {
                    ["waiting", "running", "in_flight_requests"].iter().all(|k| e[*k] == 0)
                        && e["kv_usage"] == 0.0
                })
            })
        })
    })
}

/// One streamed chat completion.
pub(super) fn streamed_chat(lab: &mut Lab, printer: &Printer) -> io::Result<()> {
    printer.section("2. A streamed chat completion");
    let body = serde_json::json!({
        "model": "random", "stream": true, "max_tokens": 16,
        "stream_options": {"include_usage": true},
        "messages": [
            {"role": "system", "content": "You are a lighthouse keeper."},
            {"role": "user", "content": "What did you see tonight?"},
        ],
    });
    let headers = [("x-request-id", "chat-1")];
    let body = body.to_string();
    let answer = lab.client().post("/v1/chat/completions", &headers, body.as_bytes())?;
    check(answer.status == 200, format!("status {}: {}", answer.status, answer.text()))?;
    let stream = answer.text();
    let events: Vec<Value> = stream
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    let words: String = events.iter().map(|e| text(&e["choices"][0]["delta"]["content"])).collect();
    check(stream.ends_with("data: [DONE]\n\n"), "the stream has no end")?;
    check(!words.is_empty(), "the stream has no content")?;
    let decision = lab.decision("chat-1")?;
    printer.note(&format!("{} events from {}: {:?}", events.len(), answer.pod(), words.trim()));
    printer.success(&format!("decided in {} µs", decision["duration_us"]));
    Ok(())
}

/// A pod dies under load.
pub(super) fn pod_killed(lab: &mut Lab, printer: &Printer) -> io::Result<()> {
    printer.section("3. A pod is killed under load");
    let victim = lab.pods[0].name.clone();
    let outcome = load::run(lab, "kill-pod", Duration::from_secs(4), |lab| {
        if let Some(process) = lab.pods[0].process.take() {
            process.kill();
        }
        Ok(())
    })?;
    report(&outcome, printer);
    for (id, pod) in &outcome.broken {
        check(*pod == victim, format!("stream {id} of {pod} broke, but {victim} was killed"))?;
        printer.note(&format!("past its first byte on {pod} when it died: {id}"));
    }
    check(outcome.failed.is_empty(), format!("failed requests: {:?}", outcome.failed))?;
    printer.success(&format!(
        "{victim} killed; no failed request, {} streams cut after their first byte",
        outcome.broken.len()
    ));
    lab.revive_pod(0)
}

/// The control plane dies under load and comes back.
pub(super) fn control_plane_killed(lab: &mut Lab, printer: &Printer) -> io::Result<()> {
    printer.section("4. The control plane is killed under load (kill -9), and started again");
    let before = lab.pool()?;
    let outcome = load::run(lab, "kill-control", Duration::from_secs(4), |lab| {
        if let Some(process) = lab.control.take() {
            process.kill();
        }
        std::thread::sleep(Duration::from_secs(1));
        lab.start_control()
    })?;
    report(&outcome, printer);
    check(outcome.failed.is_empty(), format!("failed requests: {:?}", outcome.failed))?;
    check(outcome.broken.is_empty(), format!("broken streams: {:?}", outcome.broken))?;
    let slots = |pool: &Value| -> BTreeMap<String, (Value, Value)> {
        let endpoints = pool["endpoints"].as_array().cloned().unwrap_or_default();
        let slot = |e: &Value| (e["slot"].clone(), e["slot_generation"].clone());
        endpoints.iter().map(|e| (text(&e["id"]), slot(e))).collect()
    };
    let after = lab.pool()?;
    check(slots(&before) == slots(&after), "the restart moved endpoints to other slots")?;
    printer.success("no failed request; the restarted control plane went on from the segment");
    Ok(())
}

fn report(outcome: &load::Outcome, printer: &Printer) {
    let mut rows = vec![["pod", "served"].map(String::from).to_vec()];
    rows.extend(outcome.served.iter().map(|(pod, n)| vec![pod.clone(), n.to_string()]));
    printer.table(&rows);
    printer.note(&format!("{} requests", outcome.total()));
}

/// Where all requests of the demonstration went.
pub(super) fn where_requests_went(lab: &Lab, printer: &Printer) -> io::Result<()> {
    printer.section("Where the requests went (llm_d_epp_scheduler_attempts_total)");
    let metrics = lab.admin().get("/metrics")?.text();
    let mut rows = vec![["endpoint", "decisions", "now in flight"].map(String::from).to_vec()];
    let pool = lab.pool()?;
    for endpoint in pool["endpoints"].as_array().into_iter().flatten() {
        let name = text(&endpoint["name"]);
        let count: f64 = metrics
            .lines()
            .filter(|l| l.starts_with("llm_d_epp_scheduler_attempts_total{"))
            .filter(|l| l.contains(&format!("endpoint_name=\"{name}\"")))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        rows.push(vec![name, count.to_string(), endpoint["in_flight_requests"].to_string()]);
    }
    printer.table(&rows);
    let ledger = &pool["ledger"];
    printer.note(&format!(
        "claims taken {}, released {}, booking conflicts {}",
        ledger["claims_taken"], ledger["claims_released"], ledger["conflicts"]
    ));
    check(
        ledger["claims_taken"] == ledger["claims_released"],
        format!("claims are left over: {ledger}"),
    )
}

/// What to do with a lab that stays.
pub(super) fn what_to_try(lab: &Lab, printer: &Printer) {
    printer.section("Left running. Try:");
    let (port, admin) = (lab.port, lab.admin_port);
    printer.note(&format!(
        "curl -s 127.0.0.1:{port}/v1/completions -d \
         '{{\"model\":\"random\",\"prompt\":\"hello\",\"max_tokens\":8}}'"
    ));
    printer.note(&format!("curl -s 127.0.0.1:{admin}/debug/decisions"));
    printer.note(&format!("curl -s 127.0.0.1:{admin}/debug/pool"));
    printer.note(&format!("curl -s 127.0.0.1:{admin}/metrics"));
    printer.note(&format!("edit {}   (it is reloaded at once)", lab.config_file().display()));
    let processes = lab.pods.iter().filter_map(|pod| pod.process.as_ref());
    let processes = processes.chain(lab.control.as_ref()).chain(lab.envoy.as_ref());
    let pids: Vec<String> = processes.map(|p| p.pid().to_string()).collect();
    printer.note(&format!(
        "to end it: kill {}; rm -r {} {}",
        pids.join(" "),
        lab.dir.display(),
        lab.segment_dir.display()
    ));
}

fn endpoints(decision: &Value) -> Vec<Value> {
    decision["profiles"][0]["endpoints"].as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn score(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |score| format!("{score:.3}"))
}

fn close(value: &Value, expected: f64) -> bool {
    value.as_f64().is_some_and(|value| (value - expected).abs() <= 0.001)
}
