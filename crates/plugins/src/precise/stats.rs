//! What is counted about lookups. Workers add, an exporter reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use inlane_core::exposition::Exposition;

/// Numbers about the lookups of one producer.
#[derive(Debug, Default)]
pub(super) struct LookupStats {
    /// Requests that were looked up.
    requests: AtomicU64,
    /// Blocks of the longest chain that any one endpoint had, over all requests.
    hits: AtomicU64,
    /// Requests with whole blocks of which no endpoint had any.
    misses: AtomicU64,
}

impl LookupStats {
    /// Counts a request whose blocks some endpoint had `longest` of.
    pub(super) fn count(&self, longest: u32) {
        self.requests.fetch_add(1, Relaxed);
        self.hits.fetch_add(u64::from(longest), Relaxed);
        self.misses.fetch_add(u64::from(longest == 0), Relaxed);
    }

    /// Adds the families of the reference, under both of their names.
    pub(super) fn collect(&self, page: &mut Exposition) {
        let hits = self.hits.load(Relaxed) as f64;
        for (name, help, value) in [
            ("lookup_requests_total", "Lookups in the index.", self.requests.load(Relaxed) as f64),
            ("lookup_hits_total", "Blocks of the longest chain of one pod, per lookup.", hits),
            (
                "max_pod_hit_count_total",
                "Blocks of the longest chain of one pod, per lookup.",
                hits,
            ),
        ] {
            let current = format!("llm_d_epp_kv_cache_index_{name}");
            page.counter(&current, &format!("[ALPHA] {help}"), &[], value);
            let old = format!("[ALPHA] [Deprecated: Use {current}] {help}");
            page.counter(&format!("kvcache_index_{name}"), &old, &[], value);
        }
    }

    /// Requests that were looked up, and those of them of which no endpoint had any block.
    pub(super) fn misses(&self) -> (u64, u64) {
        (self.requests.load(Relaxed), self.misses.load(Relaxed))
    }
}
