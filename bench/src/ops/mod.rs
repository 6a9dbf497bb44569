//! The operations: each has a name, a way to set it up, and a closure that does it once.
//!
//! Setting up is not part of what is measured. Limits are the project's own aims for time on one
//! undisturbed core; they are reported beside the measurement, and machines differ.

mod decision;
mod page;
mod plugins;
mod precise;
mod table;
mod text;

use crate::Fallible;

/// Does the operation once.
pub type Run = Box<dyn FnMut()>;

/// A named operation.
pub struct Operation {
    /// `family/what[/size]`.
    pub name: String,
    /// Bytes that one call reads; 0 where bytes are not the measure.
    pub bytes: u64,
    /// The most that it should take, ns.
    pub limit_ns: Option<f64>,
    /// Whether it must not allocate.
    pub no_allocation: bool,
    setup: Box<dyn Fn() -> Fallible<Run>>,
}

impl Operation {
    fn new(name: impl Into<String>, setup: impl Fn() -> Fallible<Run> + 'static) -> Self {
        let (name, setup) = (name.into(), Box::new(setup));
        Self { name, bytes: 0, limit_ns: None, no_allocation: false, setup }
    }

    fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes as u64;
        self
    }

    fn limit_ns(mut self, limit: f64) -> Self {
        self.limit_ns = Some(limit);
        self
    }

    fn without_allocation(mut self) -> Self {
        self.no_allocation = true;
        self
    }

    /// Sets it up.
    ///
    /// # Errors
    /// What could not be had.
    pub fn start(&self) -> Fallible<Run> {
        (self.setup)()
    }
}

/// All operations.
///
/// # Panics
/// When a registered plugin type does not load: it needs parameters in
/// `crates/plugins/tests/support/alone.rs`.
pub fn all() -> Vec<Operation> {
    let mut operations = decision::operations();
    let plugins = plugins::operations();
    operations.extend(plugins.unwrap_or_else(|error| panic!("{error}")));
    operations.extend(text::operations());
    operations.extend(table::operations());
    operations.extend(precise::operations());
    operations.extend(page::operations());
    operations
}

/// The operation of that name.
pub fn find(name: &str) -> Option<Operation> {
    all().into_iter().find(|operation| operation.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_operation_runs() {
        let operations = all();
        let names: std::collections::BTreeSet<_> = operations.iter().map(|o| &o.name).collect();
        assert_eq!(names.len(), operations.len());
        for operation in operations.iter().filter(|o| !o.name.ends_with("/10000")) {
            let mut run = operation.start().expect(&operation.name);
            run();
            run();
        }
    }
}
