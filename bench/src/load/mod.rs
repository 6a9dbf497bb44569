//! Whole requests: a plain Envoy and one with the scheduler, in the same minute on the same pods.
//!
//! [`pods`] are small servers of a canned answer, [`wrk`] loads without pause, [`paced`] below
//! saturation; [`usage`] reads the kernel's accounts. [`cells`] alternates the proxies and records
//! rows, [`report`] makes the comparison of them, [`standing`] measures what costs without
//! requests: memory and scraping.

pub mod cells;
pub mod paced;
pub mod pods;
pub mod proxies;
pub mod report;
pub mod standing;
pub mod usage;
pub mod wrk;
