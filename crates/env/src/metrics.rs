//! Counters and gauges by name and labels, shown as pairs (`pvfs status --json`) and as Prometheus text.
//!
//! A handle is one atomic number: counting takes no lock. Names and labels are listed in `docs/metrics.md`.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// All counters of one daemon or client. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    series: Arc<Mutex<Series>>,
}

type Series = BTreeMap<String, (Kind, Arc<AtomicU64>)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

/// A number that only rises.
#[derive(Clone, Debug)]
pub struct Counter(Arc<AtomicU64>);

/// A number that comes and goes.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<AtomicU64>);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// The counter of that name and those labels, made at the first call.
    pub fn counter(&self, name: &str, labels: &[(&str, &str)]) -> Counter {
        Counter(self.number(Kind::Counter, name, labels))
    }

    /// The gauge of that name and those labels, made at the first call.
    pub fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Gauge {
        Gauge(self.number(Kind::Gauge, name, labels))
    }

    fn number(&self, kind: Kind, name: &str, labels: &[(&str, &str)]) -> Arc<AtomicU64> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, number) = series.entry(series_name(name, labels)).or_insert_with(|| (kind, Arc::default()));
        Arc::clone(number)
    }

    /// Every series as (`name{label="value"}`, value), in order.
    pub fn snapshot(&self) -> Vec<(String, u64)> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.iter().map(|(name, (_, number))| (name.clone(), number.load(Ordering::Relaxed))).collect()
    }

    /// Prometheus' text format, version 0.0.4.
    pub fn prometheus(&self) -> String {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut text, mut family) = (String::new(), "");
        for (name, (kind, number)) in series.iter() {
            let this_family = name.split('{').next().unwrap_or(name);
            if this_family != family {
                family = this_family;
                let kind = if *kind == Kind::Counter { "counter" } else { "gauge" };
                writeln!(text, "# TYPE {family} {kind}").expect("into a String");
            }
            writeln!(text, "{name} {}", number.load(Ordering::Relaxed)).expect("into a String");
        }
        text
    }

    /// Answers `GET /metrics` over HTTP on `addr` until dropped; gives the bound address once it listens.
    pub async fn serve(self, addr: &str, listening: impl FnOnce(std::net::SocketAddr)) -> io::Result<()> {
        let listener = TcpListener::bind(addr).await?;
        listening(listener.local_addr()?);
        loop {
            // One scrape at a time: whoever dawdles is cut off, so that strangers cannot pile up.
            if let Ok((stream, _)) = listener.accept().await {
                let _ = tokio::time::timeout(Duration::from_secs(2), self.answer_scrape(stream)).await;
            } else {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    async fn answer_scrape(&self, mut stream: tokio::net::TcpStream) -> io::Result<()> {
        let mut request = Vec::new();
        while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 8192 {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let found = request.starts_with(b"GET /metrics ") || request.starts_with(b"GET / ");
        let (status, body) = if found {
            ("200 OK", self.prometheus())
        } else {
            ("404 Not Found", "the metrics are at /metrics\n".to_owned())
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    }
}

fn series_name(name: &str, labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{key}=\"{value}\"")
        })
        .collect();
    format!("{name}{{{}}}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_one_series_count_together() {
        let metrics = Metrics::new();
        metrics.counter("a_total", &[("op", "x")]).inc();
        metrics.counter("a_total", &[("op", "x")]).add(2);
        metrics.gauge("b", &[]).set(7);
        assert_eq!(metrics.snapshot(), [("a_total{op=\"x\"}".to_owned(), 3), ("b".to_owned(), 7)]);
    }

    #[test]
    fn prometheus_text_names_each_family_once() {
        let metrics = Metrics::new();
        metrics.counter("a_total", &[("op", "x\"y")]).inc();
        metrics.counter("a_total", &[("op", "z")]).inc();
        metrics.gauge("b", &[]).set(7);
        assert_eq!(
            metrics.prometheus(),
            "# TYPE a_total counter\na_total{op=\"x\\\"y\"} 1\na_total{op=\"z\"} 1\n# TYPE b gauge\nb 7\n"
        );
    }

    #[tokio::test]
    async fn a_scrape_over_http_gets_the_numbers() {
        let metrics = Metrics::new();
        metrics.counter("a_total", &[]).inc();
        let (tell, told) = tokio::sync::oneshot::channel();
        let server =
            tokio::spawn(metrics.serve("127.0.0.1:0", |addr| tell.send(addr).expect("somebody waits")));
        let mut stream = tokio::net::TcpStream::connect(told.await.expect("bound")).await.expect("connects");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("a_total 1\n"), "{answer}");
        server.abort();
    }
}
