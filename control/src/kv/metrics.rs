//! The events' numbers: metrics under the names of the Go scheduler and our own, and a page.

use inlane_kv::{CacheKind, Mirror};
use serde_json::{Value, json};

use super::core::Table;
use super::publisher::Publisher;
use super::queue::Operation;
use super::{Guarded, KvEvents};
use crate::exposition::{Exposition, Kind};

use Kind::{Counter, Gauge};

/// Writes the families; without events only the one that says so.
pub(crate) fn write(out: &mut Exposition, events: Option<&KvEvents>) {
    let works = events.is_some_and(|events| !events.has_failed());
    let help = "1 while the index of cached blocks is kept.";
    out.single("inlane_control_kv_index", Gauge, help, f64::from(u8::from(works)));
    if let Some(events) = events {
        let guarded = events.lock();
        of_reference(out, events, &guarded);
        of_index(out, &guarded);
        of_publishers(out, &guarded);
        of_queue(out, events);
        if let Some(shared) = &events.shared {
            super::redis::write(out, shared, &guarded);
        }
    }
}

/// The families of the Go scheduler.
fn of_reference(out: &mut Exposition, events: &KvEvents, guarded: &Guarded) {
    let core = &guarded.core;
    let counters = core.applier().counters();
    for (name, help, value) in [
        (
            "suppressed",
            "Hashes removed that another block still backs.",
            counters.removals_suppressed,
        ),
        ("forwarded", "Hashes removed from the index.", counters.removals_forwarded),
    ] {
        let family = format!("events_dedup_removed_hashes_{name}_total");
        let (name, twin) = (format!("llm_d_epp_kv_cache_{family}"), format!("kvcache_kv{family}"));
        out.named_twins(&name, &twin, Counter, help);
        out.twin_values(&[], &[], value as f64);
    }
    let totals = core.pairs();
    for (name, help, value) in [
        ("admissions", "Request keys added to the index.", totals.stored),
        ("evictions", "Entries taken out of the index.", totals.removed),
    ] {
        let (name, twin) = (
            format!("llm_d_epp_kv_cache_index_{name}_total"),
            format!("kvcache_index_{name}_total"),
        );
        out.named_twins(&name, &twin, Counter, help);
        out.twin_values(&[], &[], value as f64);
    }
    let mut skipped = |what: &str, help: &str, list: Vec<(CacheKind, inlane_kv::Reason, u64)>| {
        out.family(&format!("llm_d_epp_kv_cache_events_{what}_skipped_total"), Counter, help);
        for (kind, reason, count) in list {
            let labels = [("cache_kind", kind.name()), ("reason", reason.name())];
            out.value(&labels, count as f64);
        }
    };
    skipped("stores", "Stores passed over.", counters.stores_skipped().collect());
    skipped("removals", "Removals passed over.", counters.removals_skipped().collect());

    let prefix = "llm_d_epp_kv_cache_events_";
    let subscribers = core.publishers().filter(|(_, p)| p.place.events.is_some()).count();
    let central = usize::from(events.settings().central.is_some());
    let help = "Subscribers, those that try to connect included.";
    out.single(&format!("{prefix}active_subscribers"), Gauge, help, (subscribers + central) as f64);
    let mut by_publisher = |name: &str, help: &str, value: fn(&Publisher) -> f64| {
        out.family(&format!("{prefix}{name}"), Counter, help);
        for (_, publisher) in core.publishers() {
            out.value(&[("pod_identifier", &publisher.who.endpoint)], value(publisher));
        }
    };
    by_publisher("subscriber_reconnections_total", "Connections after the first.", |p| {
        p.numbers.reconnections() as f64
    });
    by_publisher("messages_received_total", "Messages received.", |p| p.numbers.messages as f64);
    out.family(&format!("{prefix}zmq_errors_total"), Counter, "Failures of sockets and replays.");
    for (_, publisher) in core.publishers() {
        for operation in Operation::ALL {
            let Some(&count) = publisher.numbers.errors.get(&operation) else { continue };
            let endpoint = publisher.who.endpoint.as_str();
            let labels = [("pod_identifier", endpoint), ("operation", operation.name())];
            out.value(&labels, count as f64);
        }
    }
    let queue = events.queue.counters();
    let help = "Messages that wait to be applied.";
    out.single(&format!("{prefix}pool_queue_depth"), Gauge, help, queue.events as f64);
    let help = "Threads that apply messages.";
    out.single(&format!("{prefix}pool_capacity"), Gauge, help, 1.0);
}

fn of_index(out: &mut Exposition, guarded: &Guarded) {
    let core = &guarded.core;
    let Some(table) = core.table() else { return };
    let stats = table.stats();
    for (name, kind, help, value) in [
        ("blocks", Gauge, "Distinct blocks held.", table.blocks() as f64),
        ("held", Gauge, "Blocks held, counted for every holder.", table.total() as f64),
        (
            "room_blocks",
            Gauge,
            "Distinct blocks that there is room for.",
            table.spec().blocks as f64,
        ),
        ("bytes", Gauge, "Bytes in use, private state included.", table.bytes_in_use() as f64),
        ("refused_total", Counter, "Stores for which there was no room.", stats.refused as f64),
        ("resets_total", Counter, "Times that everything was forgotten.", core.resets() as f64),
    ] {
        out.single(&format!("inlane_control_kv_index_{name}"), kind, help, value);
    }
    out.family("inlane_control_kv_held_blocks", Gauge, "Blocks held by an endpoint.");
    for (_, publisher) in core.publishers() {
        let held = table.len(publisher.who.slot);
        out.value(&[("endpoint", &publisher.who.endpoint)], held as f64);
    }
}

fn of_publishers(out: &mut Exposition, guarded: &Guarded) {
    let core = &guarded.core;
    let totals = core.totals();
    let (running, waiting) = core.replays();
    for (name, kind, help, value) in [
        ("applied_total", Counter, "Messages applied.", totals.applied as f64),
        ("replays_total", Counter, "Replays asked for.", totals.replays as f64),
        ("undecodable_total", Counter, "Messages that are no batch.", totals.undecodable as f64),
        ("malformed_total", Counter, "Events that were dropped as wrong.", totals.malformed as f64),
        ("replays_running", Gauge, "Replays under way.", running as f64),
        ("replays_waiting", Gauge, "Replays that wait for their turn.", waiting as f64),
    ] {
        out.single(&format!("inlane_control_kv_{name}"), kind, help, value);
    }
    out.family(
        "inlane_control_kv_distrusted_total",
        Counter,
        "Times that what an endpoint held was not believed any more.",
    );
    for (reason, count) in
        [("gap", totals.gaps), ("restarted", totals.restarts), ("silent", totals.silences)]
    {
        out.value(&[("reason", reason)], count as f64);
    }
    out.family(
        "inlane_control_kv_connected",
        Gauge,
        "1 while an endpoint's publisher is connected.",
    );
    for (_, publisher) in core.publishers().filter(|(_, p)| p.place.events.is_some()) {
        let connected = f64::from(u8::from(publisher.connected));
        out.value(&[("endpoint", &publisher.who.endpoint)], connected);
    }
}

fn of_queue(out: &mut Exposition, events: &KvEvents) {
    let queue = events.queue.counters();
    let strays = *events.strays.lock();
    for (name, kind, help, value) in [
        ("queue_bytes", Gauge, "Bytes that wait to be applied.", queue.bytes as f64),
        ("queue_most_bytes", Gauge, "The most that ever waited.", queue.most_bytes as f64),
        (
            "dropped_total",
            Counter,
            "Messages dropped because too many waited.",
            queue.dropped as f64,
        ),
        ("frames_malformed_total", Counter, "Messages of other frames.", strays.malformed as f64),
        (
            "unknown_pod_total",
            Counter,
            "Messages whose topic names no endpoint.",
            strays.unknown as f64,
        ),
        (
            "foreign_pod_total",
            Counter,
            "Messages whose topic names another pod than the sender.",
            strays.foreign as f64,
        ),
    ] {
        out.single(&format!("inlane_control_kv_{name}"), kind, help, value);
    }
}

/// The state of every stream.
pub(crate) fn page(events: Option<&KvEvents>) -> Value {
    let Some(events) = events else { return json!({"enabled": false}) };
    let guarded = events.lock();
    let core = &guarded.core;
    let table = core.table();
    let publisher = |publisher: &Publisher| {
        let Publisher { who, place, follower, numbers, .. } = publisher;
        json!({
            "endpoint": who.endpoint,
            "slot": who.slot,
            "model": publisher.model.as_deref(),
            "events": place.events,
            "replays": place.replays,
            "topics": String::from_utf8_lossy(&place.filter),
            "connected": publisher.connected,
            "held": table.map(|table| table.len(who.slot)),
            "lent": table.is_some_and(|table| table.is_lent(who.slot)),
            "next_sequence": follower.next(),
            "replaying": follower.is_replaying(),
            "heard": follower.heard_live(),
            "silent_ms": follower.heard().elapsed().as_millis() as u64,
            "followed_ms": publisher.since.elapsed().as_millis() as u64,
            "messages": numbers.messages,
            "applied": numbers.applied,
            "undecodable": numbers.undecodable,
            "malformed": numbers.malformed,
            "gaps": numbers.gaps,
            "restarts": numbers.restarts,
            "silences": numbers.silences,
            "reconnections": numbers.reconnections(),
        })
    };
    json!({
        "enabled": true,
        "works": !events.has_failed(),
        "parameters": events.document(),
        "central": events.settings().central,
        "shared": events.shared.as_ref().map(|shared| super::redis::page(shared, &guarded)),
        "blocks": table.map(super::SegmentTable::blocks),
        "held": table.map(super::SegmentTable::total),
        "room_blocks": table.map(|table| table.spec().blocks),
        "slots": table.map(Table::slots),
        "publishers": core.publishers().map(|(_, p)| publisher(p)).collect::<Vec<_>>(),
    })
}
