//! What the HTTP server counts: requests, sizes and times by handler.

use std::time::Duration;

use super::{
    histogram::Histogram,
    page::{Labels, header, number},
};

/// Counts by handler; one per pod.
#[derive(Debug)]
pub struct HttpStats {
    created: f64,
    handlers: Vec<Handler>,
    /// Times of all handlers together.
    times: Histogram,
}

/// One finished exchange.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// The path if the server knows it, otherwise `none`.
    pub handler: &'static str,
    /// The method.
    pub method: &'static str,
    /// The response status.
    pub status: u16,
    /// Content length of the request.
    pub request_bytes: u64,
    /// Content length of the response; 0 for a stream.
    pub response_bytes: u64,
    /// Until the response was ready to be sent.
    pub elapsed: Duration,
}

#[derive(Debug)]
struct Handler {
    name: &'static str,
    method: &'static str,
    /// Responses by the first digit of the status.
    by_class: [u64; 6],
    requests: u64,
    request_bytes: u64,
    response_bytes: u64,
    times: Histogram,
}

impl HttpStats {
    /// Nothing counted; `created` is the present Unix time in seconds.
    pub fn new(created: f64) -> Self {
        Self { created, handlers: Vec::new(), times: Histogram::new(FINE) }
    }

    /// Counts an exchange.
    pub fn record(&mut self, exchange: Exchange) {
        let same = |h: &Handler| h.name == exchange.handler && h.method == exchange.method;
        let at = self.handlers.iter().position(same).unwrap_or_else(|| {
            self.handlers.push(Handler {
                name: exchange.handler,
                method: exchange.method,
                by_class: [0; 6],
                requests: 0,
                request_bytes: 0,
                response_bytes: 0,
                times: Histogram::new(COARSE),
            });
            self.handlers.len() - 1
        });
        let handler = &mut self.handlers[at];
        handler.by_class[usize::from(exchange.status / 100).min(5)] += 1;
        handler.requests += 1;
        handler.request_bytes += exchange.request_bytes;
        handler.response_bytes += exchange.response_bytes;
        handler.times.observe(exchange.elapsed.as_secs_f64());
        self.times.observe(exchange.elapsed.as_secs_f64());
    }

    /// Appends the families.
    pub fn render(&self, out: &mut String) {
        self.requests(out);
        let size = "Content length of incoming requests by handler. Only value of header is respected. \
                    Otherwise ignored. No percentile calculated. ";
        self.sizes("http_request_size_bytes", size, |handler| handler.request_bytes, out);
        let size = "Content length of outgoing responses by handler. Only value of header is \
                    respected. Otherwise ignored. No percentile calculated. ";
        self.sizes("http_response_size_bytes", size, |handler| handler.response_bytes, out);

        let (name, help) = (
            "http_request_duration_highr_seconds",
            "Latency with many buckets but no API specific labels. Made for more accurate percentile \
             calculations. ",
        );
        header(name, help, "histogram", out);
        histogram(name, &Labels::default(), &self.times, out);
        self.created_header(name, help, out);
        sample(&format!("{name}_created"), &Labels::default(), self.created, out);

        let (name, help) = (
            "http_request_duration_seconds",
            "Latency with only few buckets by handler. Made to be only used if aggregation by handler \
             is important. ",
        );
        header(name, help, "histogram", out);
        for handler in &self.handlers {
            let labels = Labels::new([("handler", handler.name), ("method", handler.method)]);
            histogram(name, &labels, &handler.times, out);
        }
        self.created_header(name, help, out);
        for handler in &self.handlers {
            let labels = Labels::new([("handler", handler.name), ("method", handler.method)]);
            sample(&format!("{name}_created"), &labels, self.created, out);
        }
    }

    fn requests(&self, out: &mut String) {
        let help = "Total number of requests by method, status and handler.";
        header("http_requests_total", help, "counter", out);
        self.by_status(out, "http_requests_total", |count| count as f64);
        self.created_header("http_requests", help, out);
        self.by_status(out, "http_requests_created", |_| self.created);
    }

    fn by_status(&self, out: &mut String, name: &str, value: impl Fn(u64) -> f64) {
        const CLASSES: [&str; 6] = ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"];
        for handler in &self.handlers {
            for (count, class) in
                handler.by_class.iter().zip(CLASSES).filter(|(count, _)| **count > 0)
            {
                let labels = Labels::new([
                    ("handler", handler.name),
                    ("method", handler.method),
                    ("status", class),
                ]);
                sample(name, &labels, value(*count), out);
            }
        }
    }

    fn sizes(&self, name: &str, help: &str, bytes: impl Fn(&Handler) -> u64, out: &mut String) {
        header(name, help, "summary", out);
        for handler in &self.handlers {
            let labels = Labels::new([("handler", handler.name)]);
            sample(&format!("{name}_count"), &labels, handler.requests as f64, out);
            sample(&format!("{name}_sum"), &labels, bytes(handler) as f64, out);
        }
        self.created_header(name, help, out);
        for handler in &self.handlers {
            let labels = Labels::new([("handler", handler.name)]);
            sample(&format!("{name}_created"), &labels, self.created, out);
        }
    }

    fn created_header(&self, name: &str, help: &str, out: &mut String) {
        // A family without any handler yet has no birth times either.
        if !self.handlers.is_empty() || name == "http_request_duration_highr_seconds" {
            header(&format!("{name}_created"), help, "gauge", out);
        }
    }
}

fn histogram(name: &str, labels: &Labels<'_>, histogram: &Histogram, out: &mut String) {
    let mut below = 0;
    for (at, count) in histogram.buckets().iter().enumerate() {
        below += count;
        let bound = histogram.bounds().get(at).copied().unwrap_or(f64::INFINITY);
        let mut text = String::new();
        number(bound, &mut text);
        sample(&format!("{name}_bucket"), &labels.with("le", &text), below as f64, out);
    }
    sample(&format!("{name}_count"), labels, histogram.count() as f64, out);
    sample(&format!("{name}_sum"), labels, histogram.sum(), out);
}

fn sample(name: &str, labels: &Labels<'_>, value: f64, out: &mut String) {
    out.push_str(name);
    labels.write(out);
    out.push(' ');
    number(value, out);
    out.push('\n');
}

const FINE: [f64; 21] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0,
    7.5, 10.0, 30.0, 60.0,
];
const COARSE: [f64; 3] = [0.1, 0.5, 1.0];
