//! From the tree of the `cel` crate to one that can be evaluated without allocating.

use std::cmp::Ordering;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, SelectExpr, operators};
use cel::parser::Parser;
use regex::{Regex, RegexBuilder};

use super::number::{Arithmetic, Conversion};
use super::value::Value;
use super::{MAX_NODES, MAX_SHARED, MAX_TEXT};

/// Nesting that is accepted.
const MAX_DEPTH: u16 = 48;
/// Memory that a compiled pattern may take, and what it may use while it is matched, in bytes.
const MAX_PATTERN: usize = 1 << 18;

/// What a value will be, where that is known before evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Number,
    Text,
}

/// What a path of names stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name<F> {
    Field(F),
    Map(F),
}

/// The names that an expression may use.
pub(crate) trait Names {
    /// Handle of a field or a map.
    type Field: Copy;

    /// What `path` stands for.
    fn resolve(&mut self, path: &[&str]) -> Option<Name<Self::Field>>;

    /// The field behind a constant key of a map, where a map is made of fields.
    fn entry(&mut self, map: Self::Field, key: &str) -> Option<Self::Field> {
        let _ = (map, key);
        None
    }

    /// The form in which a constant key is looked up.
    fn key(&self, map: Self::Field, key: &str) -> String {
        let _ = map;
        key.to_owned()
    }

    /// Whether the value is the same for all endpoints.
    fn is_shared(&self, field: Self::Field) -> bool;

    /// What the field's value, or the map's values, are.
    fn kind(&self, field: Self::Field) -> Kind;

    /// All names, for messages.
    fn known(&self) -> &'static str;
}

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Program<F> {
    pub(super) root: Node<F>,
    pub(super) shared: Vec<Node<F>>,
    kind: Option<Kind>,
}

#[derive(Debug)]
pub(super) enum Node<F> {
    And(Box<Node<F>>, Box<Node<F>>),
    Arithmetic(Arithmetic, Box<Node<F>>, Box<Node<F>>),
    Compare(Compare, Box<Node<F>>, Box<Node<F>>),
    Convert(Conversion, Box<Node<F>>),
    Entry(F, Box<Node<F>>),
    Equal(Box<Node<F>>, Box<Node<F>>),
    /// The greatest or least of several numbers.
    Extreme(Ordering, Box<Node<F>>, Vec<Node<F>>),
    Field(F),
    Has(F),
    HasEntry(F, Box<Node<F>>),
    If(Box<Node<F>>, Box<Node<F>>, Box<Node<F>>),
    In(Box<Node<F>>, Vec<Node<F>>),
    Literal(Literal),
    Matches(Regex, Box<Node<F>>),
    Negate(Box<Node<F>>),
    Not(Box<Node<F>>),
    Or(Box<Node<F>>, Box<Node<F>>),
    /// A part that is evaluated once per decision.
    Shared(usize),
    Text(TextTest, Box<Node<F>>, Box<Node<F>>),
}

#[derive(Debug)]
pub(super) enum Literal {
    Plain(Value<'static>),
    Text(String),
}

impl Literal {
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Plain(value) => *value,
            Self::Text(text) => Value::Text(text),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Compare {
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum TextTest {
    Contains,
    EndsWith,
    StartsWith,
}

impl<F: Copy> Program<F> {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, or not supported.
    pub(crate) fn compile(text: &str, names: &mut dyn Names<Field = F>) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("must be an expression".into());
        }
        if text.len() > MAX_TEXT {
            return Err(format!("longer than {MAX_TEXT} bytes"));
        }
        let parsed = Parser::new().max_recursion_depth(MAX_DEPTH).parse(text);
        let tree = parsed.map_err(|errors| {
            errors.errors.first().map_or_else(|| "no expression".into(), |e| e.msg.clone())
        })?;
        let mut compiler = Compiler { names, nodes: 0, shared: Vec::new(), bound: Vec::new() };
        let part = compiler.node(&tree)?;
        let kind = part.kind;
        let root = compiler.place(part);
        Ok(Self { root, shared: compiler.shared, kind })
    }

    /// What the result will be, where that is known.
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.kind
    }
}

struct Compiler<'n, F> {
    names: &'n mut dyn Names<Field = F>,
    nodes: usize,
    shared: Vec<Node<F>>,
    /// Variables of the quantifiers around, with the items that they stand for.
    bound: Vec<(String, IdedExpr)>,
}

/// A compiled part of the expression.
struct Part<F> {
    node: Node<F>,
    /// Whether it is the same for all endpoints.
    shared: bool,
    kind: Option<Kind>,
}

impl<F> Part<F> {
    fn expect(self, kind: Kind, what: &str) -> Result<Self, String> {
        match self.kind {
            Some(found) if found != kind => {
                Err(format!("{what} takes a {kind:?}, found a {found:?}").to_lowercase())
            }
            _ => Ok(self),
        }
    }
}

impl<F: Copy> Compiler<'_, F> {
    /// The node of a part whose parent depends on the endpoint: evaluated once, when it does not.
    fn place(&mut self, part: Part<F>) -> Node<F> {
        let Part { node, shared, .. } = part;
        if !shared || matches!(node, Node::Literal(_)) || self.shared.len() >= MAX_SHARED {
            return node;
        }
        self.shared.push(node);
        Node::Shared(self.shared.len() - 1)
    }

    /// Joins parts to one: shared, if all are.
    fn join<const N: usize>(
        &mut self,
        kind: Option<Kind>,
        parts: [Part<F>; N],
        make: impl FnOnce([Box<Node<F>>; N]) -> Node<F>,
    ) -> Part<F> {
        let shared = parts.iter().all(|part| part.shared);
        let nodes = parts.map(|part| Box::new(if shared { part.node } else { self.place(part) }));
        Part { node: make(nodes), shared, kind }
    }

    fn node(&mut self, tree: &IdedExpr) -> Result<Part<F>, String> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!("more than {MAX_NODES} operations"));
        }
        match &tree.expr {
            Expr::Literal(literal) => constant(literal),
            Expr::Ident(_) | Expr::Select(_) => self.name(&tree.expr),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(quantifier) => self.quantifier(quantifier),
            Expr::List(_) => {
                Err("a list is supported on the right of `in` and before all and exists".into())
            }
            Expr::Map(_) | Expr::Struct(_) => Err("maps and messages are not supported".into()),
            Expr::Unspecified => Err("an incomplete expression".into()),
        }
    }

    /// `all` or `exists` over a list that is written out: its items one by one, so that every one
    /// counts as operations of its own.
    fn quantifier(&mut self, quantifier: &ComprehensionExpr) -> Result<Part<F>, String> {
        let ComprehensionExpr { iter_range, iter_var, loop_step, .. } = quantifier;
        let step = match &loop_step.expr {
            Expr::Call(step) => Some((step.func_name.as_str(), step.args.as_slice())),
            _ => None,
        };
        let (exists, condition) = match step {
            Some((operators::LOGICAL_OR, [_, condition])) => (true, condition),
            Some((operators::LOGICAL_AND, [_, condition])) => (false, condition),
            _ => return Err("exists_one, filter and map are not supported".into()),
        };
        let Expr::List(list) = &iter_range.expr else {
            return Err("all and exists go over a list that is written out".into());
        };
        let mut whole = constant(&LiteralValue::Boolean((!exists).into()))?;
        for (at, item) in list.elements.iter().enumerate() {
            self.bound.push((iter_var.clone(), item.clone()));
            let part = self.node(condition).and_then(|part| part.expect(Kind::Bool, "a condition"));
            self.bound.pop();
            whole = match at {
                0 => part?,
                _ => self.join(Some(Kind::Bool), [whole, part?], |[a, b]| match exists {
                    true => Node::Or(a, b),
                    false => Node::And(a, b),
                }),
            };
        }
        Ok(whole)
    }

    /// What a quantifier's variable stands for, which knows of no variable of its own or later ones.
    fn variable(&mut self, expr: &Expr) -> Option<Result<Part<F>, String>> {
        let Expr::Ident(name) = expr else { return None };
        let at = self.bound.iter().rposition(|(bound, _)| bound == name)?;
        let inner = self.bound.split_off(at);
        let part = inner.first().map(|(_, item)| self.node(item));
        self.bound.extend(inner);
        part
    }

    /// A name, with `has` around it or not.
    fn name(&mut self, expr: &Expr) -> Result<Part<F>, String> {
        if let Some(part) = self.variable(expr) {
            return part;
        }
        let (path, test) = path(expr).ok_or("only names can be selected from")?;
        if self.bound.iter().any(|(bound, _)| Some(&bound.as_str()) == path.first()) {
            return Err(format!(
                "{} is an item of a list, nothing can be selected from it",
                path[0]
            ));
        }
        if let Some(Name::Field(field)) = self.names.resolve(&path) {
            return Ok(self.field(field, test));
        }
        if let Some((key, head)) = path.split_last()
            && let Some(Name::Map(map)) = self.names.resolve(head)
        {
            return Ok(self.constant_entry(map, key, test));
        }
        let is_map = self.names.resolve(&path).is_some();
        let problem = if is_map { "is a map, name an entry of it" } else { "is not known" };
        Err(format!("{} {problem}; there are {}", path.join("."), self.names.known()))
    }

    fn field(&self, field: F, test: bool) -> Part<F> {
        let shared = self.names.is_shared(field);
        if test {
            return Part { node: Node::Has(field), shared, kind: Some(Kind::Bool) };
        }
        Part { node: Node::Field(field), shared, kind: Some(self.names.kind(field)) }
    }

    fn constant_entry(&mut self, map: F, key: &str, test: bool) -> Part<F> {
        if let Some(field) = self.names.entry(map, key) {
            return self.field(field, test);
        }
        let node = Node::Literal(Literal::Text(self.names.key(map, key)));
        let key = Part { node, shared: true, kind: Some(Kind::Text) };
        self.entry(map, key, test)
    }

    fn entry(&mut self, map: F, key: Part<F>, test: bool) -> Part<F> {
        let shared = self.names.is_shared(map) && key.shared;
        let kind = if test { Kind::Bool } else { self.names.kind(map) };
        let key = Box::new(if shared { key.node } else { self.place(key) });
        let node = if test { Node::HasEntry(map, key) } else { Node::Entry(map, key) };
        Part { node, shared, kind: Some(kind) }
    }

    /// The map that an expression names.
    fn map(&mut self, tree: &IdedExpr) -> Result<F, String> {
        if let Some((path, false)) = path(&tree.expr)
            && let Some(Name::Map(map)) = self.names.resolve(&path)
        {
            return Ok(map);
        }
        Err(format!("expected a map; there are {}", self.names.known()))
    }

    fn call(&mut self, call: &CallExpr) -> Result<Part<F>, String> {
        let CallExpr { func_name, target, args } = call;
        let name = func_name.as_str();
        if let Some(target) = target {
            return match &target.expr {
                Expr::Ident(ident) if ident == "math" => self.math(name, args),
                _ => self.method(name, target, args),
            };
        }
        match (name, args.as_slice()) {
            (operators::LOGICAL_AND, [a, b]) => self.both(name, a, b, Kind::Bool, Node::And),
            (operators::LOGICAL_OR, [a, b]) => self.both(name, a, b, Kind::Bool, Node::Or),
            (operators::LOGICAL_NOT, [a]) => {
                let part = self.node(a)?.expect(Kind::Bool, "!")?;
                Ok(self.join(Some(Kind::Bool), [part], |[a]| Node::Not(a)))
            }
            (operators::NEGATE, [a]) => {
                let part = self.node(a)?.expect(Kind::Number, "-")?;
                Ok(self.join(Some(Kind::Number), [part], |[a]| Node::Negate(a)))
            }
            (operators::CONDITIONAL, [a, b, c]) => {
                let condition = self.node(a)?.expect(Kind::Bool, "?:")?;
                let (then, other) = (self.node(b)?, self.node(c)?);
                let kind = then.kind.filter(|_| then.kind == other.kind);
                Ok(self.join(kind, [condition, then, other], |[a, b, c]| Node::If(a, b, c)))
            }
            (operators::EQUALS, [a, b]) => self.equal(a, b),
            (operators::NOT_EQUALS, [a, b]) => {
                let part = self.equal(a, b)?;
                Ok(self.join(Some(Kind::Bool), [part], |[a]| Node::Not(a)))
            }
            (operators::LESS, [a, b]) => self.compare(Compare::Less, a, b),
            (operators::LESS_EQUALS, [a, b]) => self.compare(Compare::LessEqual, a, b),
            (operators::GREATER, [a, b]) => self.compare(Compare::Greater, a, b),
            (operators::GREATER_EQUALS, [a, b]) => self.compare(Compare::GreaterEqual, a, b),
            (operators::ADD, [a, b]) => self.arithmetic(Arithmetic::Add, a, b),
            (operators::SUBSTRACT, [a, b]) => self.arithmetic(Arithmetic::Subtract, a, b),
            (operators::MULTIPLY, [a, b]) => self.arithmetic(Arithmetic::Multiply, a, b),
            (operators::DIVIDE, [a, b]) => self.arithmetic(Arithmetic::Divide, a, b),
            (operators::MODULO, [a, b]) => self.arithmetic(Arithmetic::Modulo, a, b),
            (operators::INDEX, [map, key]) => {
                let map = self.map(map)?;
                match &key.expr {
                    Expr::Literal(LiteralValue::String(key)) => {
                        Ok(self.constant_entry(map, key.inner(), false))
                    }
                    _ => {
                        let key = self.node(key)?.expect(Kind::Text, "[]")?;
                        Ok(self.entry(map, key, false))
                    }
                }
            }
            (operators::IN, [value, list]) => self.membership(value, list),
            ("matches", [text, pattern]) => self.matches(text, pattern),
            ("size", [a]) => self.convert(Conversion::Size, a),
            ("int", [a]) => self.convert(Conversion::Int, a),
            ("uint", [a]) => self.convert(Conversion::Uint, a),
            ("double", [a]) => self.convert(Conversion::Double, a),
            _ => Err(format!("{name} with {} arguments is not supported", args.len())),
        }
    }

    fn membership(&mut self, value: &IdedExpr, list: &IdedExpr) -> Result<Part<F>, String> {
        let Expr::List(list) = &list.expr else {
            let map = self.map(list)?;
            let key = match &value.expr {
                Expr::Literal(LiteralValue::String(key)) => {
                    return Ok(self.constant_entry(map, key.inner(), true));
                }
                _ => self.node(value)?.expect(Kind::Text, "in")?,
            };
            return Ok(self.entry(map, key, true));
        };
        let value = self.node(value)?;
        let items: Vec<_> =
            list.elements.iter().map(|item| self.node(item)).collect::<Result<_, _>>()?;
        let shared = value.shared && items.iter().all(|item| item.shared);
        let mut place = |part: Part<F>| if shared { part.node } else { self.place(part) };
        let value = Box::new(place(value));
        let node = Node::In(value, items.into_iter().map(place).collect());
        Ok(Part { node, shared, kind: Some(Kind::Bool) })
    }

    fn both(
        &mut self,
        name: &str,
        left: &IdedExpr,
        right: &IdedExpr,
        kind: Kind,
        make: impl FnOnce(Box<Node<F>>, Box<Node<F>>) -> Node<F>,
    ) -> Result<Part<F>, String> {
        let name = name.trim_matches('_');
        let left = self.node(left)?.expect(kind, name)?;
        let right = self.node(right)?.expect(kind, name)?;
        Ok(self.join(Some(kind), [left, right], |[a, b]| make(a, b)))
    }

    fn arithmetic(
        &mut self,
        operator: Arithmetic,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Part<F>, String> {
        let left = self.node(left)?.expect(Kind::Number, "arithmetic")?;
        let right = self.node(right)?.expect(Kind::Number, "arithmetic")?;
        let make = |[a, b]: [_; 2]| Node::Arithmetic(operator, a, b);
        Ok(self.join(Some(Kind::Number), [left, right], make))
    }

    fn equal(&mut self, left: &IdedExpr, right: &IdedExpr) -> Result<Part<F>, String> {
        let parts = [self.node(left)?, self.node(right)?];
        Ok(self.join(Some(Kind::Bool), parts, |[a, b]| Node::Equal(a, b)))
    }

    fn compare(
        &mut self,
        compare: Compare,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Part<F>, String> {
        let (left, right) = (self.node(left)?, self.node(right)?);
        if let (Some(a), Some(b)) = (left.kind, right.kind)
            && a != b
        {
            return Err(format!("a {a:?} cannot be compared with a {b:?}").to_lowercase());
        }
        let make = |[a, b]: [_; 2]| Node::Compare(compare, a, b);
        Ok(self.join(Some(Kind::Bool), [left, right], make))
    }

    fn convert(&mut self, conversion: Conversion, inner: &IdedExpr) -> Result<Part<F>, String> {
        let part = self.node(inner)?;
        Ok(self.join(Some(Kind::Number), [part], |[a]| Node::Convert(conversion, a)))
    }

    fn method(
        &mut self,
        name: &str,
        target: &IdedExpr,
        args: &[IdedExpr],
    ) -> Result<Part<F>, String> {
        let test = match (name, args) {
            ("contains", [_]) => TextTest::Contains,
            ("endsWith", [_]) => TextTest::EndsWith,
            ("startsWith", [_]) => TextTest::StartsWith,
            ("matches", [pattern]) => return self.matches(target, pattern),
            ("size", []) => return self.convert(Conversion::Size, target),
            _ => return Err(format!("the method {name} is not supported")),
        };
        let text = self.node(target)?.expect(Kind::Text, name)?;
        let pattern = self.node(&args[0])?.expect(Kind::Text, name)?;
        let make = |[a, b]: [_; 2]| Node::Text(test, a, b);
        Ok(self.join(Some(Kind::Bool), [text, pattern], make))
    }

    /// A pattern is compiled with the expression, so it has to be written out. Matching takes time
    /// linear in the text.
    fn matches(&mut self, text: &IdedExpr, pattern: &IdedExpr) -> Result<Part<F>, String> {
        let Expr::Literal(LiteralValue::String(pattern)) = &pattern.expr else {
            return Err("matches takes a pattern that is written out".into());
        };
        let mut builder = RegexBuilder::new(pattern.inner());
        let regex = builder.size_limit(MAX_PATTERN).dfa_size_limit(MAX_PATTERN).build();
        let regex = regex.map_err(|e| format!("{:?} is no pattern: {e}", pattern.inner()))?;
        let text = self.node(text)?.expect(Kind::Text, "matches")?;
        Ok(self.join(Some(Kind::Bool), [text], |[text]| Node::Matches(regex, text)))
    }

    fn math(&mut self, name: &str, args: &[IdedExpr]) -> Result<Part<F>, String> {
        let conversion = match (name, args) {
            ("abs", [_]) => Conversion::Abs,
            ("ceil", [_]) => Conversion::Ceil,
            ("floor", [_]) => Conversion::Floor,
            ("round", [_]) => Conversion::Round,
            ("sqrt", [_]) => Conversion::Sqrt,
            ("greatest", [first, others @ ..]) => {
                return self.extreme(Ordering::Greater, first, others);
            }
            ("least", [first, others @ ..]) => return self.extreme(Ordering::Less, first, others),
            _ => return Err(format!("math.{name} is not supported")),
        };
        self.convert(conversion, &args[0])
    }

    fn extreme(
        &mut self,
        want: Ordering,
        first: &IdedExpr,
        others: &[IdedExpr],
    ) -> Result<Part<F>, String> {
        let number = |part: Part<F>| part.expect(Kind::Number, "math.greatest and math.least");
        let first = number(self.node(first)?)?;
        let others: Vec<_> =
            others.iter().map(|other| number(self.node(other)?)).collect::<Result<_, _>>()?;
        let shared = first.shared && others.iter().all(|other| other.shared);
        let mut place = |part: Part<F>| if shared { part.node } else { self.place(part) };
        let first = Box::new(place(first));
        let node = Node::Extreme(want, first, others.into_iter().map(place).collect());
        Ok(Part { node, shared, kind: Some(Kind::Number) })
    }
}

fn constant<F>(literal: &LiteralValue) -> Result<Part<F>, String> {
    let plain = |value, kind| (Literal::Plain(value), kind);
    let (literal, kind) = match literal {
        LiteralValue::Boolean(value) => plain(Value::Bool(*value.inner()), Some(Kind::Bool)),
        LiteralValue::Double(value) => plain(Value::Double(*value.inner()), Some(Kind::Number)),
        LiteralValue::Int(value) => plain(Value::Int(*value.inner()), Some(Kind::Number)),
        LiteralValue::Null => plain(Value::Null, None),
        LiteralValue::String(value) => (Literal::Text(value.inner().to_owned()), Some(Kind::Text)),
        LiteralValue::UInt(value) => plain(Value::Uint(*value.inner()), Some(Kind::Number)),
        LiteralValue::Bytes(_) => return Err("bytes are not supported".into()),
    };
    Ok(Part { node: Node::Literal(literal), shared: true, kind })
}

/// The names of `a.b.c`, and whether `has` is around them.
fn path(expr: &Expr) -> Option<(Vec<&str>, bool)> {
    let (mut expr, mut path, mut test) = (expr, Vec::new(), false);
    loop {
        match expr {
            Expr::Ident(name) => {
                path.push(name.as_str());
                path.reverse();
                return Some((path, test));
            }
            Expr::Select(SelectExpr { operand, field, test: has }) => {
                // `has` stands around the last name only.
                test |= *has;
                path.push(field.as_str());
                expr = &operand.expr;
            }
            _ => return None,
        }
    }
}
