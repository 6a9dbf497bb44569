//! What integration tests share: configurations, load, and the check after every scenario.
//!
//! A scenario starts a [`Lab`] of real parts and ends with [`Scenario::end`], which asserts that
//! every ledger cell is zero and that as many claims were released as were taken.

pub mod config;
pub mod exposition;
pub mod front;
pub mod load;
pub mod ordinary;
pub mod pods;

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use inlane_cli::lab::{Bootstrap, Lab, Plan};
use serde_json::Value;

/// The shipped bootstrap with a decision budget that no machine is too busy for: for tests of what is
/// decided, which a thread that was stopped for a moment must not turn into `load-only`.
pub fn patient() -> Bootstrap {
    Bootstrap { settings: "decisionBudget: 10s".into(), ..Bootstrap::default() }
}

/// A lab whose bookings are checked at the end.
#[derive(Debug)]
pub struct Scenario {
    lab: Lab,
    balanced: bool,
}

impl Deref for Scenario {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl DerefMut for Scenario {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}

impl Scenario {
    /// Starts all parts.
    ///
    /// # Panics
    /// When a part does not start.
    pub fn start(plan: Plan) -> Self {
        Self::of(Lab::start(plan).unwrap_or_else(|e| panic!("{e}")))
    }

    /// Wraps a lab.
    pub fn of(lab: Lab) -> Self {
        Self { lab, balanced: false }
    }

    /// Ends the scenario: all bookings must have been given back.
    ///
    /// # Panics
    /// When bookings are left, with the pool as the module sees it.
    pub fn end(mut self) {
        self.assert_balanced();
        self.balanced = true;
    }

    /// Asserts that all bookings have been given back, which takes a moment after the last answer.
    ///
    /// # Panics
    /// When bookings are left after some seconds.
    pub fn assert_balanced(&self) {
        let balanced = |pool: &Value| {
            let cells = pool["endpoints"].as_array().into_iter().flatten();
            let ledger = &pool["ledger"];
            cells.into_iter().all(|e| e["in_flight_requests"] == 0 && e["in_flight_tokens"] == 0)
                && ledger["claims_taken"] == ledger["claims_released"]
                && ledger["stale_releases"] == 0
                && pool["held_body_bytes"] == 0
        };
        let result = self.lab.wait_until("balanced bookings", Duration::from_secs(10), || {
            self.lab.pool().is_ok_and(|pool| balanced(&pool))
        });
        if let Err(error) = result {
            panic!("{error}");
        }
    }

    /// Index of the pod of that name.
    ///
    /// # Panics
    /// When there is none.
    pub fn pod_index(&self, name: &str) -> usize {
        let found = self.lab.pods.iter().position(|pod| pod.name == name);
        found.unwrap_or_else(|| panic!("no pod {name}"))
    }

    /// The value of a metric of the module, summed over its series that contain `labels`.
    ///
    /// # Panics
    /// When the page cannot be had.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let page = self.lab.admin().get("/metrics").unwrap_or_else(|e| panic!("{e}")).text();
        let of_family =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        page.lines()
            .filter(of_family)
            .filter(|line| line.contains(labels))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if !self.balanced && !std::thread::panicking() {
            panic!("the scenario was not ended: its bookings have not been checked");
        }
    }
}

impl Scenario {
    /// The lab, without the check of bookings: for scenarios in which there were none.
    pub fn into_lab(mut self) -> Unbooked {
        self.balanced = true;
        Unbooked(self)
    }
}

/// A scenario that is not checked.
#[derive(Debug)]
pub struct Unbooked(#[allow(dead_code, reason = "dropped to end the lab")] Scenario);
