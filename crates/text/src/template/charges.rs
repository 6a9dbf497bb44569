//! Where the results of operators, filters and calls are charged: see [`budget`](super::budget).
//!
//! * `a ~ b + c` becomes `(a ~ b + c)|__charged__`. The operands that are such operations themselves are
//!   charged with it: they are not longer.
//! * `a|join` becomes `a|join|__charged__`, and likewise for macros and other functions. Methods charge
//!   what they make themselves.
//!
//! * `for a in b` becomes `for a in b|__each__`, which refuses what Python cannot loop over.
//!
//! Text in the bodies of loops is charged by what [`syntax`] writes at their ends.

use minijinja::machinery::ast::{BinOpKind, Expr, Stmt};
use minijinja::machinery::{Span, parse};

use super::{syntax, tree};

/// The filter that charges a value.
pub(super) const CHARGED: &str = "__charged__";
/// The filter that charges the text in the body of a loop.
pub(super) const BODY: &str = "__body__";

/// The filter that what loops go over passes.
pub(super) const EACH: &str = "__each__";

/// Filters that give a part of what they are given, or something small.
const FREE_FILTERS: [&str; 18] = [
    "abs",
    "attr",
    "bool",
    "count",
    "d",
    "default",
    "first",
    "float",
    "int",
    "last",
    "length",
    "max",
    "min",
    "random",
    "round",
    "safe",
    "sum",
    "wordcount",
];
/// Functions that make something small, or nothing.
const FREE_FUNCTIONS: [&str; 5] = ["cycler", "joiner", "namespace", "raise_exception", "range"];

/// The template with charges. What is not a valid template is left as it is.
pub(super) fn add(source: &str) -> String {
    let Ok(tree) = parse(source, "template", syntax::config()) else { return source.to_owned() };
    let mut insertions = Insertions::default();
    insertions.statement(&tree);
    insertions.apply(source)
}

/// Texts and where they are inserted; of those at one place the earlier ones stand before.
#[derive(Default)]
struct Insertions(Vec<(u32, String)>);

impl Insertions {
    fn statement(&mut self, statement: &Stmt<'_>) {
        for expr in tree::exprs(statement) {
            self.expr(expr, false);
        }
        if let Stmt::ForLoop(each) = statement {
            let Span { start_offset, end_offset, .. } = each.iter.span();
            let operation = matches!(
                each.iter,
                Expr::UnaryOp(_) | Expr::BinOp(_) | Expr::Compare(_) | Expr::IfExpr(_)
            );
            if operation {
                self.0.push((start_offset, "(".to_owned()));
            }
            let close = if operation { ")" } else { "" };
            self.0.push((end_offset, format!("{close}|{EACH}")));
        }
        for statement in tree::statements(statement) {
            self.statement(statement);
        }
    }

    /// `covered` says that the expression's value is charged with the one around it, or cannot be
    /// charged where it stands.
    fn expr(&mut self, expr: &Expr<'_>, covered: bool) {
        let grows = grows(expr);
        let chains = matches!(expr, Expr::GetAttr(_) | Expr::GetItem(_) | Expr::Call(_));
        for (place, part) in tree::parts(expr).into_iter().enumerate() {
            // Between a value and its member there is no room for a filter.
            let called = matches!(part, Expr::Call(_)) && chains && place == 0;
            self.expr(part, called || grows && self::grows(part));
        }
        if covered {
            return;
        }
        match expr {
            Expr::BinOp(_) if grows => {
                let Span { start_offset, end_offset, .. } = expr.span();
                self.0.push((start_offset, "(".to_owned()));
                self.0.push((end_offset, format!(")|{CHARGED}")));
            }
            Expr::Filter(filter) if !FREE_FILTERS.contains(&filter.name) => {
                self.0.push((expr.span().end_offset, format!("|{CHARGED}")));
            }
            Expr::Call(call) => {
                let free = match &call.expr {
                    Expr::Var(function) => FREE_FUNCTIONS.contains(&function.id),
                    // Methods see to it themselves.
                    _ => true,
                };
                if !free {
                    self.0.push((expr.span().end_offset, format!("|{CHARGED}")));
                }
            }
            _ => {}
        }
    }

    fn apply(mut self, source: &str) -> String {
        self.0.sort_by_key(|(at, _)| *at);
        let mut with = String::with_capacity(source.len() + 16 * self.0.len());
        let mut from = 0;
        for (at, text) in self.0 {
            let at = at as usize;
            with.push_str(source.get(from..at).unwrap_or_default());
            with.push_str(&text);
            from = at;
        }
        with.push_str(source.get(from..).unwrap_or_default());
        with
    }
}

/// Whether an operation gives a value that is longer than its operands. Counting does not.
fn grows(expr: &Expr<'_>) -> bool {
    let Expr::BinOp(op) = expr else { return false };
    let number = |expr: &Expr<'_>| match expr {
        Expr::Const(constant) => constant.value.is_number(),
        _ => false,
    };
    match op.op {
        BinOpKind::Concat | BinOpKind::Mul => true,
        BinOpKind::Add => !number(&op.left) && !number(&op.right),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::add;

    #[test]
    fn what_may_grow_is_charged_once() {
        for (source, expected) in [
            ("{{ a ~ b ~ c }}", "{{ (a ~ b ~ c)|__charged__ }}"),
            ("{{ (a + (b ~ c)) * 3 }}", "{{ ((a + (b ~ c)) * 3)|__charged__ }}"),
            ("{{ a + 1 - b }}", "{{ a + 1 - b }}"),
            (
                "{% if -a|upper ~ 'é' == b %}",
                "{% if (-a|upper|__charged__ ~ 'é')|__charged__ == b %}",
            ),
            ("{{ (a ~ b).strip()[0] }}", "{{ ((a ~ b)|__charged__).strip()[0] }}"),
            (
                "{% set x.y = [a + b, {'c': d|length}] %}",
                "{% set x.y = [(a + b)|__charged__, {'c': d|length}] %}",
            ),
            (
                "{% for a in f(x|tojson) if a|int > 1 %}{{ g(a)[0] }}{% endfor %}",
                "{% for a in f(x|tojson|__charged__)|__charged__|__each__ if a|int > 1 %}{{ g(a)[0] }}{% endfor %}",
            ),
            (
                "{% filter upper %}{% call(a) f(b ~ c) %}{{ caller() }}{% endcall %}{% endfilter %}",
                "{% filter upper|__charged__ %}{% call(a) f((b ~ c)|__charged__) %}{{ caller()|__charged__ }}{% endcall %}{% endfilter %}",
            ),
            ("{{ a ~ b", "{{ a ~ b"),
        ] {
            // The parser wants conditions and loops closed.
            let close = if source.contains("{% if") { "{% endif %}" } else { "" };
            assert_eq!(add(&format!("{source}{close}")), format!("{expected}{close}"));
        }
    }
}
