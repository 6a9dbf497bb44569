//! The syntax tree of a template, one level at a time. The parser bounds its depth.

use minijinja::machinery::ast::{Call, CallArg, Expr, Stmt};

/// The statements directly within a statement.
pub(super) fn statements<'a>(statement: &'a Stmt<'a>) -> impl Iterator<Item = &'a Stmt<'a>> {
    let bodies: [&[Stmt<'a>]; 2] = match statement {
        Stmt::Template(template) => [&template.children, &[]],
        Stmt::ForLoop(each) => [&each.body, &each.else_body],
        Stmt::IfCond(cond) => [&cond.true_body, &cond.false_body],
        Stmt::WithBlock(with) => [&with.body, &[]],
        Stmt::SetBlock(set) => [&set.body, &[]],
        Stmt::AutoEscape(block) => [&block.body, &[]],
        Stmt::FilterBlock(block) => [&block.body, &[]],
        Stmt::Block(block) => [&block.body, &[]],
        Stmt::Macro(called) => [&called.body, &[]],
        Stmt::CallBlock(block) => [&block.macro_decl.body, &[]],
        _ => [&[], &[]],
    };
    bodies.into_iter().flatten()
}

/// The expressions of a statement itself. The targets of assignments are none.
pub(super) fn exprs<'a>(statement: &'a Stmt<'a>) -> Vec<&'a Expr<'a>> {
    match statement {
        Stmt::EmitExpr(emit) => vec![&emit.expr],
        Stmt::ForLoop(each) => [&each.iter].into_iter().chain(&each.filter_expr).collect(),
        Stmt::IfCond(cond) => vec![&cond.expr],
        Stmt::WithBlock(with) => with.assignments.iter().map(|(_, value)| value).collect(),
        Stmt::Set(set) => vec![&set.expr],
        Stmt::SetBlock(set) => set.filter.iter().collect(),
        Stmt::FilterBlock(block) => vec![&block.filter],
        Stmt::Macro(called) => called.defaults.iter().collect(),
        Stmt::CallBlock(block) => call(&block.call),
        Stmt::Do(block) => call(&block.call),
        _ => Vec::new(),
    }
}

/// The expressions directly within an expression.
pub(super) fn parts<'a>(expr: &'a Expr<'a>) -> Vec<&'a Expr<'a>> {
    match expr {
        Expr::Var(_) | Expr::Const(_) => Vec::new(),
        Expr::Slice(slice) => {
            let bounds = [&slice.start, &slice.stop, &slice.step];
            [&slice.expr].into_iter().chain(bounds.into_iter().flatten()).collect()
        }
        Expr::UnaryOp(op) => vec![&op.expr],
        Expr::BinOp(op) => vec![&op.left, &op.right],
        Expr::Compare(compare) => {
            [&compare.expr].into_iter().chain(compare.ops.iter().map(|op| &op.expr)).collect()
        }
        Expr::IfExpr(cond) => {
            [&cond.test_expr, &cond.true_expr].into_iter().chain(&cond.false_expr).collect()
        }
        Expr::Filter(filter) => filter.expr.iter().chain(values(&filter.args)).collect(),
        Expr::Test(test) => [&test.expr].into_iter().chain(values(&test.args)).collect(),
        Expr::GetAttr(attr) => vec![&attr.expr],
        Expr::GetItem(item) => vec![&item.expr, &item.subscript_expr],
        Expr::Call(called) => call(called),
        Expr::List(list) => list.items.iter().collect(),
        Expr::Tuple(tuple) => tuple.items.iter().collect(),
        Expr::Map(map) => map.keys.iter().chain(&map.values).collect(),
    }
}

/// What is called, and with what.
fn call<'a>(call: &'a Call<'a>) -> Vec<&'a Expr<'a>> {
    [&call.expr].into_iter().chain(values(&call.args)).collect()
}

fn values<'a>(args: &'a [CallArg<'a>]) -> impl Iterator<Item = &'a Expr<'a>> {
    args.iter().map(|arg| match arg {
        CallArg::Pos(value)
        | CallArg::Kwarg(_, value)
        | CallArg::PosSplat(value)
        | CallArg::KwargSplat(value) => value,
    })
}
