//! Body of a put frame: events, then the positions behind them.

use alloc::vec;
use alloc::vec::Vec;

use crate::code::{Cursor, long, narrow, put_bytes, put_length, put_varint, unzigzag, zigzag};
use crate::error::BodyError;
use crate::frame::{FRAME_HEADER_BYTES, frame_bytes};

/// Builds header room and body of a put frame in one buffer.
#[derive(Clone, Debug)]
pub struct PutEncoder {
    buffer: Vec<u8>,
    positions: Vec<u8>,
    position_count: u32,
    last_offset: u64,
    count: u32,
}

impl Default for PutEncoder {
    fn default() -> Self {
        Self::new()
    }
}

/// An encoded frame without its header: 64 zero bytes, the body, zeros to a multiple of 8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPut {
    /// Header room, body, padding.
    pub buffer: Vec<u8>,
    /// Bytes of the body.
    pub body_len: u32,
    /// CRC-32 of the body.
    pub body_crc: u32,
    /// Events in the body.
    pub count: u32,
}

impl PutEncoder {
    /// An empty body.
    pub fn new() -> Self {
        Self::with_capacity(0)
    }

    /// An empty body with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes.saturating_add(FRAME_HEADER_BYTES));
        buffer.resize(FRAME_HEADER_BYTES, 0);
        Self {
            buffer,
            positions: Vec::new(),
            position_count: 0,
            last_offset: 0,
            count: 0,
        }
    }

    /// Appends an event.
    pub fn event<'a>(
        &mut self,
        headers: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        body: &[u8],
        position: Option<(u32, u64)>,
    ) {
        put_length(&mut self.buffer, headers.len());
        for (name, value) in headers {
            put_bytes(&mut self.buffer, name.as_bytes());
            put_bytes(&mut self.buffer, value.as_bytes());
        }
        match position {
            None => self.buffer.push(0),
            Some((index, offset)) => {
                put_varint(&mut self.buffer, u64::from(index).saturating_add(1));
                put_varint(&mut self.buffer, zigzag(self.last_offset, offset));
                self.last_offset = offset;
            }
        }
        put_bytes(&mut self.buffer, body);
        self.count = self.count.saturating_add(1);
    }

    /// Adds a position to the table behind the events.
    pub fn position(&mut self, key: &[u8], value: &[u8]) {
        put_bytes(&mut self.positions, key);
        put_bytes(&mut self.positions, value);
        self.position_count = self.position_count.saturating_add(1);
    }

    /// Events so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the body so far, positions included.
    pub fn body_len(&self) -> usize {
        self.buffer
            .len()
            .saturating_sub(FRAME_HEADER_BYTES)
            .saturating_add(self.positions.len())
    }

    /// Ends the body.
    pub fn finish(mut self) -> EncodedPut {
        put_varint(&mut self.buffer, u64::from(self.position_count));
        self.buffer.extend_from_slice(&self.positions);
        finish(self.buffer, self.count)
    }
}

/// Sums and pads a buffer that begins with header room.
pub(crate) fn finish(mut buffer: Vec<u8>, count: u32) -> EncodedPut {
    let body = buffer.get(FRAME_HEADER_BYTES..).unwrap_or(&[]);
    let (body_len, body_crc) = (narrow(body.len()), crc32fast::hash(body));
    let whole = frame_bytes(body.len());
    buffer.resize(whole, 0);
    EncodedPut {
        buffer,
        body_len,
        body_crc,
        count,
    }
}

/// Header room for a record.
pub(crate) fn room() -> Vec<u8> {
    vec![0; FRAME_HEADER_BYTES]
}

/// A parsed put body.
#[derive(Clone, Copy, Debug)]
pub struct PutBody<'a> {
    body: &'a [u8],
    count: u32,
    positions_at: usize,
}

/// One event of a put body.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    /// The event's body.
    pub body: &'a [u8],
    /// Where it begins in the frame's body.
    pub body_offset: usize,
    /// Index in the frame's position table, and offset.
    pub position: Option<(u32, u64)>,
    headers: &'a [u8],
    header_count: usize,
}

impl<'a> EventRef<'a> {
    /// Names and values; checked UTF-8.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut cursor = Cursor::new(self.headers, 0);
        let count = self.header_count;
        (0..count).map_while(move |_| Some((cursor.str().ok()?, cursor.str().ok()?)))
    }

    /// How many headers the event has.
    pub fn header_count(&self) -> usize {
        self.header_count
    }
}

/// Iterator over the events of a put body.
#[derive(Clone, Debug)]
pub struct PutEvents<'a> {
    cursor: Cursor<'a>,
    left: u32,
    last_offset: u64,
}

impl<'a> PutEvents<'a> {
    fn event(&mut self) -> Result<EventRef<'a>, BodyError> {
        let cursor = &mut self.cursor;
        let at = cursor.at();
        let count = cursor.u64_varint()?;
        if count > long(cursor.rest().len()) {
            return Err(BodyError::CountTooHigh { at, count });
        }
        let header_count = usize::try_from(count).unwrap_or(0);
        let start = *cursor;
        for _ in 0..header_count {
            cursor.str()?;
            cursor.str()?;
        }
        let used = cursor.at().saturating_sub(start.at());
        let headers = start.rest().get(..used).unwrap_or(&[]);
        let position = match cursor.u32_varint()? {
            0 => None,
            index => {
                self.last_offset = unzigzag(self.last_offset, cursor.u64_varint()?);
                Some((index.saturating_sub(1), self.last_offset))
            }
        };
        let body = cursor.bytes()?;
        let body_offset = cursor.at().saturating_sub(body.len());
        Ok(EventRef {
            body,
            body_offset,
            position,
            headers,
            header_count,
        })
    }
}

impl<'a> Iterator for PutEvents<'a> {
    type Item = Result<EventRef<'a>, BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let event = self.event();
        if event.is_err() {
            self.left = 0;
        }
        Some(event)
    }
}

impl<'a> PutBody<'a> {
    /// Walks the body once, so that its positions can be found; checks every length.
    ///
    /// # Errors
    /// The first thing that is wrong, with its offset in the body.
    pub fn parse(body: &'a [u8], count: u32) -> Result<Self, BodyError> {
        let mut parsed = Self {
            body,
            count,
            positions_at: 0,
        };
        let mut events = parsed.events();
        for event in events.by_ref() {
            event?;
        }
        parsed.positions_at = events.cursor.at();
        let mut cursor = events.cursor;
        let positions = cursor.u64_varint()?;
        for _ in 0..positions {
            cursor.bytes()?;
            cursor.bytes()?;
        }
        cursor.finish()?;
        Ok(parsed)
    }

    /// The events in order.
    pub fn events(&self) -> PutEvents<'a> {
        PutEvents {
            cursor: Cursor::new(self.body, 0),
            left: self.count,
            last_offset: 0,
        }
    }

    /// The positions, key and value.
    pub fn positions(
        &self,
    ) -> impl Iterator<Item = Result<(&'a [u8], &'a [u8]), BodyError>> + use<'a> {
        let rest = self.body.get(self.positions_at..).unwrap_or(&[]);
        let mut cursor = Cursor::new(rest, self.positions_at);
        let count = cursor.u64_varint().unwrap_or(0);
        (0..count).map_while(move |_| {
            if cursor.rest().is_empty() {
                return None;
            }
            let key = match cursor.bytes() {
                Ok(key) => key,
                Err(error) => return Some(Err(error)),
            };
            Some(cursor.bytes().map(|value| (key, value)))
        })
    }
}
