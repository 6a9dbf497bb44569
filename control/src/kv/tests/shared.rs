//! With a real Redis.

use ::redis::{Cmd, Connection, FromRedisValue, cmd};

use self::server::Server;
use super::*;
use crate::kv::redis::Address;

#[allow(clippy::unwrap_used, reason = "what the tests of the process need too")]
#[path = "../../../tests/common/redis.rs"]
mod server;

/// Whether the keys of the prompt have exactly these fields each.
fn has(server: &Server, tokens: &[u32], fields: &[&str]) -> bool {
    let connection = &mut server.connect();
    keys(tokens).iter().all(|key| {
        let mut found: Vec<String> = ask(connection, cmd("HKEYS").arg(key));
        found.sort();
        found == fields
    })
}

fn ask<T: FromRedisValue>(connection: &mut Connection, command: &Cmd) -> T {
    command.query(connection).unwrap()
}

/// What the Go scheduler writes for a pod's block.
fn field(pod: &str, tier: &str) -> String {
    format!(
        r#"{{"PodIdentifier":"{pod}","DeviceTier":"{tier}","Speculative":false,"HasGroup":false,"GroupIdx":0}}"#
    )
}

/// Of the pod of a rank, in GPU memory.
fn plain(rank: u32) -> String {
    field(&format!("{ADDRESS}:{}", 8_000 + rank), "gpu")
}

/// A control plane at the server, and its index.
fn control(ports: Option<(u16, Option<u16>)>, url: &str) -> (KvEvents, MappedWords) {
    let words = words(SPEC);
    let redis = Some(Address::parse(url).unwrap());
    (start(KvSettings { redis, ..settings(ports) }, words.clone()), words)
}

fn page(events: &KvEvents) -> serde_json::Value {
    super::page(Some(events))["shared"].clone()
}

fn is_connected(events: &KvEvents) -> bool {
    page(events)["connected"] == true
}

fn wait_for_connection(events: &KvEvents, count: usize) {
    wait_until("connections of events", || connected(events) == count);
    wait_until("the server", || is_connected(events));
}

/// A control plane at the server, its index, and an engine with replays that it hears.
fn hearing(server: &Server) -> (KvEvents, MappedWords, Engine) {
    let base = free_ports();
    let (mut events, words) = control(Some((base, Some(base + 2))), &server.url());
    let engine = engine(base, true, 0);
    events.set_members([rank(0)].into_iter());
    wait_for_connection(&events, 1);
    (events, words, engine)
}

#[test]
fn blocks_lie_in_redis_as_the_go_scheduler_lays_them() {
    let server = Server::start();
    let (_events, words, mut engine) = hearing(&server);
    let tokens = prompt(1, 2);
    engine.publish(&store(&tokens));
    wait_until("the blocks", || has(&server, &tokens, &[&plain(0)]));

    let connection = &mut server.connect();
    let (keys, hashes) = (keys(&tokens), engine::engine_hashes(&tokens, None));
    for (key, hash) in keys.iter().zip(&hashes) {
        let fields: Vec<(String, String)> = ask(connection, cmd("HGETALL").arg(key.to_string()));
        let expected = "{\"PodIdentifier\":\"127.78.0.1:8000\",\"DeviceTier\":\"gpu\",\
                        \"Speculative\":false,\"HasGroup\":false,\"GroupIdx\":0}";
        assert_eq!(fields, [(expected.to_owned(), String::new())]);
        let name = format!("engine:{hash}");
        let mapped: Vec<(String, f64)> =
            ask(connection, cmd("ZRANGE").arg(name).arg("0").arg("-1").arg("WITHSCORES"));
        assert_eq!(mapped, [(key.to_string(), 0.0)]);
    }
    let size: u64 = ask(connection, &cmd("DBSIZE"));
    assert_eq!(size, 4, "and nothing else");
    let lasts: i64 = ask(connection, cmd("TTL").arg(keys[0].to_string()));
    assert_eq!(lasts, -1, "nothing expires");

    // The last block goes, with the name of its engine hash; then a block that somebody else has too.
    engine.publish(&[Event::Removed(&hashes[1..])]);
    wait_until("the removal", || ask::<u64>(connection, &cmd("DBSIZE")) == 2);
    let other = field("10.0.0.9:80", "cpu");
    let _: () = ask(connection, cmd("HSET").arg(keys[0]).arg(&other).arg(""));
    engine.publish(&[Event::Removed(&hashes[..1])]);
    wait_until("the removal", || has(&server, &tokens[..16], &[&other]));
    assert_eq!(ask::<u64>(connection, &cmd("DBSIZE")), 2, "its engine hash is still of use");
    assert_eq!(held(&words, &tokens), [0; 4]);
}

#[test]
fn two_control_planes_see_the_pods_of_each_other() {
    let server = Server::start();
    // Rank 0 speaks to the first of them only, rank 1 to the second.
    let base = free_ports();
    let (mut first, first_words) = control(Some((base, None)), &server.url());
    let (mut second, second_words) = control(Some((base + 2, None)), &server.url());
    let mut left = engine(base, false, 0);
    let mut right = engine(base + 2, false, 1);
    for events in [&mut first, &mut second] {
        events.set_members([rank(0), rank(1)].into_iter());
    }
    for events in [&first, &second] {
        wait_for_connection(events, 1);
        wait_until("to be told", || page(events)["told_of_changes"] == true);
    }
    let (one, two) = (prompt(1, 5), prompt(2, 3));
    until_heard(&first, &mut left);
    until_heard(&second, &mut right);
    left.publish(&store(&one));
    right.publish(&store(&two));
    for words in [&first_words, &second_words] {
        wait_until("blocks of rank 0", || held(words, &one) == [5, 0, 0, 0]);
        wait_until("blocks of rank 1", || held(words, &two) == [0, 3, 0, 0]);
    }
    assert_eq!(page(&first)["lent_blocks"], 4);

    // Removals and what is cleared come too.
    left.publish(&[Event::Removed(&engine::engine_hashes(&one, None)[3..])]);
    wait_until("the removal", || held(&second_words, &one) == [3, 0, 0, 0]);
    right.publish(&[Event::Cleared]);
    wait_until("the clearing", || held(&first_words, &two) == [0; 4]);
    assert_eq!(held(&first_words, &one), [3, 0, 0, 0]);

    // A pod that speaks at last is believed itself, and not what others said of it.
    drop(left);
    let mut left = engine(base + 2, false, 0);
    wait_until("the connection", || connected(&second) == 2);
    let three = prompt(3, 2);
    until_heard(&second, &mut left);
    left.publish(&store(&three));
    wait_until("its own blocks", || held(&second_words, &three) == [2, 0, 0, 0]);
    assert_eq!(held(&second_words, &one), [0; 4]);
}

/// Publishes a block until it was heard: a subscription may be on its way.
fn until_heard(events: &KvEvents, engine: &mut Engine) {
    let applied = || events.lock().core.totals().applied;
    let before = applied();
    wait_until("a message", || {
        engine.publish(&store(&prompt(99, 1)));
        std::thread::sleep(Duration::from_millis(20));
        applied() > before
    });
}

#[test]
fn without_the_server_the_local_index_goes_on_and_writes_all_of_it_later() {
    let mut server = Server::start();
    let (events, words, mut engine) = hearing(&server);
    let (one, two, three) = (prompt(1, 4), prompt(2, 4), prompt(3, 4));
    engine.publish(&store(&one));
    wait_until("the blocks", || has(&server, &one, &[&plain(0)]));

    server.kill();
    engine.publish(&store(&two));
    engine.publish(&[Event::Removed(&engine::engine_hashes(&one, None)[2..])]);
    wait_until("the loss", || !is_connected(&events));
    wait_until("what came meanwhile", || held(&words, &two)[0] == 4 && held(&words, &one)[0] == 2);
    let text = page(&events)["error"].as_str().unwrap().to_owned();
    assert!(!text.is_empty());

    // It comes back with what it had, which is not true any more.
    server.restart("");
    let connection = &mut server.connect();
    for key in keys(&one) {
        let _: () = ask(connection, cmd("HSET").arg(key).arg(plain(0)).arg(""));
    }
    engine.publish(&store(&three));
    for tokens in [&two, &three, &one[..32].to_vec()] {
        wait_until("all of it", || has(&server, tokens, &[&plain(0)]));
    }
    wait_until("what is gone", || {
        keys(&one)[2..].iter().all(|key| !ask::<bool>(connection, cmd("EXISTS").arg(key)))
    });
    for (key, hash) in keys(&two).iter().zip(engine::engine_hashes(&two, None)) {
        let name = format!("engine:{hash}");
        let mapped: Vec<(String, f64)> =
            ask(connection, cmd("ZRANGE").arg(name).arg("0").arg("-1").arg("WITHSCORES"));
        assert_eq!(mapped, [(key.to_string(), 0.0)], "what its engine calls a block");
    }
    assert!(is_connected(&events));
    assert_eq!(page(&events)["connections"], 2);
    let mut out = crate::exposition::Exposition::default();
    write_metrics(&mut out, Some(&events));
    let text = out.finish();
    assert!(text.contains("inlane_control_kv_shared_connected 1\n"), "{text}");
}

#[test]
fn entries_of_the_go_scheduler_are_read() {
    let server = Server::start();
    let connection = &mut server.connect();
    let tokens = prompt(1, 4);
    let pod = |rank: u32| format!("{ADDRESS}:{}", 8_000 + rank);
    for (at, key) in keys(&tokens).into_iter().enumerate() {
        let mut put = |field: &str| {
            let _: () = ask(connection, cmd("HSET").arg(key.to_string()).arg(field).arg(""));
        };
        put(&field(&pod(0), "gpu"));
        if at < 3 {
            put(&field(&pod(1), "cpu"));
            put(&field(&pod(1), "storage"));
        }
        // Of a model with several groups, and twice.
        for group in 0..2 {
            put(&field(&pod(2), "gpu")
                .replace(r#"false,"GroupIdx":0"#, &format!(r#"true,"GroupIdx":{group}"#)));
        }
        put(&field(&pod(3), "").replace(r#""Speculative":false"#, r#""Speculative":true"#));
        put(&field("10.9.9.9:80", "gpu"));
        put("10.9.9.9:80@gpu");
    }
    for (name, hash) in [("engine:5", "6"), ("engine:7", "x")] {
        let _: () = ask(connection, cmd("ZADD").arg(name).arg("0").arg(hash));
    }
    let _: () = ask(connection, cmd("SET").arg("17").arg("something else"));

    let (mut events, words) = control(None, &server.url());
    events.set_members((0..4).map(rank));
    wait_until("the entries", || held(&words, &tokens) == [4, 0, 4, 0]);
    let reader = MirrorReader::open(words).unwrap();
    let count = |tier| {
        let mut out = vec![0; 4];
        reader.longest_prefix(tier, &keys(&tokens), &mut out);
        out
    };
    assert_eq!((count(1), count(2)), (vec![0, 3, 0, 0], vec![0, 3, 0, 0]));
    assert_eq!(events.next_document().unwrap().tiers, ["gpu", "cpu", "storage"]);

    // A block that goes while nobody says so, and the others of its pod.
    let _: () = ask(connection, cmd("HDEL").arg(keys(&tokens)[1]).arg(field(&pod(0), "gpu")));
    wait_until("the removal", || {
        let mut out = vec![0; 4];
        reader.longest_prefix(0, &keys(&tokens), &mut out);
        out == [1, 0, 4, 0]
    });
    let _: () = ask(connection, &cmd("FLUSHALL"));
    wait_until("the end", || (0..4).all(|slot| reader.len(slot) == 0));
}

#[test]
fn leftovers_of_an_own_pod_go_and_those_of_others_stay() {
    let server = Server::start();
    let connection = &mut server.connect();
    let base = free_ports();
    let old = prompt(9, 3);
    let grouped = plain(0).replace(r#"false,"GroupIdx":0"#, r#"true,"GroupIdx":1"#);
    let other = field("10.9.9.9:80", "gpu");
    for key in keys(&old) {
        for field in [&plain(0), &grouped, &other] {
            let _: () = ask(connection, cmd("HSET").arg(key).arg(field).arg(""));
        }
    }
    let (mut events, words) = control(Some((base, Some(base + 2))), &server.url());
    let mut engine = engine(base, true, 0);
    events.set_members([rank(0)].into_iter());
    wait_for_connection(&events, 1);
    let tokens = prompt(1, 3);
    engine.publish(&store(&tokens));
    wait_until("its own blocks", || held(&words, &tokens)[0] == 3);
    // What is written as here is ours; a Go scheduler may know of groups.
    let (mut left, mut cleared) = ([grouped.as_str(), other.as_str()], [other.as_str()]);
    left.sort_unstable();
    cleared.sort_unstable();
    wait_until("the leftovers", || has(&server, &old, &left));
    assert!(has(&server, &tokens, &[&plain(0)]));

    // Whoever clears a pod clears all of it.
    engine.publish(&[Event::Cleared]);
    wait_until("the clearing", || has(&server, &old, &cleared) && has(&server, &tokens, &[]));
    engine.publish(&store(&tokens));
    wait_until("its own blocks again", || has(&server, &tokens, &[&plain(0)]));
    events.set_members(std::iter::empty());
    wait_until("the pod that left", || has(&server, &tokens, &[]));
    assert!(has(&server, &old, &cleared));
    wait_until("names of engine hashes", || ask::<u64>(connection, &cmd("DBSIZE")) == 3);
}

#[test]
fn changes_that_were_lost_are_made_up_for() {
    let server = Server::start();
    let (events, words, mut engine) = hearing(&server);
    let (one, two) = (prompt(1, 4), prompt(2, 4));
    engine.publish(&store(&one));
    wait_until("the blocks", || has(&server, &one, &[&plain(0)]));
    for _ in 0..3 {
        events.shared.as_ref().unwrap().lose_changes();
        engine.publish(&store(&two));
        let hashes = engine::engine_hashes(&one, None);
        engine.publish(&[Event::Removed(&hashes)]);
        wait_until("the events", || held(&words, &two)[0] == 4 && held(&words, &one)[0] == 0);
        wait_until("the server", || has(&server, &one, &[]) && has(&server, &two, &[&plain(0)]));
        engine.publish(&store(&one));
        engine.publish(&[Event::Removed(&engine::engine_hashes(&two, None))]);
        wait_until("the server", || has(&server, &two, &[]) && has(&server, &one, &[&plain(0)]));
    }
}

#[test]
fn a_server_that_says_nothing_of_changes_is_asked() {
    let mut server = Server::start();
    server.restart("rename-command HELLO \"\"");
    let (mut events, words) = control(None, &server.url());
    events.set_members([rank(0)].into_iter());
    wait_until("a pass", || page(&events)["passes"].as_u64().unwrap() > 0);
    assert_eq!(page(&events)["told_of_changes"], false);
    let tokens = prompt(1, 2);
    let connection = &mut server.connect();
    for key in keys(&tokens) {
        let _: () = ask(connection, cmd("HSET").arg(key).arg(plain(0)).arg(""));
    }
    wait_until("the next pass", || held(&words, &tokens)[0] == 2);
    for key in keys(&tokens) {
        let _: () = ask(connection, cmd("DEL").arg(key));
    }
    wait_until("the one after", || held(&words, &tokens)[0] == 0);
}

#[test]
fn what_was_lent_is_no_concern_of_a_successor() {
    let server = Server::start();
    let connection = &mut server.connect();
    let tokens = prompt(1, 3);
    for key in keys(&tokens) {
        let _: () = ask(connection, cmd("HSET").arg(key).arg(plain(0)).arg(""));
    }
    let words = words(SPEC);
    let redis = Some(Address::parse(&server.url()).unwrap());
    let settings = KvSettings { redis, ..settings(None) };
    let options = Options { ttl: Duration::from_secs(60), ask: Ask::Never };
    let document = settings.keys.document(vec!["gpu".into(), "cpu".into()]);
    for _ in 0..2 {
        let mut events =
            KvEvents::start(settings.clone(), options, words.clone(), SPEC, Some(&document));
        let events = events.as_mut().unwrap();
        events.set_members([rank(0)].into_iter());
        wait_until("the entries", || page(events)["lent_blocks"] == 3);
        assert!(has(&server, &tokens, &[&plain(0)]), "nothing is taken out");

        // To a larger table, which is empty at first, and back.
        let mut mover = events.mover();
        let wide = MirrorSpec { slots: 64, ..SPEC };
        for spec in [wide, SPEC] {
            let larger = super::words(spec);
            mover.park();
            let into = if spec == SPEC { words.clone() } else { larger };
            mover.resume(into.clone(), spec).unwrap();
            wait_until("the entries", || held(&into, &tokens)[0] == 3);
        }
        assert!(has(&server, &tokens, &[&plain(0)]), "nothing is taken out");
    }
}

#[test]
fn who_knows_a_part_takes_nothing_from_who_knows_all() {
    let server = Server::start();
    let base = free_ports();
    let (mut first, _first_words) = control(Some((base, None)), &server.url());
    let mut engine = engine(base, false, 0);
    first.set_members([rank(0)].into_iter());
    wait_for_connection(&first, 1);
    until_heard(&first, &mut engine);
    let (early, late) = (prompt(1, 3), prompt(2, 3));
    engine.publish(&store(&early));
    wait_until("the blocks", || has(&server, &early, &[&plain(0)]));

    // One that comes in the middle, without a replay.
    let (mut second, second_words) = control(Some((base, None)), &server.url());
    second.set_members([rank(0)].into_iter());
    wait_for_connection(&second, 1);
    wait_until("what others know", || held(&second_words, &early)[0] == 3);
    until_heard(&second, &mut engine);
    engine.publish(&store(&late));
    wait_until("its own", || held(&second_words, &late)[0] == 3);
    let passes = || page(&second)["passes"].as_u64().unwrap();
    let before = passes();
    wait_until("a pass", || passes() > before || page(&second)["lent_blocks"] == 0);
    assert_eq!(held(&second_words, &early)[0], 0);
    assert!(has(&server, &early, &[&plain(0)]) && has(&server, &late, &[&plain(0)]));
}

#[test]
fn a_server_that_refuses_counts_as_lost() {
    let mut server = Server::start();
    for (line, text) in
        [("requirepass secret", "NOAUTH"), ("replicaof 127.0.0.1 1", "read only replica")]
    {
        server.restart(line);
        let (events, _words) = control(None, &server.url());
        wait_until("a refusal", || {
            page(&events)["error"].as_str().is_some_and(|error| error.contains(text))
        });
        assert!(!is_connected(&events), "{line}");
    }
    server.restart("requirepass secret");
    let (events, _words) = control(None, &format!("{}?pass=secret", server.url()));
    wait_until("the server", || is_connected(&events));
}

#[test]
fn a_server_that_hangs_holds_nobody_up() {
    let server = Server::start();
    let (events, words, mut engine) = hearing(&server);
    server.hang();
    let (one, two) = (prompt(1, 4), prompt(2, 4));
    engine.publish(&store(&one));
    wait_until("the blocks", || held(&words, &one)[0] == 4);
    wait_until("the loss", || !is_connected(&events));
    engine.publish(&store(&two));
    wait_until("the blocks", || held(&words, &two)[0] == 4);
    server.go_on();
    for tokens in [&one, &two] {
        wait_until("all of it", || has(&server, tokens, &[&plain(0)]));
    }
    server.hang();
    drop(events);
    server.go_on();
}

/// Prints what it costs. `cargo test --release -p inlane-control --lib -- --ignored measured`
#[test]
#[ignore = "a measurement"]
fn measured() {
    const BLOCKS: u32 = 200_000;
    const CHAIN: usize = 400;
    let spec = MirrorSpec { slots: 16, blocks: 400_000, pages: 64 };
    let server = Server::start();
    let base = free_ports();
    let control = |ports| {
        let words = words(spec);
        let redis = Some(Address::parse(&server.url()).unwrap());
        let settings = KvSettings { redis, ..settings(ports) };
        let options = Options { ttl: Duration::from_secs(600), ask: Ask::Never };
        (KvEvents::start(settings, options, words.clone(), spec, None).unwrap(), words)
    };
    let (mut writer, _writer_words) = control(Some((base, None)));
    let mut engine = engine(base, false, 0);
    writer.set_members([rank(0)].into_iter());
    wait_for_connection(&writer, 1);
    until_heard(&writer, &mut engine);
    let chains = BLOCKS / CHAIN as u32;
    let payloads: Vec<Vec<u8>> =
        (0..chains).map(|at| engine::batch(&store(&prompt(1_000 + at, CHAIN)))).collect();
    let connection = &mut server.connect();
    let memory = |connection: &mut Connection| -> u64 {
        let text: String = ask(connection, cmd("INFO").arg("memory"));
        let line = text.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.trim().parse().unwrap()
    };
    let empty = memory(connection);
    let began = Instant::now();
    for payload in &payloads {
        engine.publish_encoded(payload);
    }
    let count = u64::from(BLOCKS);
    wait_until("all of it", || {
        std::thread::sleep(Duration::from_millis(5));
        ask::<u64>(connection, &cmd("DBSIZE")) >= 2 * count
    });
    let taken = began.elapsed();
    println!("written: {:.0} blocks/s", count as f64 / taken.as_secs_f64());
    println!("memory: {} bytes per block", (memory(connection) - empty) / count);

    let (mut reader, words) = control(None);
    let began = Instant::now();
    reader.set_members([rank(0)].into_iter());
    wait_until("all of it", || page(&reader)["passes"].as_u64().unwrap() > 0);
    println!("first pass: {:.0} keys/s", count as f64 / began.elapsed().as_secs_f64());
    assert!(page(&reader)["lent_blocks"].as_u64().unwrap() >= count);

    let mut times = Vec::new();
    for at in 0..500 {
        let tokens = prompt(9_000_000 + at, 4);
        let began = Instant::now();
        engine.publish(&store(&tokens));
        while held(&words, &tokens)[0] < 4 {
            std::thread::sleep(Duration::from_micros(200));
        }
        times.push(began.elapsed());
    }
    times.sort();
    println!("engine to the other's table: p50 {:?}, p99 {:?}", times[250], times[495]);

    let began = Instant::now();
    writer.shared.as_ref().unwrap().lose_changes();
    let before = page(&writer)["passes"].as_u64().unwrap();
    wait_until("a pass", || page(&writer)["passes"].as_u64().unwrap() > before);
    println!("all written anew and compared: {:?}", began.elapsed());
}
