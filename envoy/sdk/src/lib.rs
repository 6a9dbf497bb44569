//! Rust SDK for Envoy dynamic modules, resolved at load.
