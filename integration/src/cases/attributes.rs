//! Comparing the attributes that a producer wrote with those expected.

use inlane_core::columns::{
    Attribute, Columns, EncoderMatch, LatencyInfo, PrefixMatch, UncachedTokens,
};
use inlane_core::endpoint::EndpointIx;
use inlane_core::registry::Schema;
use serde_json::{Value, json};

use super::check::{Checks, tolerance};
use super::pool::Pool;

/// What a producer wrote, of every endpoint.
pub(super) struct Written<'a> {
    pub(super) schema: &'a Schema,
    pub(super) columns: &'a Columns,
    pub(super) pool: &'a Pool,
    /// Name of the producer.
    pub(super) producer: &'a str,
}

impl Written<'_> {
    /// What was written for one endpoint.
    pub(super) fn value<T: Attribute>(&self, ix: EndpointIx) -> Option<T> {
        let col = self.schema.find::<T>(self.producer)?;
        self.columns.get(col).get(ix as usize).copied().flatten()
    }

    /// Compares all attributes that `expect` speaks of.
    pub(super) fn check(&self, expect: &Value, checks: &mut Checks) {
        self.each(expect, "prefix", checks, |found: PrefixMatch| {
            json!({
                "match_blocks": found.match_blocks,
                "total_blocks": found.total_blocks,
                "block_size_tokens": found.block_size_tokens,
                "cached_blocks": found.cached_blocks,
            })
        });
        self.each(expect, "uncached_request_tokens", checks, |found: UncachedTokens| {
            json!(found.0)
        });
        self.each(
            expect,
            "mm",
            checks,
            |found: EncoderMatch| json!({"matched": found.matched, "requested": found.requested}),
        );
        self.each(expect, "latency", checks, |found: LatencyInfo| {
            json!({
                "ttft_valid": found.ttft_valid,
                "tpot_valid": found.tpot_valid,
                "ttft_headroom": found.ttft_headroom,
                "tpot_headroom": found.tpot_headroom,
                "ttft": found.ttft,
                "tpot": found.tpot,
                "dispatched_requests": found.dispatched,
            })
        });
    }

    /// Compares one attribute: the same endpoints, and of each the fields that are listed.
    fn each<T: Attribute>(
        &self,
        expect: &Value,
        what: &str,
        checks: &mut Checks,
        show: impl Fn(T) -> Value,
    ) {
        let Some(expected) = expect[what].as_object() else { return };
        for id in expected.keys() {
            if let Err(error) = self.pool.ix(id) {
                checks.problem(error);
            }
        }
        for ix in (0..).take(self.pool.endpoints.len()) {
            let id = self.pool.name(ix);
            let expected = expected.get(id).filter(|e| !e.is_null());
            let got = self.value::<T>(ix).map(&show);
            one(checks, &format!("{what}.{id}"), expected, got.as_ref(), tolerance(expect));
        }
    }
}

fn one(
    checks: &mut Checks,
    what: &str,
    expected: Option<&Value>,
    got: Option<&Value>,
    tolerance: f64,
) {
    match (expected, got) {
        (None, None) => {}
        (Some(expected), Some(got)) => match expected.as_object() {
            None => checks.equal(what, expected, got),
            Some(fields) => {
                for (field, expected) in fields {
                    let what = format!("{what}.{field}");
                    match (expected.as_f64(), got[field].as_f64()) {
                        (Some(a), Some(b)) => checks.close(&what, a, b, tolerance),
                        _ => checks.equal(&what, expected, &got[field]),
                    }
                }
            }
        },
        (expected, got) => {
            let show = |v: Option<&Value>| v.map_or("nothing".into(), Value::to_string);
            checks.problem(format!("{what}: expected {}, got {}", show(expected), show(got)));
        }
    }
}
