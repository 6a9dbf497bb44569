//! Plugins of admission: detectors that say how full the pool is, and the policies of queues.
//!
//! Detectors work as filters today. Queues are not active yet: policies are checked while a
//! configuration is loaded, keep their parameters for whoever carries them out, and the load says
//! so when the `flowControl` gate is on.

pub mod concurrency_detector;
pub mod edf_ordering_policy;
pub mod fcfs_ordering_policy;
pub mod global_strict_fairness_policy;
pub mod priority_holdback_policy;
pub mod priority_then_time_eviction_order_policy;
pub mod program_aware_fairness;
pub mod round_robin_fairness_policy;
pub mod sheddable_eviction_filter;
pub mod slo_deadline_ordering_policy;
pub mod soft_reflective_ceiling_policy;
pub mod static_usage_limit_policy;
pub mod utilization_detector;
