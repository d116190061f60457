//! `netcat`: one event a line over TCP, answered `OK` when it is durable.
//!
//! *Place in the flow*: each connection has a reader that splits lines and a committer that puts
//! all lines that have come so far as one transaction and then answers them; while one
//! transaction is being synced, the reader gathers the next. Answers are in the order of the
//! lines, because a connection has one transaction at a time.
//!
//! *Invariants*: `OK` is sent after the channel has acknowledged the line, never before. A full
//! channel holds the client back: the source stops reading, it does not answer `FAILED`, and no
//! line is lost. At most [`QUEUE`] reads wait per connection.
//!
//! *A crash leaves* every line that was answered; lines without an answer may or may not be
//! there, and are there once if the client does not send them again.
//!
//! Answers are those of Flume 1.11's source, compared with it in `tests/flume_netcat.rs`: a line
//! of `max-line-length` characters or more (UTF-16 units, without its line end) is answered
//! `FAILED: Event exceeds the maximum length (N chars, including newline)` and the connection is
//! closed; the lines before it are answered as usual. A last line without line end is not a
//! line: it is neither stored nor answered. `\r` before the line end is part of the body.
//! Where we differ on purpose: bytes that are not UTF-8 are passed on as they are (Flume closes
//! the connection without an answer and loses the lines of the same read), and a full channel
//! means waiting (Flume answers `FAILED` and drops the line).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::listener::Listener;
use super::runner::{PutError, Runner};
use super::{Shutdown, Source, SourceContext, SourceError};
use crate::channel::{PutBatch, PutEvent};
use crate::config::options::NetcatConfig;
use crate::event::Event;

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;
/// Reads that wait for the committer.
pub const QUEUE: usize = 4;
/// Most lines in one transaction.
const BATCH_LINES: usize = 10_000;
/// What a client that was answered `FAILED` may still send before it is cut off.
const DRAIN_BYTES: usize = 1 << 20;
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// What a source is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetcatOptions {
    /// Host name or address to listen on.
    pub bind: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
    /// Most characters of a line with its line end.
    pub max_line_length: usize,
    /// Answer `OK` to each line.
    pub ack_every_event: bool,
    /// Most connections at a time; more wait in the backlog.
    pub connections_max: usize,
}

impl From<&NetcatConfig> for NetcatOptions {
    fn from(config: &NetcatConfig) -> Self {
        Self {
            bind: config.bind.clone(),
            port: config.port,
            max_line_length: config.max_line_length,
            ack_every_event: config.ack_every_event,
            connections_max: 1024,
        }
    }
}

/// The source.
#[derive(Debug)]
pub struct Netcat {
    options: NetcatOptions,
    address: watch::Sender<Option<SocketAddr>>,
}

impl Netcat {
    /// A source that does not listen yet.
    pub fn new(options: NetcatOptions) -> Self {
        Self {
            options,
            address: watch::Sender::new(None),
        }
    }

    /// Where the source listens, as soon as it does.
    pub async fn listening(&self) -> Option<SocketAddr> {
        let mut address = self.address.subscribe();
        let found = address.wait_for(Option::is_some).await;
        found.ok().and_then(|address| *address)
    }
}

#[async_trait]
impl Source for Netcat {
    async fn run(&self, context: SourceContext) -> Result<(), SourceError> {
        let NetcatOptions {
            bind,
            port,
            connections_max,
            ..
        } = &self.options;
        let listener = Listener::bind(&context.name, bind, *port, *connections_max).await?;
        self.address.send_replace(Some(listener.address()));
        let (max, ack) = (self.options.max_line_length, self.options.ack_every_event);
        let served = listener
            .serve(context, |stream, peer, context| {
                connection(stream, peer, context, max, ack)
            })
            .await;
        self.address.send_replace(None);
        served
    }
}

/// What the reader found, in the order of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Line(Bytes),
    /// A line as long as allowed or longer; nothing after it is looked at.
    TooLong,
}

/// Splits a stream into lines.
#[derive(Debug)]
struct Splitter {
    buffer: BytesMut,
    /// Of the unfinished line at the front of the buffer: bytes looked at, UTF-16 units in them.
    searched: usize,
    units: usize,
    max: usize,
}

impl Splitter {
    fn new(max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            searched: 0,
            units: 0,
            max,
        }
    }

    fn next(&mut self) -> Option<Found> {
        let fresh = &self.buffer[self.searched..];
        let newline = memchr::memchr(b'\n', fresh);
        let part = &fresh[..newline.unwrap_or(fresh.len())];
        self.units += part.iter().map(|byte| units(*byte)).sum::<usize>();
        self.searched += part.len();
        // Three bytes are the most that one unit takes: the second bound holds for bytes that
        // are not UTF-8.
        if self.units >= self.max || self.searched > self.max.saturating_mul(3) {
            return Some(Found::TooLong);
        }
        newline?;
        let mut line = self.buffer.split_to(self.searched + 1);
        line.truncate(self.searched);
        (self.searched, self.units) = (0, 0);
        Some(Found::Line(line.freeze()))
    }
}

/// UTF-16 units of the character that begins with `byte`; 0 if none begins.
fn units(byte: u8) -> usize {
    match byte {
        0x80..=0xbf => 0,
        0xf0.. => 2,
        _ => 1,
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    context: SourceContext,
    max: usize,
    ack: bool,
) -> Result<(), SourceError> {
    // Answers are small and a client waits for them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(source = %context.name, %peer, %error, "cannot set TCP_NODELAY");
    }
    let (read, write) = stream.into_split();
    converse(read, write, peer, context, max, ack).await
}

/// The protocol of one connection, whatever carries it; the fuzz target `netcat_input` cuts the
/// stream where no network would.
///
/// # Errors
/// What ends the whole source: the channel was poisoned or refuses for good.
pub async fn converse<R, W>(
    read: R,
    write: W,
    peer: SocketAddr,
    context: SourceContext,
    max: usize,
    ack: bool,
) -> Result<(), SourceError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (send, receive) = mpsc::channel(QUEUE);
    let shutdown = context.shutdown.clone();
    let committer = Committer {
        runner: Runner::new(context.clone()),
        write,
        ack,
        max,
    };
    let (mut read, committed) = tokio::join!(
        read_lines(read, send, shutdown, max),
        committer.run(receive)
    );
    let left = match committed {
        Ok(left) => left,
        Err(CommitError::Ended(error)) => return Err(error),
        Err(CommitError::Gone(error)) => {
            tracing::debug!(source = %context.name, %peer, %error, "the client has gone");
            return Ok(());
        }
    };
    match left {
        Left::TooLong => {
            context.counters.event_read_fails.increment();
            tracing::warn!(source = %context.name, %peer, max, "the client sent a line over the \
                maximum length; the connection is closed");
            drain(&mut read.half).await;
        }
        Left::Nothing if read.unfinished > 0 => {
            tracing::info!(source = %context.name, %peer, bytes = read.unfinished, "the client \
                ended without ending its last line, which is neither stored nor answered");
        }
        Left::Nothing => {}
    }
    Ok(())
}

/// Closing a socket with unread bytes resets the connection and can take the answer away from
/// the client: read on for a moment.
async fn drain<R: AsyncRead + Unpin>(half: &mut R) {
    let all = async {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut total = 0;
        while let Ok(n @ 1..) = half.read_buf(&mut buffer).await {
            total += n;
            buffer.clear();
            if total > DRAIN_BYTES {
                break;
            }
        }
    };
    // A client that neither closes nor sends is cut off.
    if tokio::time::timeout(DRAIN_LIMIT, all).await.is_err() {}
}

/// The reader at its end.
struct Read<R> {
    half: R,
    /// Bytes of a last line that the client did not end.
    unfinished: usize,
}

/// Reads until the client ends, a line is too long, the committer has gone or the source stops.
async fn read_lines<R: AsyncRead + Unpin>(
    mut half: R,
    send: mpsc::Sender<Vec<Found>>,
    shutdown: Shutdown,
    max: usize,
) -> Read<R> {
    let mut splitter = Splitter::new(max);
    let mut unfinished = 0;
    loop {
        splitter.buffer.reserve(READ_BYTES);
        let read = tokio::select! {
            biased;
            () = shutdown.wait() => break,
            () = send.closed() => break,
            read = half.read_buf(&mut splitter.buffer) => read,
        };
        if !matches!(read, Ok(1..)) {
            unfinished = splitter.buffer.len();
            break;
        }
        let mut found = Vec::new();
        while let Some(next) = splitter.next() {
            let end = next == Found::TooLong;
            found.push(next);
            if end {
                break;
            }
        }
        let end = found.last() == Some(&Found::TooLong);
        if !found.is_empty() && send.send(found).await.is_err() || end {
            break;
        }
    }
    Read { half, unfinished }
}

enum CommitError {
    Ended(SourceError),
    Gone(std::io::Error),
}

impl From<std::io::Error> for CommitError {
    fn from(error: std::io::Error) -> Self {
        Self::Gone(error)
    }
}

/// What the committer leaves to do.
enum Left {
    Nothing,
    TooLong,
}

struct Committer<W> {
    runner: Runner,
    write: W,
    ack: bool,
    max: usize,
}

impl<W: AsyncWrite + Unpin> Committer<W> {
    /// Puts and answers until the reader has ended; then ends the answers.
    async fn run(mut self, mut receive: mpsc::Receiver<Vec<Found>>) -> Result<Left, CommitError> {
        let batch_lines = self.runner.batch_events(BATCH_LINES);
        let mut left = Left::Nothing;
        while let Some(mut found) = receive.recv().await {
            // All that has come meanwhile goes into the same sync.
            while found.len() < batch_lines
                && let Ok(more) = receive.try_recv()
            {
                found.extend(more);
            }
            if found.last() == Some(&Found::TooLong) {
                found.pop();
                left = Left::TooLong;
            }
            let lines: Vec<Bytes> = found.into_iter().filter_map(line).collect();
            for lines in lines.chunks(batch_lines) {
                if !self.put(lines).await? {
                    return Ok(Left::Nothing);
                }
            }
        }
        if let Left::TooLong = left {
            let max = self.max;
            self.answer(&format!(
                "FAILED: Event exceeds the maximum length ({max} chars, including newline)\n"
            ))
            .await?;
        }
        self.write.shutdown().await?;
        Ok(left)
    }

    /// Puts lines and answers them in order; false if the source is being stopped. A line that
    /// can never fit gets an answer of its own.
    async fn put(&mut self, lines: &[Bytes]) -> Result<bool, CommitError> {
        let counters = Arc::clone(&self.runner.context().counters);
        let mut rest = lines;
        let mut size = rest.len();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(size.min(rest.len()));
            match self.runner.put(batch(now)).await {
                Ok(_) => {
                    counters.appends_received.add(now.len() as u64);
                    counters.appends_accepted.add(now.len() as u64);
                    if self.ack {
                        self.answer(&"OK\n".repeat(now.len())).await?;
                    }
                }
                Err(PutError::TooLarge(_)) if now.len() > 1 => {
                    size = now.len() / 2;
                    continue;
                }
                Err(PutError::TooLarge(error)) => {
                    counters.appends_received.increment();
                    self.answer(&format!("FAILED: {error}\n")).await?;
                }
                Err(PutError::Stopped) => return Ok(false),
                Err(PutError::Ended(error)) => return Err(CommitError::Ended(error)),
            }
            rest = later;
        }
        Ok(true)
    }

    async fn answer(&mut self, text: &str) -> Result<(), CommitError> {
        Ok(self.write.write_all(text.as_bytes()).await?)
    }
}

fn line(found: Found) -> Option<Bytes> {
    match found {
        Found::Line(line) => Some(line),
        Found::TooLong => None,
    }
}

fn batch(lines: &[Bytes]) -> PutBatch {
    let event = |line: &Bytes| PutEvent {
        event: Event::from_body(line.clone()),
        position: None,
    };
    PutBatch {
        events: lines.iter().map(event).collect(),
        positions: Vec::new(),
    }
}

#[cfg(test)]
#[path = "netcat_tests.rs"]
mod tests;
