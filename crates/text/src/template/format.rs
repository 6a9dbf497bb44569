//! Which form of message content a template expects: the engine's rule on the syntax tree.

use minijinja::machinery::ast::{Call, CallArg, Expr, ForLoop, Macro, Set, Stmt};
use minijinja::machinery::parse;

use super::{syntax, tree};

/// The form of the content that a template is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentFormat {
    /// A list of parts, each an object with a type.
    Parts,
    /// One text.
    Text,
}

/// Finds the form a template expects: parts, if it loops over the content of a message.
///
/// That is a loop over `content` of a variable that itself loops over `messages` (or what was
/// assigned from it), over a macro's parameter that some call fills with such content, or, outside
/// of macros, over a variable named `content`.
pub(super) fn detect(source: &str) -> ContentFormat {
    let tree = parse(source, "template", syntax::config());
    match tree.map(|tree| loops_over_content(&tree)) {
        Ok(Some(true)) => ContentFormat::Parts,
        // The engine falls back to text where its rule meets a target that is not a name.
        _ => ContentFormat::Text,
    }
}

/// What the rule looks at, in the order of the template.
#[derive(Default)]
struct Nodes<'a> {
    sets: Vec<&'a Set<'a>>,
    /// Loops and the macros around each, outermost first.
    loops: Vec<(&'a ForLoop<'a>, Vec<&'a Macro<'a>>)>,
    macros: Vec<&'a Macro<'a>>,
    calls: Vec<&'a Call<'a>>,
}

/// None where the engine's rule fails.
fn loops_over_content(tree: &Stmt<'_>) -> Option<bool> {
    let mut nodes = Nodes::default();
    nodes.statement(tree, &mut Vec::new());

    let mut lists = vec!["messages"];
    let mut next = 0;
    while let Some(list) = lists.get(next).copied() {
        next += 1;
        for set in nodes.sets.iter().filter(|set| reads(&set.expr, list, None)) {
            let name = variable(&set.target)?;
            if !lists.contains(&name) {
                lists.push(name);
            }
        }
    }
    let mut messages = Vec::new();
    for (each, _) in &nodes.loops {
        if lists.iter().any(|list| reads(&each.iter, list, None)) {
            messages.push(variable(&each.target)?);
        }
    }
    let is_content =
        |expr: &Expr<'_>| messages.iter().any(|message| reads(expr, message, Some("content")));
    let fed: Vec<(&Macro<'_>, Vec<&str>)> = nodes
        .macros
        .iter()
        .map(|called| (*called, fed_parameters(called, &nodes.calls, &is_content)))
        .collect();

    for (each, around) in &nodes.loops {
        let by_name = || {
            let name = variable(&each.iter)?;
            let mut inner = around.iter().rev();
            let parameters = inner.find_map(|around| {
                let (_, fed) = fed.iter().find(|(called, _)| std::ptr::eq(*called, *around))?;
                (!fed.is_empty()).then_some(fed)
            });
            Some(match parameters {
                Some(fed) => fed.contains(&name),
                None => around.is_empty() && name == "content",
            })
        };
        if is_content(&each.iter) || by_name() == Some(true) {
            return variable(&each.target).map(|_| true);
        }
    }
    Some(false)
}

/// The parameters of a macro that some call fills with a message's content.
fn fed_parameters<'a>(
    called: &Macro<'a>,
    calls: &[&Call<'_>],
    is_content: &dyn Fn(&Expr<'_>) -> bool,
) -> Vec<&'a str> {
    let names: Vec<Option<&str>> = called.args.iter().map(variable).collect();
    let mut fed = Vec::new();
    for call in calls.iter().filter(|call| variable(&call.expr) == Some(called.name)) {
        let mut place = 0;
        for arg in &call.args {
            match arg {
                CallArg::Pos(value) => {
                    let name = names.get(place).copied().flatten();
                    fed.extend(name.filter(|_| is_content(value)));
                    place += 1;
                }
                CallArg::Kwarg(name, value) if is_content(value) => {
                    fed.extend(names.iter().flatten().find(|own| *own == name));
                }
                _ => {}
            }
        }
    }
    fed
}

/// Whether an expression is the variable, or its member, through filters, tests and slices.
fn reads(expr: &Expr<'_>, name: &str, member: Option<&str>) -> bool {
    match expr {
        Expr::Filter(filter) => filter.expr.as_ref().is_some_and(|e| reads(e, name, member)),
        Expr::Test(test) => reads(&test.expr, name, member),
        Expr::Slice(slice) => reads(&slice.expr, name, member),
        Expr::Var(variable) => member.is_none() && variable.id == name,
        Expr::GetAttr(attr) => member == Some(attr.name) && variable(&attr.expr) == Some(name),
        Expr::GetItem(item) => {
            let key = match &item.subscript_expr {
                Expr::Const(key) => key.value.as_str(),
                _ => None,
            };
            member.is_some() && key == member && variable(&item.expr) == Some(name)
        }
        _ => false,
    }
}

fn variable<'a>(expr: &Expr<'a>) -> Option<&'a str> {
    match expr {
        Expr::Var(variable) => Some(variable.id),
        _ => None,
    }
}

impl<'a> Nodes<'a> {
    fn statement(&mut self, statement: &'a Stmt<'a>, around: &mut Vec<&'a Macro<'a>>) {
        match statement {
            Stmt::ForLoop(each) => self.loops.push((each, around.clone())),
            Stmt::Set(set) => self.sets.push(set),
            Stmt::Macro(called) => self.macros.push(called),
            Stmt::CallBlock(block) => self.calls.push(&block.call),
            Stmt::Do(block) => self.calls.push(&block.call),
            _ => {}
        }
        for expr in tree::exprs(statement) {
            self.expr(expr);
        }
        if let Stmt::Macro(called) = statement {
            around.push(called);
        }
        for inner in tree::statements(statement) {
            self.statement(inner, around);
        }
        if let Stmt::Macro(_) = statement {
            around.pop();
        }
    }

    /// Collects the calls within an expression.
    fn expr(&mut self, expr: &'a Expr<'a>) {
        if let Expr::Call(call) = expr {
            self.calls.push(call);
        }
        for part in tree::parts(expr) {
            self.expr(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ContentFormat::*, detect};

    #[test]
    fn loops_over_content_ask_for_parts() {
        for source in [
            "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
            "{% for m in messages[1:] %}{% for p in m['content'] | list %}{% endfor %}{% endfor %}",
            "{% set a = messages[1:] %}{% set b = a %}{% for m in b %}{% for p in m.content %}{% endfor %}{% endfor %}",
            "{% for message in messages %}{% set content = message.content %}{% for p in content %}{% endfor %}{% endfor %}",
            "{% macro show(c) %}{% for p in c %}{{ p }}{% endfor %}{% endmacro %}{% for m in messages %}{{ show(m.content) }}{% endfor %}",
            "{% macro show(a, c=1) %}{% for p in c %}{{ p }}{% endfor %}{% endmacro %}{% for m in messages %}{{ show(1, c=m.content) }}{% endfor %}",
        ] {
            assert_eq!(detect(source), Parts, "{source}");
        }
    }

    #[test]
    fn other_templates_ask_for_text() {
        for source in [
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            "{% for m in messages %}{% for c in m.tool_calls %}{{ c }}{% endfor %}{% endfor %}",
            "{% for m in other %}{% for p in m.content %}{% endfor %}{% endfor %}",
            "{% macro show(content) %}{% for p in content %}{% endfor %}{% endmacro %}{{ show([1]) }}",
            "{% for m in messages %}{{ m.content[0].text }}{% endfor %}",
            "{% for a, b in messages %}{% endfor %}{% for m in messages %}{% for p in m.content %}{% endfor %}{% endfor %}",
            "{% broken",
        ] {
            assert_eq!(detect(source), Text, "{source}");
        }
    }
}
