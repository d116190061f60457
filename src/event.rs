//! The event: string headers, a body of bytes, and the time it was put.
//!
//! *Place in the flow*: sources make events, the channel stores them and gives each a sequence
//! number, sinks render them. Nothing about an event changes after its put has committed, so
//! that any number of attempts to write it produce the same bytes.

use bytes::Bytes;

/// Dense number of an event in its channel: given at commit, the same for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The sequence number after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A non-empty run of sequence numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqRange {
    /// First number of the run.
    pub first: Seq,
    /// Last number of the run; never below `first`.
    pub last: Seq,
}

impl SeqRange {
    /// The run from `first` to `last`, or `None` where it would be empty.
    pub fn new(first: Seq, last: Seq) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// How many events the run covers.
    pub fn count(self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    /// Whether `seq` lies in the run.
    pub fn contains(self, seq: Seq) -> bool {
        self.first <= seq && seq <= self.last
    }
}

/// The headers of an event, in the order they were set; a name occurs once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No headers; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `name`, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.as_str())
    }

    /// Sets `name` to `value`, replacing an earlier value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(k, _)| *k == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Names and values in the order they were set.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// How many headers are set.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no header is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Headers, as in Flume: string to string.
    pub headers: Headers,
    /// The body; a slice of the mapped segment when it was taken from a hot one.
    pub body: Bytes,
    /// Milliseconds since the Unix epoch at which the put committed; set by the channel.
    pub put_time_ms: u64,
}

impl Event {
    /// An event without headers.
    pub fn from_body(body: impl Into<Bytes>) -> Self {
        Self {
            headers: Headers::new(),
            body: body.into(),
            put_time_ms: 0,
        }
    }
}
