//! Logs: one JSON object per line on standard error.
//!
//! Fields: `level`, `ts` (seconds since the epoch), `logger`, `caller`, `msg`, then the event's
//! own.

use std::fmt;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Sends all logs of the process to standard error from now on. A second call changes nothing.
pub(crate) fn install(level: Level) {
    let layer = JsonLines { level, out: std::io::stderr };
    let subscriber = tracing_subscriber::registry().with(layer);
    // Refused when something else, a test perhaps, was first: then that one logs.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// The level of a verbosity as the original counts it: 2 and 3 are info, 4 debug, 5 trace;
/// negative ones count as 2.
pub(crate) fn level_of_verbosity(verbosity: i64) -> Level {
    match verbosity {
        ..=3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

struct JsonLines<F> {
    level: Level,
    out: F,
}

impl<S, F, W> Layer<S> for JsonLines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: Fn() -> W + 'static,
    W: Write,
{
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= self.level
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = line(event);
        line.push('\n');
        // One write per line, so that lines of several threads stay whole. Nobody could be told
        // of an error.
        let _ = (self.out)().write_all(line.as_bytes());
    }
}

fn line(event: &Event<'_>) -> String {
    let metadata = event.metadata();
    let mut fields = Fields::default();
    event.record(&mut fields);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = String::with_capacity(256);
    let level = match *metadata.level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let caller = format!("{}:{}", metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0));
    let head = [
        ("level", Value::from(level)),
        ("ts", Value::from(now.as_micros() as f64 / 1e6)),
        ("logger", Value::from(metadata.target())),
        ("caller", Value::from(caller)),
        ("msg", Value::from(fields.message)),
    ];
    line.push('{');
    for (i, (key, value)) in head.into_iter().chain(fields.others).enumerate() {
        if i > 0 {
            line.push(',');
        }
        line.push_str(&Value::from(key).to_string());
        line.push(':');
        line.push_str(&value.to_string());
    }
    line.push('}');
    line
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else {
            self.others.push((field.name(), value));
        }
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format!("{value:?}").into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Map;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: Level, log: impl FnOnce()) -> Vec<Map<String, Value>> {
        let sink = Sink::default();
        let out = sink.clone();
        let layer = JsonLines { level, out: move || out.clone() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_is_an_object_with_the_common_fields_first() {
        let lines = logged(Level::INFO, || {
            tracing::info!(count = 3, name = "a\"b", ok = true, error = %"odd\n", "hello {}", 1);
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(line["level"], "info");
        assert_eq!(line["msg"], "hello 1");
        assert!(line["ts"].as_f64().unwrap() > 1.7e9);
        assert!(line["caller"].as_str().unwrap().contains("logs.rs:"));
        assert!(line["logger"].as_str().unwrap().starts_with("inlane_control"));
        assert_eq!((&line["count"], &line["name"]), (&3.into(), &"a\"b".into()));
        assert_eq!((&line["ok"], &line["error"]), (&true.into(), &"odd\n".into()));
    }

    #[test]
    fn the_level_filters() {
        let lines = logged(level_of_verbosity(4), || {
            tracing::debug!("seen");
            tracing::trace!("not seen");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(level_of_verbosity(-1), Level::INFO);
        assert_eq!(level_of_verbosity(9), Level::TRACE);
    }
}
