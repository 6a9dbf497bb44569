//! Writing Prometheus text exposition.

use std::fmt::Write;

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// A page in the making. Families are written one after the other; values belong to the last one.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
    /// Lines of the deprecated twin of the family at hand.
    twin: String,
    name: String,
    twin_name: String,
}

impl Exposition {
    /// Begins a family.
    pub(crate) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        self.flush();
        header(&mut self.text, name, kind, help);
        name.clone_into(&mut self.name);
    }

    /// Begins a family of the pool under its name and its deprecated one, both without prefix.
    pub(crate) fn twins(&mut self, name: &str, deprecated: &str, kind: Kind, help: &str) {
        let name = format!("llm_d_epp_{name}");
        let deprecated = format!("inference_pool_{deprecated}");
        self.named_twins(&name, &deprecated, kind, help);
    }

    /// Begins a family under its name and its deprecated one.
    pub(crate) fn named_twins(&mut self, name: &str, deprecated: &str, kind: Kind, help: &str) {
        self.family(name, kind, &format!("[ALPHA] {help}"));
        let help = format!("[ALPHA] [Deprecated: Use {name}] {help}");
        header(&mut self.twin, deprecated, kind, &help);
        deprecated.clone_into(&mut self.twin_name);
    }

    /// Adds a series to the family at hand.
    pub(crate) fn value(&mut self, labels: &[(&str, &str)], value: f64) {
        sample(&mut self.text, &self.name, labels, value);
    }

    /// Adds a series to the family at hand and to its twin, where it may be labelled otherwise.
    pub(crate) fn twin_values(
        &mut self,
        labels: &[(&str, &str)],
        twin_labels: &[(&str, &str)],
        value: f64,
    ) {
        self.value(labels, value);
        sample(&mut self.twin, &self.twin_name, twin_labels, value);
    }

    /// A family of one series without labels.
    pub(crate) fn single(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help);
        self.value(&[], value);
    }

    /// The page.
    pub(crate) fn finish(mut self) -> String {
        self.flush();
        self.text
    }

    fn flush(&mut self) {
        self.text.push_str(&self.twin);
        self.twin.clear();
    }
}

fn header(out: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    // Writing to a string does not fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    out.push_str(name);
    for (i, (label, text)) in labels.iter().enumerate() {
        let _ = write!(out, "{}{label}=\"", if i == 0 { '{' } else { ',' });
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    if !labels.is_empty() {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_and_twins_stay_together() {
        let mut out = Exposition::default();
        out.twins("a", "b", Kind::Gauge, "Help.");
        out.twin_values(&[("x", "1")], &[("y", "\"\\\n")], 1.5);
        out.twin_values(&[("x", "2")], &[("y", "2")], 2.0);
        out.single("c_total", Kind::Counter, "Other.", 3.0);
        assert_eq!(
            out.finish(),
            "# HELP llm_d_epp_a [ALPHA] Help.\n# TYPE llm_d_epp_a gauge\n\
             llm_d_epp_a{x=\"1\"} 1.5\nllm_d_epp_a{x=\"2\"} 2\n\
             # HELP inference_pool_b [ALPHA] [Deprecated: Use llm_d_epp_a] Help.\n\
             # TYPE inference_pool_b gauge\n\
             inference_pool_b{y=\"\\\"\\\\\\n\"} 1.5\ninference_pool_b{y=\"2\"} 2\n\
             # HELP c_total Other.\n# TYPE c_total counter\nc_total 3\n"
        );
    }
}
