//! The encode path of a put: `PutEncoder` beside the least that could be done for the same bytes,
//! copying each body into one warm buffer and one CRC-32 over it.
//!
//! `cargo bench --bench encode` prints, for each batch size, the median of interleaved runs and the
//! ratio to the plain line, then criterion's own report. `FOREBAY_BENCH_SHORT=1` leaves the latter
//! out. No disk takes part; see `benches/commit.rs` for durable commits.
#![allow(missing_docs, reason = "a benchmark has no public items")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use wal_format::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, Lsn, PutEncoder};

const EVENT_BYTES: usize = 500;
const BATCHES: [usize; 3] = [1, 100, 1000];
const RUNS: usize = 9;
const RUN_TIME: Duration = Duration::from_millis(200);

/// Names and values as a source sets them.
const HEADERS: [(&str, &str); 2] = [("timestamp", "1700000000123"), ("host", "node-17")];

fn bodies(events: usize) -> Vec<Vec<u8>> {
    (0..events)
        .map(|n| vec![u8::try_from(n % 256).unwrap_or(0); EVENT_BYTES])
        .collect()
}

/// The yardstick: bodies into a warm buffer, one sum.
fn plain(bodies: &[Vec<u8>], buffer: &mut Vec<u8>) -> u32 {
    buffer.clear();
    for body in bodies {
        buffer.extend_from_slice(black_box(body));
    }
    crc32fast::hash(buffer)
}

/// What a producer and the committer do for one transaction, in a reused buffer: the whole frame,
/// header included.
fn encode(bodies: &[Vec<u8>], headers: &[(&str, &str)], buffer: &mut Vec<u8>) -> u32 {
    let mut put = PutEncoder::reusing(std::mem::take(buffer));
    for body in bodies {
        put.event(headers.iter().copied(), black_box(body), Some((0, 1000)));
    }
    put.position(b"source/file", b"inode");
    let mut frame = put.finish();
    let header = FrameHeader {
        kind: FrameKind::Put,
        first_of_transaction: true,
        last_of_transaction: true,
        compression_id: 0,
        body_len: frame.body_len,
        body_crc: frame.body_crc,
        sequence: 1,
        count: frame.count,
        control: 0,
        put_time_ms: 0,
        watermark: Lsn(0),
    };
    let room: &mut [u8; FRAME_HEADER_BYTES] = frame.header_room().expect("room for the header");
    header.encode(0x5a17, Lsn::new(1, 4096), room);
    *buffer = frame.buffer;
    header.body_crc
}

/// A line of the table: its name, and what it does with a batch.
type Line = (&'static str, fn(&[Vec<u8>], &mut Vec<u8>) -> u32);

const LINES: [Line; 3] = [
    ("memcpy_crc", plain),
    ("put", |bodies, buffer| encode(bodies, &[], buffer)),
    ("put_2_headers", |bodies, buffer| {
        encode(bodies, &HEADERS, buffer)
    }),
];

/// Nanoseconds per call over one run.
fn time(mut call: impl FnMut() -> u32) -> f64 {
    let (start, mut calls) = (Instant::now(), 0_u32);
    while start.elapsed() < RUN_TIME {
        for _ in 0..16 {
            black_box(call());
        }
        calls += 16;
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its table")]
fn side_by_side() {
    println!("encoding {EVENT_BYTES}-byte events, ns a batch, median of {RUNS} interleaved runs");
    println!("batch  memcpy+crc         put  ratio  put, 2 headers  ratio");
    for events in BATCHES {
        let bodies = bodies(events);
        let mut buffers = [const { Vec::new() }; LINES.len()];
        let mut times = [const { Vec::new() }; LINES.len()];
        for _ in 0..RUNS {
            for (index, (_, line)) in LINES.iter().enumerate() {
                let buffer = &mut buffers[index];
                times[index].push(time(|| line(&bodies, buffer)));
            }
        }
        let [plain, put, headers] = times.map(median);
        println!(
            "{events:>5} {plain:>11.0} {put:>11.0} {:>6.2} {headers:>15.0} {:>6.2}",
            put / plain,
            headers / plain
        );
    }
}

fn criterion_report() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .configure_from_args();
    let mut group = criterion.benchmark_group("encode");
    for events in BATCHES {
        let bodies = bodies(events);
        group.throughput(Throughput::Elements(events as u64));
        for (name, line) in LINES {
            let mut buffer = Vec::new();
            group.bench_function(BenchmarkId::new(name, events), |b| {
                b.iter(|| line(&bodies, &mut buffer));
            });
        }
    }
    group.finish();
    criterion.final_summary();
}

fn main() {
    side_by_side();
    if std::env::var_os("FOREBAY_BENCH_SHORT").is_none() {
        criterion_report();
    }
}
