//! Prometheus text, as plugins contribute to it.
//!
//! Several instances may add samples to one family; the page keeps families together, as the text
//! format demands. Made when somebody looks at the metrics, never on the request path.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a family counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

#[derive(Debug)]
enum Value {
    Number(f64),
    Histogram(HistogramSnapshot),
}

#[derive(Debug)]
struct Family {
    name: String,
    help: String,
    kind: Kind,
    /// Labels as text, and the value.
    samples: Vec<(String, Value)>,
}

/// A page of metric families. Samples of one family with the same labels add up.
#[derive(Debug, Default)]
pub struct Exposition {
    families: Vec<Family>,
}

/// One label: name and value.
pub type Label<'a> = (&'a str, &'a str);

impl Exposition {
    /// Adds a sample of a counter.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[Label<'_>], value: f64) {
        self.add(name, help, Kind::Counter, labels, Value::Number(value));
    }

    /// Adds a sample of a gauge.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[Label<'_>], value: f64) {
        self.add(name, help, Kind::Gauge, labels, Value::Number(value));
    }

    /// Adds a histogram.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[Label<'_>],
        histogram: HistogramSnapshot,
    ) {
        self.add(name, help, Kind::Histogram, labels, Value::Histogram(histogram));
    }

    fn add(&mut self, name: &str, help: &str, kind: Kind, labels: &[Label<'_>], value: Value) {
        let known = self.families.iter().position(|f| f.name == name);
        let at = known.unwrap_or_else(|| {
            let (name, help) = (name.to_owned(), help.to_owned());
            self.families.push(Family { name, help, kind, samples: Vec::new() });
            self.families.len() - 1
        });
        let labels = text(labels);
        let samples = &mut self.families[at].samples;
        let same = samples.iter_mut().find(|(known, _)| *known == labels);
        match (same, value) {
            (Some((_, Value::Number(sum))), Value::Number(value)) => *sum += value,
            (Some((_, Value::Histogram(sum))), Value::Histogram(value)) => {
                sum.counts.iter_mut().zip(&value.counts).for_each(|(sum, n)| *sum += n);
                sum.sum += value.sum;
            }
            (_, value) => samples.push((labels, value)),
        }
    }

    /// The page as text.
    pub fn render(&self) -> String {
        let mut page = String::new();
        for Family { name, help, kind, samples } in &self.families {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Writing to a string does not fail.
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                match value {
                    Value::Number(value) => line(&mut page, name, "", labels, *value),
                    Value::Histogram(histogram) => buckets(&mut page, name, labels, histogram),
                }
            }
        }
        page
    }
}

fn buckets(page: &mut String, name: &str, labels: &str, histogram: &HistogramSnapshot) {
    let mut total = 0;
    let comma = if labels.is_empty() { "" } else { "," };
    let bounds = histogram.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(&histogram.counts) {
        total += count;
        let labels = format!("{labels}{comma}le=\"{bound}\"");
        line(page, name, "_bucket", &labels, total as f64);
    }
    line(page, name, "_sum", labels, histogram.sum);
    line(page, name, "_count", labels, total as f64);
}

fn line(page: &mut String, name: &str, suffix: &str, labels: &str, value: f64) {
    let _ = match labels {
        "" => writeln!(page, "{name}{suffix} {value}"),
        labels => writeln!(page, "{name}{suffix}{{{labels}}} {value}"),
    };
}

/// The labels between the braces.
fn text(labels: &[Label<'_>]) -> String {
    let mut text = String::new();
    for (n, (label, value)) in labels.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        text.push_str(label);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text
}

/// A histogram with fixed bounds that workers add to: two relaxed atomic additions each.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One per bound, and one for what is above the last.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    scale: f64,
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSnapshot {
    /// Upper bounds, inclusive.
    pub bounds: &'static [f64],
    /// Observations up to each bound and above the one before; the last is what is above all.
    pub counts: Vec<u64>,
    /// Sum of the observed values.
    pub sum: f64,
}

impl Histogram {
    /// An empty histogram. The sum is kept in units of `1 / scale`, without fractions of these.
    pub fn new(bounds: &'static [f64], scale: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0), scale }
    }

    /// Adds an observation, not negative.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add((value * self.scale) as u64, Relaxed);
    }

    /// The current numbers. Observations that happen meanwhile may be in one and not the other.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: self.sum.load(Relaxed) as f64 / self.scale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_stay_together_and_labels_are_escaped() {
        let mut page = Exposition::default();
        page.counter("a_total", "First.", &[("who", "x\"y\\z\n")], 2.0);
        page.gauge("b", "Second.", &[], 0.5);
        page.counter("a_total", "First.", &[("who", "z"), ("n", "1")], 3.0);
        assert_eq!(
            page.render(),
            "# HELP a_total First.\n# TYPE a_total counter\n\
             a_total{who=\"x\\\"y\\\\z\\n\"} 2\na_total{who=\"z\",n=\"1\"} 3\n\
             # HELP b Second.\n# TYPE b gauge\nb 0.5\n"
        );
    }

    #[test]
    fn samples_with_the_same_labels_add_up() {
        let histogram = Histogram::new(&[1.0], 1.0);
        histogram.observe(3.0);
        let mut page = Exposition::default();
        for _ in 0..2 {
            page.gauge("g", "G.", &[], 1.5);
            page.histogram("h", "H.", &[], histogram.snapshot());
        }
        let text = page.render();
        assert!(text.contains("\ng 3\n") && text.contains("\nh_sum 6\nh_count 2\n"), "{text}");
    }

    #[test]
    fn histograms_are_cumulative() {
        let histogram = Histogram::new(&[1.0, 2.0], 1e3);
        [0.5, 1.0, 1.5, 9.0].into_iter().for_each(|value| histogram.observe(value));
        let mut page = Exposition::default();
        page.histogram("h", "H.", &[("p", "q")], histogram.snapshot());
        assert_eq!(
            page.render(),
            "# HELP h H.\n# TYPE h histogram\nh_bucket{p=\"q\",le=\"1\"} 2\n\
             h_bucket{p=\"q\",le=\"2\"} 3\nh_bucket{p=\"q\",le=\"+Inf\"} 4\n\
             h_sum{p=\"q\"} 12\nh_count{p=\"q\"} 4\n"
        );
    }
}
