//! A report for people.

use std::collections::BTreeSet;

use inlane_core::config::LegacyPool;

use super::report::{Band, Data, Plugin, Report};
use crate::paint::Paint;

/// Writes the pipeline, then who needs whose data.
pub(crate) fn pipeline(report: &Report, paint: Paint) -> String {
    let mut page = Page { report, paint, text: String::new() };
    page.profiles();
    page.around();
    page.flow_control();
    page.data();
    if let Some(shadow) = &report.shadow {
        page.heading(&format!("shadow, for {} of the requests", share(shadow.fraction)));
        for line in pipeline(&shadow.pipeline, paint).lines() {
            let indent = if line.is_empty() { "" } else { "  " };
            page.text += &format!("{indent}{line}\n");
        }
    }
    page.text
}

fn share(fraction: f64) -> String {
    format!("{} %", (fraction * 1e4).round() / 1e2)
}

/// Writes the pool that stands beside a configuration.
pub(crate) fn pool(pool: &LegacyPool, paint: Paint) -> String {
    let mut text = format!("\n{}\n", paint.heading(&format!("pool {}", pool.name)));
    for (label, value) in &pool.match_labels {
        text += &format!("  {} {label}={value}\n", paint.faint("label    "));
    }
    if !pool.target_model.is_empty() {
        text += &format!("  {} {}\n", paint.faint("model    "), pool.target_model);
    }
    text
}

struct Page<'a> {
    report: &'a Report,
    paint: Paint,
    text: String,
}

impl<'a> Page<'a> {
    fn heading(&mut self, text: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.text += &format!("{gap}{}\n", self.paint.heading(text));
    }

    /// A line of a section: what it is, who does it.
    fn line(&mut self, what: &str, who: &str) {
        let what = self.paint.faint(&format!("{what:<9}"));
        self.text += &format!("  {what} {who}\n");
    }

    /// Lines for a list; the first says what it is.
    fn list(&mut self, what: &str, who: &[String]) {
        for (who, i) in who.iter().zip(0..) {
            self.line(if i == 0 { what } else { "" }, who);
        }
    }

    /// The name of an instance with what is worth knowing of it.
    fn label(&self, name: &str) -> String {
        let Some(plugin) = self.report.plugin(name) else { return name.to_owned() };
        let mut notes: Vec<&str> = Vec::new();
        if plugin.type_name != plugin.name {
            notes.push(&plugin.type_name);
        }
        if plugin.origin != "declared" {
            notes.push(plugin.origin);
        }
        if plugin.experimental {
            notes.push("experimental");
        }
        if notes.is_empty() {
            return name.to_owned();
        }
        format!("{name} {}", self.paint.faint(&format!("({})", notes.join(", "))))
    }

    fn labels(&self, names: &[String]) -> Vec<String> {
        names.iter().map(|name| self.label(name)).collect()
    }

    fn profiles(&mut self) {
        let report = self.report;
        for profile in &report.profiles {
            self.heading(&format!("profile {}", profile.name));
            self.list("filter", &self.labels(&profile.filters));
            let width = profile.scorers.iter().map(|s| s.weight.to_string().len()).max();
            let scorer = |s: &super::report::Scorer| {
                format!("{:>1$} × {2}", s.weight, width.unwrap_or(0), self.label(&s.name))
            };
            let scorers: Vec<String> = profile.scorers.iter().map(scorer).collect();
            self.list("score", &scorers);
            if scorers.is_empty() {
                self.line("score", &self.paint.faint("nothing: all endpoints that are left tie"));
            }
            self.line("pick", &self.label(&profile.picker));
        }
    }

    fn around(&mut self) {
        let report = self.report;
        self.heading("around the profiles");
        self.line("handler", &self.label(&report.handler));
        self.list("decider", &self.labels(&report.deciders));
        let hooks = [
            ("pre-call", &report.hooks.pre_call),
            ("screen", &report.hooks.screeners),
            ("admit", &report.hooks.admitters),
            ("chosen", &report.hooks.post_choice),
            ("response", &report.hooks.after_response),
            ("parser", &report.parsers),
        ];
        for (what, names) in hooks {
            self.list(what, &self.labels(names));
        }
        for source in &report.data_layer.sources {
            let mut who = self.label(&source.name);
            let extractors = self.labels(&source.extractors).join(", ");
            if !extractors.is_empty() {
                who += &format!(" → {extractors}");
            }
            self.line("source", &who);
        }
        match &report.data_layer.discovery {
            Some(name) => self.line("discovery", &self.label(name)),
            None => self.line("discovery", "Kubernetes"),
        }
    }

    fn flow_control(&mut self) {
        let Some(flow) = &self.report.flow_control else { return };
        self.heading("flow control");
        let limit = |limit: Option<u64>, of: &str| match limit {
            Some(limit) => format!("{limit} {of}"),
            None => format!("any number of {of}"),
        };
        let (bytes, requests) =
            (limit(flow.max_bytes, "bytes"), limit(flow.max_requests, "requests"));
        self.line("all bands", &format!("{bytes}, {requests}"));
        let wait = |ttl: Option<f64>| match ttl {
            Some(seconds) => format!("{seconds} s"),
            None => "for ever".to_owned(),
        };
        let (wait, empty) = (wait(flow.default_request_ttl), wait(flow.no_endpoint_request_ttl));
        self.line("wait", &format!("{wait}; while the pool is empty {empty}"));
        self.line("saturated", &self.label(&flow.saturation_detector));
        self.line("usage", &self.label(&flow.usage_limit_policy));
        if flow.enable_eviction {
            self.line("eviction", "of running requests of negative priority");
        }
        for band in &flow.bands {
            self.band(&format!("band {}", band.priority), band);
        }
        self.band("others", &flow.default_band);
        if flow.default_negative_band != flow.default_band {
            self.band("below 0", &flow.default_negative_band);
        }
    }

    fn band(&mut self, what: &str, band: &Band) {
        let Band { max_bytes, max_requests, .. } = band;
        let (fairness, ordering) =
            (self.label(&band.fairness_policy), self.label(&band.ordering_policy));
        let who = format!("{max_bytes} bytes, {max_requests} requests, {fairness}, {ordering}");
        self.line(what, &who);
    }

    /// A tree per consumer that no other instance stands above.
    fn data(&mut self) {
        let report = self.report;
        let read: BTreeSet<&str> = report
            .plugins
            .iter()
            .flat_map(|p| p.requires.iter().chain(&p.uses).map(|d| d.producer.as_str()))
            .collect();
        let reads = |p: &&Plugin| !p.requires.is_empty() || !p.uses.is_empty();
        let roots = report.plugins.iter().filter(|p| !read.contains(p.name.as_str()));
        let roots: Vec<&Plugin> = roots.filter(reads).collect();
        if roots.is_empty() {
            return;
        }
        self.heading("data");
        for root in roots {
            self.text += &format!("  {}\n", self.label(&root.name));
            self.branches(root, "  ", &[]);
        }
    }

    /// What an instance reads, and what its producers read in turn.
    fn branches(&mut self, plugin: &'a Plugin, indent: &str, above: &[&str]) {
        let wishes = plugin.uses.iter().filter(|d| !plugin.requires.contains(d));
        let all: Vec<(&Data, bool)> =
            plugin.requires.iter().map(|d| (d, true)).chain(wishes.map(|d| (d, false))).collect();
        let above = [above, &[&plugin.name]].concat();
        for (&(data, needed), i) in all.iter().zip(1..) {
            let last = i == all.len();
            let (fork, next) = if last { ("└─", "   ") } else { ("├─", "│  ") };
            let from = match data.producer.as_str() {
                "" => self.paint.warning("nobody"),
                producer => self.label(producer),
            };
            let optional = if needed { "" } else { " (optional)" };
            self.text += &format!("{indent}{fork} {}{optional} ← {from}\n", data.key);
            let producer = self.report.plugin(&data.producer);
            // Optional data may go round in a circle.
            if let Some(producer) = producer.filter(|p| !above.contains(&p.name.as_str())) {
                self.branches(producer, &format!("{indent}{next}"), &above);
            }
        }
    }
}
