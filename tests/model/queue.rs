//! The specification: a channel is a list of entries, and a crash keeps a beginning of it.
//!
//! Entries are whole transactions and records, in the order in which they were handed in. At any
//! time the list is known to be *written* up to some point and *durable* up to an earlier one.
//! A power loss keeps any beginning that has everything durable and nothing that was not
//! written; a killed process leaves everything that was written. What the channel shows is the
//! state that follows from what is kept, entry by entry. That is all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use bytes::Bytes;
use forebay::channel::{EpochRecord, PutEvent, TakenEvent};
use forebay::event::{Event, Headers, SeqRange};

/// An event, by what its content follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Number of its transaction in the history.
    pub(crate) transaction: u64,
    /// Its place in the transaction.
    pub(crate) index: usize,
    /// Bytes of its body.
    pub(crate) size: usize,
    /// When its transaction was written; 0 until then.
    pub(crate) written_ms: u64,
}

fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut random = super::history::Random::new(1);
        (0..1 << 12)
            .flat_map(|_| random.next().to_le_bytes())
            .collect()
    })
}

impl Item {
    fn name(&self) -> [u8; 8] {
        (self.transaction << 16 | self.index as u64).to_le_bytes()
    }

    /// What fills the body behind the name.
    fn filling(&self) -> &'static [u8] {
        let at = (self.transaction as usize * 7919 + self.index * 331) % 8192;
        &noise()[at..at + self.size.saturating_sub(8)]
    }

    fn header(&self) -> Option<String> {
        self.transaction
            .is_multiple_of(3)
            .then(|| format!("{}/{}", self.transaction, self.index))
    }

    fn body(&self) -> Vec<u8> {
        let mut body = self.name().to_vec();
        body.truncate(self.size);
        body.extend_from_slice(self.filling());
        body
    }

    /// The event that is put.
    pub(crate) fn to_put(self) -> PutEvent {
        let mut headers = Headers::new();
        if let Some(value) = self.header() {
            headers.set("from", value);
        }
        PutEvent {
            event: Event {
                headers,
                body: Bytes::from(self.body()),
                put_time_ms: 0,
            },
            position: None,
        }
    }

    /// Whether this is the event that was put, with the time at which it was written.
    pub(crate) fn is(&self, taken: &TakenEvent) -> bool {
        let Event {
            headers,
            body,
            put_time_ms,
        } = &taken.event;
        let named = self.size.min(8);
        body.len() == self.size
            && body[..named] == self.name()[..named]
            && body[named..] == *self.filling()
            && headers.get("from").map(str::to_owned) == self.header()
            && *put_time_ms == self.written_ms
    }
}

/// What is handed to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Put {
        events: Vec<Item>,
        positions: Vec<(String, Bytes)>,
    },
    Ack(SeqRange),
    Seal(EpochRecord),
    Claimed(u64),
    Done(u64),
    Abandon(u64),
    Fence(u32),
    /// An open of the channel: number and nonce.
    Opened(u32, u64),
}

/// What follows from a list of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The event with sequence number `n` is at `n - 1`.
    pub(crate) events: Vec<Item>,
    /// Numbers of acknowledged events.
    pub(crate) acked: BTreeSet<u64>,
    pub(crate) positions: BTreeMap<String, Bytes>,
    pub(crate) epochs: BTreeMap<u64, EpochRecord>,
    pub(crate) next_epoch: u64,
    pub(crate) fenced_through: u32,
    pub(crate) opened: Vec<(u32, u64)>,
    /// Records so far, puts not counted.
    pub(crate) controls: u64,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            events: Vec::new(),
            acked: BTreeSet::new(),
            positions: BTreeMap::new(),
            epochs: BTreeMap::new(),
            next_epoch: 1,
            fenced_through: 0,
            opened: Vec::new(),
            controls: 0,
        }
    }

    pub(crate) fn of(entries: &[Entry]) -> Self {
        let mut state = Self::new();
        entries.iter().for_each(|entry| state.apply(entry));
        state
    }

    pub(crate) fn apply(&mut self, entry: &Entry) {
        self.controls += u64::from(!matches!(entry, Entry::Put { .. }));
        match entry {
            Entry::Put { events, positions } => {
                self.events.extend(events);
                for (key, value) in positions {
                    match value.is_empty() {
                        true => self.positions.remove(key),
                        false => self.positions.insert(key.clone(), value.clone()),
                    };
                }
            }
            Entry::Ack(range) => self.acked.extend(range.first.0..=range.last.0),
            Entry::Seal(epoch) => {
                self.next_epoch = epoch.epoch + 1;
                self.epochs.insert(epoch.epoch, epoch.clone());
            }
            Entry::Claimed(number) => {
                if let Some(epoch) = self.epochs.get_mut(number) {
                    epoch.claimed = true;
                }
            }
            Entry::Done(number) => {
                if let Some(epoch) = self.epochs.remove(number) {
                    self.acked.extend(epoch.range.first.0..=epoch.range.last.0);
                }
            }
            Entry::Abandon(number) => {
                self.epochs.remove(number);
            }
            Entry::Fence(through) => self.fenced_through = self.fenced_through.max(*through),
            Entry::Opened(number, nonce) => self.opened.push((*number, *nonce)),
        }
    }

    /// Numbers in sealed epochs.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = u64> {
        let epochs = self.epochs.values();
        epochs.flat_map(|epoch| epoch.range.first.0..=epoch.range.last.0)
    }

    /// All below is acknowledged.
    pub(crate) fn cursor(&self) -> u64 {
        let mut cursor = 1;
        while self.acked.contains(&cursor) {
            cursor += 1;
        }
        cursor
    }
}

/// The list, and how far it is known to have come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) entries: Vec<Entry>,
    pub(crate) written: usize,
    pub(crate) durable: usize,
}

impl Spec {
    /// The list ends here, and all of it is durable.
    pub(crate) fn fix(&mut self, kept: usize, opened: impl Iterator<Item = (u32, u64)>) {
        self.entries.truncate(kept);
        self.entries
            .extend(opened.map(|(number, nonce)| Entry::Opened(number, nonce)));
        self.written = self.entries.len();
        self.durable = self.written;
    }

    /// Everything up to `written` is written now, if it was not before.
    pub(crate) fn written_up_to(&mut self, written: usize, now_ms: u64) {
        let new = self.written..written.max(self.written);
        for entry in &mut self.entries[new] {
            if let Entry::Put { events, .. } = entry {
                events.iter_mut().for_each(|item| item.written_ms = now_ms);
            }
        }
        self.written = written;
    }

    pub(crate) fn durable_state(&self) -> State {
        State::of(&self.entries[..self.durable])
    }
}
