//! Common Expression Language, as far as a decision can afford it.
//!
//! The `cel` crate parses; the tree it yields is compiled to one whose names are resolved and whose
//! values are `Copy`, so that evaluation allocates nothing but what a thread's first use of a pattern
//! takes. What that leaves out (lists other than those written out, building strings, lists and maps,
//! time) is an error when a configuration is loaded. An expression has at most [`MAX_NODES`] nodes and
//! each is evaluated at most once, which bounds an evaluation; parts that do not depend on the
//! endpoint are evaluated once per decision.
//!
//! Beyond the standard, arithmetic between numbers of different types is done in doubles.
//!
//! Language definition: <https://github.com/cel-expr/cel-spec/blob/master/doc/langdef.md>.

mod compile;
mod errors;
mod eval;
mod number;
mod value;

pub(crate) mod decision;

pub(crate) use compile::{Kind, Name, Names, Program};
pub(crate) use errors::Errors;
pub(crate) use eval::Facts;
pub(crate) use value::Value;

/// Longest expression in bytes.
pub(crate) const MAX_TEXT: usize = 4_096;
/// Most nodes of an expression.
pub(crate) const MAX_NODES: usize = 256;
/// Parts that are evaluated once per decision; further ones are evaluated per endpoint.
pub(crate) const MAX_SHARED: usize = 16;
