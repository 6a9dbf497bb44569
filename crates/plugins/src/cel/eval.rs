//! Evaluation.

use std::cmp::Ordering;

use super::MAX_SHARED;
use super::compile::{Compare, Node, Program, TextTest};
use super::number;
use super::value::{Error, Value};

/// What names stand for during an evaluation.
pub(crate) trait Facts<'a, F> {
    /// The value of a field; `None` = absent.
    fn field(&self, field: F) -> Option<Value<'a>>;

    /// Whether a field has a value of its own, as opposed to a default one.
    fn has(&self, field: F) -> bool {
        self.field(field).is_some()
    }

    /// An entry of a map; `None` = absent.
    fn entry(&self, map: F, key: &str) -> Option<Value<'a>>;
}

/// The results of the parts that are evaluated once per decision.
pub(crate) type Frame<'a> = [Result<Value<'a>, Error>; MAX_SHARED];

impl<F: Copy> Program<F> {
    /// Evaluates the parts that do not depend on the endpoint; `facts` may be of any.
    pub(crate) fn begin<'a>(&'a self, facts: &dyn Facts<'a, F>) -> Frame<'a> {
        let mut frame = [Err(Error::Missing); MAX_SHARED];
        for (result, node) in frame.iter_mut().zip(&self.shared) {
            *result = eval(node, facts, &[]);
        }
        frame
    }

    /// Evaluates the expression.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn eval<'a>(
        &'a self,
        facts: &dyn Facts<'a, F>,
        frame: &Frame<'a>,
    ) -> Result<Value<'a>, Error> {
        eval(&self.root, facts, frame)
    }
}

/// Depth is that of the tree, which compilation bounds.
fn eval<'a, F: Copy>(
    node: &'a Node<F>,
    facts: &dyn Facts<'a, F>,
    frame: &[Result<Value<'a>, Error>],
) -> Result<Value<'a>, Error> {
    let of = |node: &'a Node<F>| eval(node, facts, frame);
    match node {
        Node::Literal(literal) => Ok(literal.value()),
        Node::Field(field) => facts.field(*field).ok_or(Error::Missing),
        Node::Has(field) => Ok(Value::Bool(facts.has(*field))),
        Node::Entry(map, key) => facts.entry(*map, of(key)?.text()?).ok_or(Error::Missing),
        Node::HasEntry(map, key) => Ok(Value::Bool(facts.entry(*map, of(key)?.text()?).is_some())),
        Node::Shared(at) => frame.get(*at).copied().unwrap_or(Err(Error::Missing)),
        Node::Not(inner) => Ok(Value::Bool(!of(inner)?.bool()?)),
        Node::Negate(inner) => number::negate(of(inner)?),
        Node::And(left, right) => either(of(left), || of(right), false),
        Node::Or(left, right) => either(of(left), || of(right), true),
        Node::If(condition, then, other) => {
            if of(condition)?.bool()? {
                of(then)
            } else {
                of(other)
            }
        }
        Node::Arithmetic(operator, left, right) => number::apply(*operator, of(left)?, of(right)?),
        Node::Equal(left, right) => Ok(Value::Bool(of(left)?.equals(of(right)?))),
        Node::Compare(compare, left, right) => {
            let order = of(left)?.compare(of(right)?)?;
            Ok(Value::Bool(order.is_some_and(|order| match compare {
                Compare::Greater => order == Ordering::Greater,
                Compare::GreaterEqual => order != Ordering::Less,
                Compare::Less => order == Ordering::Less,
                Compare::LessEqual => order != Ordering::Greater,
            })))
        }
        Node::In(value, list) => {
            let value = of(value)?;
            let mut error = None;
            for item in list {
                match of(item) {
                    Ok(item) if item.equals(value) => return Ok(Value::Bool(true)),
                    Ok(_) => {}
                    Err(e) => error = Some(e),
                }
            }
            error.map_or(Ok(Value::Bool(false)), Err)
        }
        Node::Text(test, text, pattern) => {
            let (text, pattern) = (of(text)?.text()?, of(pattern)?.text()?);
            Ok(Value::Bool(match test {
                TextTest::Contains => text.contains(pattern),
                TextTest::EndsWith => text.ends_with(pattern),
                TextTest::StartsWith => text.starts_with(pattern),
            }))
        }
        Node::Matches(pattern, text) => Ok(Value::Bool(pattern.is_match(of(text)?.text()?))),
        Node::Convert(conversion, inner) => conversion.apply(of(inner)?),
        Node::Extreme(want, first, others) => {
            let mut best = of(first)?;
            best.double().ok_or(Error::NoOverload)?;
            for other in others {
                let other = of(other)?;
                if other.compare(best)? == Some(*want) {
                    best = other;
                }
            }
            Ok(best)
        }
    }
}

/// `||` (`decisive` true) and `&&` (false): a side that decides wins over an error of the other one.
fn either<'a>(
    left: Result<Value<'a>, Error>,
    right: impl FnOnce() -> Result<Value<'a>, Error>,
    decisive: bool,
) -> Result<Value<'a>, Error> {
    let left = left.and_then(Value::bool);
    if left == Ok(decisive) {
        return Ok(Value::Bool(decisive));
    }
    let right = right().and_then(Value::bool);
    if right == Ok(decisive) {
        return Ok(Value::Bool(decisive));
    }
    left.and(right).map(Value::Bool)
}
