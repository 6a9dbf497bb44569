//! The shared index's numbers.

use serde_json::{Value, json};

use super::super::{Guarded, SegmentTable};
use super::Shared;
use crate::exposition::{
    Exposition,
    Kind::{Counter, Gauge},
};

/// Writes the families.
pub(crate) fn write(out: &mut Exposition, shared: &Shared, guarded: &Guarded) {
    let status = shared.status.lock().clone();
    let (waiting, dropped) = shared.outbox.counts();
    for (name, kind, help, value) in [
        (
            "connected",
            Gauge,
            "1 while the server of the shared index answers.",
            f64::from(u8::from(status.is_connected)),
        ),
        ("connections_total", Counter, "Connections made.", status.connections as f64),
        ("waiting_blocks", Gauge, "Changes that wait to be written.", waiting as f64),
        ("dropped_total", Counter, "Changes dropped because too many waited.", dropped as f64),
        ("written_total", Counter, "Entries written.", status.written as f64),
        ("removed_total", Counter, "Entries taken out.", status.removed as f64),
        ("refused_total", Counter, "Commands that the server refused.", status.refused as f64),
        ("passes_total", Counter, "Times that all keys were read.", status.passes as f64),
        ("keys_read_total", Counter, "Keys read.", status.keys_read as f64),
        ("no_room_total", Counter, "Blocks of others without room here.", status.no_room as f64),
        ("lent_blocks", Gauge, "Blocks held that others have told of.", lent(guarded) as f64),
    ] {
        out.single(&format!("inlane_control_kv_shared_{name}"), kind, help, value);
    }
}

/// How it goes.
pub(crate) fn page(shared: &Shared, guarded: &Guarded) -> Value {
    let status = shared.status.lock().clone();
    let (waiting, dropped) = shared.outbox.counts();
    json!({
        "server": shared.address.shown(),
        "connected": status.is_connected,
        "error": status.error,
        "connections": status.connections,
        "waiting_blocks": waiting,
        "dropped": dropped,
        "written": status.written,
        "removed": status.removed,
        "refused": status.refused,
        "passes": status.passes,
        "pass_keys": status.pass_keys,
        "pass_ms": status.pass_time.as_millis() as u64,
        "keys_read": status.keys_read,
        "no_room": status.no_room,
        "lent_blocks": lent(guarded),
        "told_of_changes": status.is_told,
    })
}

fn lent(guarded: &Guarded) -> usize {
    guarded.core.table().map_or(0, SegmentTable::lent_blocks)
}
