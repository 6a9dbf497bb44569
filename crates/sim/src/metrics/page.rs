//! The Prometheus page, compiled once and filled in at every scrape.
//!
//! Nearly all of the page never changes. A [`Page`] is therefore one string with slots in it; rendering copies the
//! string and writes one value per slot. Numbers, created-gauges and label order are those of the Python client.

use std::fmt::Write as _;

use super::stats::{Counter, Distribution, Stats};

/// A page with slots.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    /// (where in `text`, what), ascending.
    slots: Vec<(usize, Slot)>,
    /// Time of birth of every counter, as Unix time in seconds.
    created: f64,
}

/// What fills a place in the page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slot {
    /// Observations up to and including bucket `.1`.
    Bucket(Distribution, usize),
    /// Number of observations.
    Count(Distribution),
    /// A counter.
    Counter(Counter),
    /// A gauge.
    Gauge(Gauge),
    /// Several lines, possibly none.
    Section(Section),
    /// Sum of observations.
    Sum(Distribution),
}

/// Values that are read when the page is rendered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gauge {
    /// Share of the blocks that running jobs hold.
    CacheUsage,
    /// Waiting for room.
    Capacity,
    /// CPU time of the process, in seconds.
    Cpu,
    /// Waiting for an adapter.
    Deferred,
    /// Limit of open files.
    MaxFiles,
    /// Open files.
    OpenFiles,
    /// Resident memory, in bytes.
    ResidentMemory,
    /// Running jobs.
    Running,
    /// Start of the process, as Unix time in seconds.
    StartTime,
    /// Virtual memory, in bytes.
    VirtualMemory,
    /// Waiting jobs.
    Waiting,
}

/// Families whose label sets are not known beforehand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Section {
    /// HTTP requests by handler.
    Http,
    /// LoRA adapters.
    Lora,
}

/// Where the values come from.
pub trait Source {
    /// The engine's counters.
    fn stats(&self) -> &Stats;

    /// The present value of a gauge.
    fn gauge(&self, gauge: Gauge) -> f64;

    /// Appends the lines of a section.
    fn section(&self, section: Section, out: &mut String);
}

impl Page {
    /// An empty page whose counters were born at `created` (Unix time in seconds).
    pub fn new(created: f64) -> Self {
        Self { created, ..Self::default() }
    }

    /// The page with the values of `source`.
    pub fn render(&self, source: &impl Source) -> String {
        let mut out = String::with_capacity(self.text.len() + 16 * self.slots.len() + 4096);
        let mut from = 0;
        let mut below = 0;
        for &(to, slot) in &self.slots {
            out.push_str(&self.text[from..to]);
            from = to;
            match slot {
                Slot::Bucket(name, at) => {
                    let buckets = source.stats()[name].buckets();
                    below = if at == 0 { 0 } else { below } + buckets[at];
                    count(below, &mut out);
                }
                Slot::Count(name) => count(source.stats()[name].count(), &mut out),
                Slot::Counter(name) => count(source.stats()[name], &mut out),
                Slot::Gauge(gauge) => number(source.gauge(gauge), &mut out),
                Slot::Section(section) => {
                    source.section(section, &mut out);
                    continue;
                }
                Slot::Sum(name) => number(source.stats()[name].sum(), &mut out),
            }
            out.push('\n');
        }
        out.push_str(&self.text[from..]);
        out
    }

    /// A gauge family; each sample has the labels and the value.
    pub fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, Value)>,
    ) {
        header(name, help, "gauge", &mut self.text);
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    /// A counter family and the gauge family of its birth times. `name` is without `_total`.
    pub fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, Value)>,
    ) {
        let samples: Vec<_> = samples.into_iter().collect();
        self.bare_counter(&format!("{name}_total"), help, samples.iter().cloned());
        let created = Value::Fixed(self.created);
        self.gauge(
            &format!("{name}_created"),
            help,
            samples.into_iter().map(|(labels, _)| (labels, created)),
        );
    }

    /// A counter family without birth times. `name` is the full name.
    pub fn bare_counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, Value)>,
    ) {
        header(name, help, "counter", &mut self.text);
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    /// A histogram family over `bounds`, and the gauge family of its birth time.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &Labels<'_>,
        distribution: Distribution,
        bounds: &[f64],
    ) {
        header(name, help, "histogram", &mut self.text);
        let bucket = format!("{name}_bucket");
        for at in 0..=bounds.len() {
            let bound = bounds.get(at).copied().unwrap_or(f64::INFINITY);
            let bound = text_of(bound);
            let labels = labels.with("le", &bound);
            self.sample(&bucket, &labels, Value::Live(Slot::Bucket(distribution, at)));
        }
        self.sample(&format!("{name}_count"), labels, Value::Live(Slot::Count(distribution)));
        self.sample(&format!("{name}_sum"), labels, Value::Live(Slot::Sum(distribution)));
        let created = Value::Fixed(self.created);
        self.gauge(&format!("{name}_created"), help, [(labels.clone(), created)]);
    }

    /// A place for families that are rendered elsewhere.
    pub fn section(&mut self, section: Section) {
        self.slots.push((self.text.len(), Slot::Section(section)));
    }

    fn sample(&mut self, name: &str, labels: &Labels<'_>, value: Value) {
        self.text.push_str(name);
        labels.write(&mut self.text);
        self.text.push(' ');
        match value {
            Value::Fixed(value) => {
                number(value, &mut self.text);
                self.text.push('\n');
            }
            Value::Live(slot) => self.slots.push((self.text.len(), slot)),
        }
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Never changes.
    Fixed(f64),
    /// Filled in at every rendering.
    Live(Slot),
}

/// Labels of a sample, written in alphabetical order.
#[derive(Clone, Debug, Default)]
pub struct Labels<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Labels<'a> {
    /// The labels `pairs`, in any order.
    pub fn new(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_unstable();
        Self(pairs)
    }

    /// These labels and one more.
    pub fn with<'b>(&self, name: &'b str, value: &'b str) -> Labels<'b>
    where
        'a: 'b,
    {
        Labels::new(self.0.iter().copied().chain([(name, value)]))
    }

    /// Appends `{name="value",…}`, or nothing for no labels.
    pub fn write(&self, out: &mut String) {
        let mut before = '{';
        for (name, value) in &self.0 {
            out.push(before);
            before = ',';
            out.push_str(name);
            out.push_str("=\"");
            for character in value.chars() {
                match character {
                    '"' => out.push_str("\\\""),
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    other => out.push(other),
                }
            }
            out.push('"');
        }
        if !self.0.is_empty() {
            out.push('}');
        }
    }
}

/// Appends the HELP and TYPE lines of a family.
pub fn header(name: &str, help: &str, kind: &str, out: &mut String) {
    for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"] {
        out.push_str(part);
    }
}

/// Appends a number as the Python client writes it: shortest form that reads back, with an exponent from 1e6 up.
pub fn number(value: f64, out: &mut String) {
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        return;
    }
    let start = out.len();
    // Writing to a string cannot fail.
    let _ = write!(out, "{value:?}");
    let digits = &out[start..];
    if let Some(dot) = digits.find('.').filter(|dot| *dot > 6 && !digits.starts_with('-')) {
        let mantissa = format!("{}.{}{}", &digits[..1], &digits[1..dot], &digits[dot + 1..]);
        out.truncate(start);
        let _ = write!(out, "{}e+{:02}", mantissa.trim_end_matches(['0', '.']), dot - 1);
    }
}

fn count(value: u64, out: &mut String) {
    if value >= 1_000_000 {
        number(value as f64, out);
        return;
    }
    // Most values are small counts: digits by hand are several times faster than float formatting.
    let mut digits = [0; 6];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|digit| char::from(*digit)));
    out.push_str(".0");
}

fn text_of(value: f64) -> String {
    let mut text = String::new();
    number(value, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_python() {
        let text = |value| text_of(value);
        assert_eq!(text(0.0), "0.0");
        assert_eq!(text(0.001), "0.001");
        assert_eq!(text(8295.0), "8295.0");
        assert_eq!(text(999_999.5), "999999.5");
        assert_eq!(text(1_795_212_443.972_456_5), "1.7952124439724565e+09");
        assert_eq!(text(4_622_880_768.0), "4.622880768e+09");
        assert_eq!(text(10_000_000.0), "1e+07");
        assert_eq!(text(f64::INFINITY), "+Inf");
    }

    #[test]
    fn counts_are_written_like_numbers() {
        for value in [0, 7, 10, 12_345, 999_999, 1_000_000, 123_456_789_012] {
            let mut counted = String::new();
            count(value, &mut counted);
            assert_eq!(counted, text_of(value as f64));
        }
    }

    #[test]
    fn labels_are_sorted_and_escaped() {
        let mut out = String::new();
        Labels::new([("model_name", "a\"b\\\n"), ("engine", "0")])
            .with("le", "1.0")
            .write(&mut out);
        assert_eq!(out, r#"{engine="0",le="1.0",model_name="a\"b\\\n"}"#);
    }
}
