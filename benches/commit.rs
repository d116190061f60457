//! Durable commits: the file channel beside the best raw `pwrite` + `fdatasync` of the same
//! bytes on the same disk, in the same run.
//!
//! `cargo bench --bench commit` prints, for each batch size and write backend, the median of five
//! interleaved runs and the ratio to the raw line, then criterion's own report.
//! `FOREBAY_BENCH_DIR` chooses the disk (default `target/bench`), `FOREBAY_BENCH_SHORT=1` leaves
//! criterion's report out.
#![allow(missing_docs, reason = "a benchmark has no public items")]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::{Channel, PutBatch, PutEvent, TakeMode, TakeTransaction};
use forebay::env::clock;
use forebay::env::disk::WriteBackend;
use forebay::env::disk_real::RealDisk;
use forebay::event::Event;

const EVENT_BYTES: usize = 500;
const BATCHES: [usize; 3] = [1, 100, 1000];
const RUNS: usize = 5;
const RUN_TIME: Duration = Duration::from_millis(1500);
const RAW_BYTES: usize = 64 << 20;

fn batch(events: usize) -> PutBatch {
    let body = bytes::Bytes::from(vec![b'x'; EVENT_BYTES]);
    let put = PutEvent {
        event: Event::from_body(body),
        position: None,
    };
    PutBatch {
        events: vec![put; events],
        positions: Vec::new(),
    }
}

/// A warm, zeroed file that is overwritten from the start when it is full.
struct Raw {
    file: std::fs::File,
    at: usize,
}

impl Raw {
    fn new(dir: &Path) -> Self {
        let mut options = std::fs::File::options();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(dir.join("raw")).expect("open the raw file");
        file.write_all_at(&vec![0; RAW_BYTES], 0)
            .expect("fill the raw file");
        file.sync_all().expect("sync the raw file");
        Self { file, at: 0 }
    }

    fn commit(&mut self, bytes: &[u8]) {
        if self.at + bytes.len() > RAW_BYTES {
            self.at = 0;
        }
        self.file
            .write_all_at(bytes, self.at as u64)
            .expect("raw write");
        self.file.sync_data().expect("raw sync");
        self.at += bytes.len();
    }
}

struct Ours {
    channel: Arc<FileChannel>,
    runtime: tokio::runtime::Runtime,
}

impl Ours {
    fn new(dir: &Path, backend: WriteBackend) -> Self {
        let options = FileChannelOptions {
            data_dirs: vec![dir.join(format!("{backend:?}").to_lowercase())],
            capacity: u64::MAX >> 1,
            minimum_required_space: 1 << 20,
            backend,
            keep_dead: Duration::ZERO,
            keep_alive: Duration::from_secs(30),
            ..FileChannelOptions::default()
        };
        let channel = FileChannel::open("bench", options, Arc::new(RealDisk), clock::system())
            .expect("open the channel");
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("runtime");
        Self { channel, runtime }
    }

    fn commit(&self, events: usize) {
        self.channel
            .commit_put_blocking(batch(events))
            .expect("commit");
    }

    /// Takes and acknowledges what a run has put, outside the measured time.
    fn drain(&self) {
        let channel: Arc<dyn Channel> = Arc::clone(&self.channel) as _;
        self.runtime.block_on(async {
            loop {
                let mut take =
                    TakeTransaction::begin(Arc::clone(&channel), TakeMode::Batch).expect("lease");
                if take.take(1_000_000, 64 << 20).expect("take").is_empty() {
                    return;
                }
                take.commit().await.expect("acknowledge");
            }
        });
    }
}

/// Commits per second over one run.
fn rate(mut commit: impl FnMut()) -> f64 {
    let (start, mut commits) = (Instant::now(), 0_u32);
    while start.elapsed() < RUN_TIME {
        commit();
        commits += 1;
    }
    f64::from(commits) / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its table")]
fn side_by_side(dir: &Path) {
    let mut raw = Raw::new(dir);
    let backends = [WriteBackend::Pwrite, WriteBackend::Map];
    let ours: Vec<Ours> = backends.iter().map(|b| Ours::new(dir, *b)).collect();
    println!("durable commits of {EVENT_BYTES}-byte events, median of {RUNS} interleaved runs");
    println!("batch       raw ev/s    pwrite ev/s  ratio       map ev/s  ratio");
    for events in BATCHES {
        let bytes = vec![b'x'; 64 + (events * (EVENT_BYTES + 4)).next_multiple_of(8)];
        let mut rates = vec![Vec::new(); 3];
        for _ in 0..RUNS {
            rates[0].push(rate(|| raw.commit(&bytes)));
            for (index, channel) in ours.iter().enumerate() {
                rates[index + 1].push(rate(|| channel.commit(events)));
                channel.drain();
            }
        }
        let m: Vec<f64> = rates
            .into_iter()
            .map(|r| median(r) * events as f64)
            .collect();
        let (pwrite, map) = (m[1] / m[0], m[2] / m[0]);
        println!(
            "{events:>5} {:>14.0} {:>14.0} {pwrite:>6.2} {:>14.0} {map:>6.2}",
            m[0], m[1], m[2]
        );
    }
}

fn criterion_report(dir: &Path) {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .configure_from_args();
    let mut group = criterion.benchmark_group("durable_commit");
    let mut raw = Raw::new(dir);
    for events in BATCHES {
        group.throughput(Throughput::Elements(events as u64));
        let bytes = vec![b'x'; 64 + (events * (EVENT_BYTES + 4)).next_multiple_of(8)];
        group.bench_function(BenchmarkId::new("raw", events), |b| {
            b.iter(|| raw.commit(&bytes))
        });
        for backend in [WriteBackend::Pwrite, WriteBackend::Map] {
            let ours = Ours::new(dir, backend);
            let name = format!("{backend:?}").to_lowercase();
            group.bench_function(BenchmarkId::new(name, events), |b| {
                b.iter(|| ours.commit(events));
            });
            ours.drain();
        }
    }
    group.finish();
    criterion.final_summary();
}

fn main() {
    let base = std::env::var_os("FOREBAY_BENCH_DIR");
    let base = base.map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
    let dir = base.join(format!("commit-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("make the bench directory");
    side_by_side(&dir);
    if std::env::var_os("FOREBAY_BENCH_SHORT").is_none() {
        criterion_report(&dir);
    }
    std::fs::remove_dir_all(&dir).expect("remove the bench directory");
}
