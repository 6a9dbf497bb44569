//! The plugins of llm-d's own inference scheduler, as opposed to those that came with the gateway
//! API's endpoint picker.

pub mod active_request_scorer;
pub mod by_label;
pub mod label_selector_filter;
pub mod load_aware_scorer;
pub mod role_filters;
