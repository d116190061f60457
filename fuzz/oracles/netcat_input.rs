//! What netcat must do with any bytes in any pieces. Included by the fuzz target `netcat_input` and
//! by `tests/fuzz_seeds.rs`.
//!
//! *Claims*: however the stream is cut into reads, and however slowly the client takes the answers,
//! the channel holds exactly the lines that a plain split of the whole stream gives, in order and
//! byte for byte, and the answers are one `OK` a line and one `FAILED` for a line that is too long,
//! behind which nothing is stored; a client is never told `OK` before the channel has the line;
//! when the client goes away, what is stored is a beginning of its lines.
//!
//! *Input*: u8 maximum length - 1 (modulo 40), u8 flags (1: answer each line, 2: the client goes
//! away, 4: transactions of three lines at most), u8 size of the reads and answers (1 to 16; 0 or
//! more: everything at once), u8 seed of the pauses, then the stream.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use forebay::agent::counters::SourceCounters;
use forebay::channel::memory::{MemoryChannel, MemoryOptions};
use forebay::channel::{Channel, TakeMode, TakeTransaction};
use forebay::source::netcat::converse;
use forebay::source::{Shutdown, SourceContext};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

thread_local! {
    static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime"),
    );
}

/// Small pieces and pauses between them.
#[derive(Clone, Copy)]
struct Pace {
    piece: usize,
    seed: u32,
}

impl Pace {
    /// Bytes of the next piece; `None` for a pause first.
    fn next(&mut self) -> Option<usize> {
        self.seed = self
            .seed
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        let value = usize::try_from(self.seed >> 24).expect("a byte");
        match self.piece {
            1..=16 if value % 3 == 0 => None,
            1..=16 => Some(value % self.piece + 1),
            _ => Some(usize::MAX),
        }
    }
}

struct Client<'a> {
    stream: &'a [u8],
    pace: Pace,
}

impl AsyncRead for Client<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let Some(piece) = self.pace.next() else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let count = piece.min(buf.remaining()).min(self.stream.len());
        let (now, later) = self.stream.split_at(count);
        buf.put_slice(now);
        self.stream = later;
        Poll::Ready(Ok(()))
    }
}

/// Takes answers, and looks into the channel at each.
struct Answers {
    taken: Vec<u8>,
    /// Bytes after which the client is gone.
    most: usize,
    pace: Pace,
    channel: Arc<dyn Channel>,
}

impl AsyncWrite for &mut Answers {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let Some(piece) = self.pace.next() else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let count = piece.min(buf.len()).min(self.most - self.taken.len());
        if count == 0 {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        self.taken.extend_from_slice(&buf[..count]);
        let told = self.taken.iter().filter(|byte| **byte == b'O').count() as u64;
        let stored = self.channel.status().put_events;
        let text = String::from_utf8_lossy(&self.taken);
        assert!(
            text.contains("FAILED") || told <= stored,
            "{told} told, {stored} stored"
        );
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Lines of the whole stream, and whether it ends in one that is too long.
fn split(stream: &[u8], max: usize) -> (Vec<&[u8]>, bool) {
    let mut lines = Vec::new();
    let mut rest = stream.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = rest.next() {
        if too_long(line, max) {
            return (lines, true);
        }
        if rest.peek().is_some() {
            lines.push(line);
        }
    }
    (lines, false)
}

/// The rule of the documentation for text; for other bytes each is a character that is no
/// continuation, and three bytes a unit are the most.
fn too_long(line: &[u8], max: usize) -> bool {
    if let Ok(text) = std::str::from_utf8(line) {
        return text.encode_utf16().count() >= max;
    }
    let begins = line.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
    let pairs = line.iter().filter(|byte| **byte >= 0xf0).count();
    begins + pairs >= max || line.len() > 3 * max
}

/// Talks netcat with a client that sends the input, and panics where a claim does not hold.
pub(crate) fn check(input: &[u8]) {
    let Some((&[max, flags, piece, seed], stream)) = input.split_first_chunk::<4>() else {
        return;
    };
    let max = usize::from(max % 40) + 1;
    let (ack, leaves, small) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    let pace = Pace {
        piece: piece.into(),
        seed: seed.into(),
    };
    let options = MemoryOptions {
        capacity: 100_000,
        transaction_capacity: if small { 3 } else { 10_000 },
        byte_capacity: Some(1 << 24),
        ..MemoryOptions::default()
    };
    let channel = MemoryChannel::open("c", options).expect("a channel");
    let (_trigger, shutdown) = Shutdown::new();
    let context = SourceContext {
        name: "s".to_owned(),
        channel: Arc::clone(&channel),
        counters: Arc::new(SourceCounters::default()),
        shutdown,
    };
    let mut answers = Answers {
        taken: Vec::new(),
        most: if leaves {
            usize::from(seed)
        } else {
            usize::MAX
        },
        pace,
        channel: Arc::clone(&channel),
    };
    let peer = ([127, 0, 0, 1], 1).into();
    let talk = converse(
        Client { stream, pace },
        &mut answers,
        peer,
        context,
        max,
        ack,
    );
    let ended = RUNTIME.with_borrow(|runtime| runtime.block_on(talk));
    ended.expect("a client cannot end the source");

    let (lines, refused) = split(stream, max);
    let mut expected = if ack {
        "OK\n".repeat(lines.len())
    } else {
        String::new()
    };
    if refused {
        expected +=
            &format!("FAILED: Event exceeds the maximum length ({max} chars, including newline)\n");
    }
    let told = answers.taken.as_slice();
    let mut take = TakeTransaction::begin(channel, TakeMode::Batch).expect("a lease");
    let taken = take.take(usize::MAX, usize::MAX).expect("events").events;
    let stored: Vec<&[u8]> = taken.iter().map(|taken| &taken.event.body[..]).collect();
    if leaves {
        assert!(expected.as_bytes().starts_with(told), "other answers");
        assert!(lines.starts_with(&stored), "other lines");
    } else {
        assert_eq!(String::from_utf8_lossy(told), expected);
        assert_eq!(stored, lines);
    }
}
