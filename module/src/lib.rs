//! The Envoy dynamic module: HTTP filters, admin, cluster.
