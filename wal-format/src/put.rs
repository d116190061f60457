//! The body of a put frame: events, then a table of source positions.
//!
//! *Place in the flow*: a producer encodes its transaction in its own thread, straight into the
//! buffer that the committer will write: 64 bytes of room for the header, the body, the padding.
//! The body's checksum is computed once, at the end, outside every lock.
//!
//! *Reading*: [`PutBody::parse`] checks the frame around the events; each event is checked as it
//! is iterated, so that a body is walked once. The frame's checksum has been checked before, so an
//! error here means a wrong or newer writer, not rot.

use alloc::vec::Vec;

use crate::code::{
    Cursor, long, narrow, put_bytes, put_length, put_varint, unzigzag, widen, zigzag,
};
use crate::error::BodyError;
use crate::frame::{FRAME_HEADER_BYTES, frame_bytes};

/// Position tag: the event has none.
const POSITION_NONE: u64 = 0;
/// Position tag: same table entry as the last position before it in the frame; a zigzag
/// difference to that offset follows.
const POSITION_SAME: u64 = 1;
/// Position tag of table entry 0; the absolute offset follows.
const POSITION_FIRST_INDEX: u64 = 2;
/// Fewest bytes of an event: header count, position tag, body length.
const EVENT_BYTES_MIN: u64 = 3;
/// Bytes of the length of the position table, the last field of the body.
const TRAILER_BYTES: usize = 4;

/// A frame ready for its header: 64 zero bytes, the body, zeros up to a multiple of 8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPut {
    /// Header room, body, padding.
    pub buffer: Vec<u8>,
    /// Bytes of the body. A body of 4 GiB and more says `u32::MAX`, which fits no segment.
    pub body_len: u32,
    /// CRC-32 of the body.
    pub body_crc: u32,
    /// Events in the body; 0 for a control record.
    pub count: u32,
}

impl EncodedPut {
    /// Sums and pads a buffer that holds header room and body.
    pub(crate) fn seal(mut buffer: Vec<u8>, count: u32) -> Self {
        let body = buffer.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        let (length, body_crc) = (body.len(), crc32fast::hash(body));
        buffer.resize(frame_bytes(length), 0);
        Self {
            buffer,
            body_len: narrow(length),
            body_crc,
            count,
        }
    }

    /// The room for the frame's header, to be filled in place.
    pub fn header_room(&mut self) -> Option<&mut [u8; FRAME_HEADER_BYTES]> {
        self.buffer.first_chunk_mut()
    }
}

/// Builds the body of one put frame.
#[derive(Clone, Debug)]
pub struct PutEncoder {
    buffer: Vec<u8>,
    table: Vec<u8>,
    count: u32,
    last_position: Option<(u32, u64)>,
}

impl Default for PutEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl PutEncoder {
    /// An empty put.
    pub fn new() -> Self {
        Self::with_capacity(0)
    }

    /// An empty put with room for a body of `bytes` bytes before the buffer grows.
    pub fn with_capacity(bytes: usize) -> Self {
        Self::reusing(Vec::with_capacity(frame_bytes(
            bytes.saturating_add(TRAILER_BYTES),
        )))
    }

    /// An empty put in a buffer used before; its contents are dropped, its capacity kept.
    pub fn reusing(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(FRAME_HEADER_BYTES, 0);
        Self {
            buffer,
            table: Vec::new(),
            count: 0,
            last_position: None,
        }
    }

    /// Appends an event. `position` is an index into this frame's position table (in the order of
    /// [`Self::position`]) and an offset in that source. Runs of one source are cheapest.
    pub fn event<'a>(
        &mut self,
        headers: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        body: &[u8],
        position: Option<(u32, u64)>,
    ) {
        let out = &mut self.buffer;
        put_length(out, headers.len());
        for (name, value) in headers {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value.as_bytes());
        }
        match (position, self.last_position) {
            (None, _) => put_varint(out, POSITION_NONE),
            (Some((index, offset)), Some((same, before))) if index == same => {
                put_varint(out, POSITION_SAME);
                put_varint(out, zigzag(before, offset));
            }
            (Some((index, offset)), _) => {
                put_varint(out, u64::from(index).saturating_add(POSITION_FIRST_INDEX));
                put_varint(out, offset);
            }
        }
        self.last_position = position.or(self.last_position);
        put_bytes(out, body);
        self.count = self.count.saturating_add(1);
    }

    /// Appends an entry to the position table; may be called at any time before [`Self::finish`].
    pub fn position(&mut self, key: &[u8], value: &[u8]) {
        put_bytes(&mut self.table, key);
        put_bytes(&mut self.table, value);
    }

    /// Events so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the body if it were finished now.
    pub fn body_len(&self) -> usize {
        let events = self.buffer.len().saturating_sub(FRAME_HEADER_BYTES);
        events
            .saturating_add(self.table.len())
            .saturating_add(TRAILER_BYTES)
    }

    /// Writes the position table and the padding, and computes the body's checksum.
    pub fn finish(self) -> EncodedPut {
        let Self {
            mut buffer,
            table,
            count,
            ..
        } = self;
        buffer.extend_from_slice(&table);
        buffer.extend_from_slice(&narrow(table.len()).to_le_bytes());
        EncodedPut::seal(buffer, count)
    }
}

/// The body of a put frame, taken apart without copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutBody<'a> {
    events: &'a [u8],
    table: &'a [u8],
    count: u32,
}

impl<'a> PutBody<'a> {
    /// Takes apart a body whose checksum was right; `count` is the frame header's. Checks the
    /// position table; events are checked by [`Self::events`].
    ///
    /// # Errors
    /// The table does not end where the body does, or the events' bytes cannot hold `count`.
    pub fn parse(body: &'a [u8], count: u32) -> Result<Self, BodyError> {
        let truncated = || BodyError::Truncated {
            at: body.len().saturating_sub(TRAILER_BYTES),
        };
        let (rest, trailer) = body
            .split_last_chunk::<TRAILER_BYTES>()
            .ok_or_else(truncated)?;
        let table_len = widen(u32::from_le_bytes(*trailer));
        let table_at = rest.len().checked_sub(table_len).ok_or_else(truncated)?;
        let (events, table) = rest.split_at_checked(table_at).ok_or_else(truncated)?;
        let smallest = u64::from(count).saturating_mul(EVENT_BYTES_MIN);
        if smallest > long(events.len()) {
            return Err(BodyError::CountTooHigh {
                at: 0,
                count: u64::from(count),
            });
        }
        if count == 0 && !events.is_empty() {
            return Err(BodyError::TrailingBytes { at: 0 });
        }
        let parsed = Self {
            events,
            table,
            count,
        };
        for entry in parsed.positions() {
            entry?;
        }
        Ok(parsed)
    }

    /// Events in the frame, as its header says.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The events in order. The iterator ends after the first error; bytes left over behind the
    /// last event are an error in place of one more event.
    pub fn events(&self) -> PutEvents<'a> {
        PutEvents {
            cursor: Cursor::new(self.events, 0),
            left: self.count,
            last: None,
            done: false,
        }
    }

    /// The position table: key and value by index. Ends after the first error; [`Self::parse`] has
    /// seen that there is none.
    pub fn positions(
        &self,
    ) -> impl Iterator<Item = Result<(&'a [u8], &'a [u8]), BodyError>> + use<'a> {
        let mut cursor = Cursor::new(self.table, self.events.len());
        core::iter::from_fn(move || {
            if cursor.rest().is_empty() {
                return None;
            }
            let entry = cursor.bytes().and_then(|key| Ok((key, cursor.bytes()?)));
            if entry.is_err() {
                cursor = Cursor::new(&[], cursor.at());
            }
            Some(entry)
        })
    }
}

/// Iterator over the events of a put frame.
#[derive(Clone, Debug)]
pub struct PutEvents<'a> {
    cursor: Cursor<'a>,
    left: u32,
    last: Option<(u32, u64)>,
    done: bool,
}

impl<'a> PutEvents<'a> {
    fn event(&mut self) -> Result<EventRef<'a>, BodyError> {
        let cursor = &mut self.cursor;
        let (at, before) = (cursor.at(), cursor.rest());
        let count = cursor.u64_varint()?;
        // Each header takes at least the two bytes of its lengths.
        if count.saturating_mul(2) > long(cursor.rest().len()) {
            return Err(BodyError::CountTooHigh { at, count });
        }
        let headers_at = cursor.at();
        for _ in 0..count {
            cursor.str()?;
            cursor.str()?;
        }
        let skip = headers_at.saturating_sub(at);
        let headers_end = cursor.at().saturating_sub(at);
        let headers = before.get(skip..headers_end).unwrap_or_default();
        let position = Self::position(cursor, self.last)?;
        self.last = position.or(self.last);
        let body = cursor.bytes()?;
        let body_offset = cursor.at().saturating_sub(body.len());
        let header_count = usize::try_from(count).unwrap_or(0);
        Ok(EventRef {
            body,
            body_offset,
            position,
            headers,
            header_count,
        })
    }

    fn position(
        cursor: &mut Cursor<'a>,
        last: Option<(u32, u64)>,
    ) -> Result<Option<(u32, u64)>, BodyError> {
        let at = cursor.at();
        match cursor.u64_varint()? {
            POSITION_NONE => Ok(None),
            POSITION_SAME => {
                let (index, before) = last.ok_or(BodyError::NoEarlierPosition { at })?;
                Ok(Some((index, unzigzag(before, cursor.u64_varint()?))))
            }
            tag => {
                let index = u32::try_from(tag.saturating_sub(POSITION_FIRST_INDEX))
                    .map_err(|_| BodyError::NumberTooLarge { at })?;
                Ok(Some((index, cursor.u64_varint()?)))
            }
        }
    }
}

impl<'a> Iterator for PutEvents<'a> {
    type Item = Result<EventRef<'a>, BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.left == 0 {
            self.done = true;
            return self.cursor.finish().err().map(Err);
        }
        self.left = self.left.saturating_sub(1);
        let event = self.event();
        self.done = event.is_err();
        Some(event)
    }
}

/// One event of a put frame, borrowed from the frame's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// The event's body.
    pub body: &'a [u8],
    /// Where that body begins in the frame's body, so that a slice of the mapped segment can be
    /// cut without copying.
    pub body_offset: usize,
    /// Index into the frame's position table and offset in that source. The index is not checked
    /// against the table: an event whose entry is missing has no known position.
    pub position: Option<(u32, u64)>,
    headers: &'a [u8],
    header_count: usize,
}

impl<'a> EventRef<'a> {
    /// Names and values in the order in which they were put.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut cursor = Cursor::new(self.headers, 0);
        // `event()` walked the same bytes, so that no step fails here.
        (0..self.header_count).map_while(move |_| cursor.str().ok().zip(cursor.str().ok()))
    }

    /// How many headers there are.
    pub fn header_count(&self) -> usize {
        self.header_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn sample() -> EncodedPut {
        let mut put = PutEncoder::with_capacity(100);
        put.position(b"file-a", b"dev:inode");
        put.event(
            [("host", "a"), ("", "\u{e9}")].into_iter(),
            b"first",
            Some((0, 1000)),
        );
        put.event([].into_iter(), b"", None);
        put.event([].into_iter(), b"third", Some((0, 990)));
        put.event([].into_iter(), &[9; 300], Some((1, u64::MAX)));
        put.position(b"", b"");
        put.finish()
    }

    fn body(put: &EncodedPut) -> &[u8] {
        &put.buffer[64..64 + widen(put.body_len)]
    }

    #[test]
    fn events_headers_and_positions_come_back() {
        let put = sample();
        let parsed = PutBody::parse(body(&put), put.count).unwrap();
        assert_eq!(parsed.count(), 4);
        let events: Vec<_> = parsed.events().map(Result::unwrap).collect();
        let headers: Vec<_> = events[0].headers().collect();
        assert_eq!(headers, [("host", "a"), ("", "\u{e9}")]);
        assert_eq!(
            events
                .iter()
                .map(EventRef::header_count)
                .collect::<Vec<_>>(),
            [2, 0, 0, 0]
        );
        let positions: Vec<_> = events.iter().map(|e| e.position).collect();
        assert_eq!(
            positions,
            [Some((0, 1000)), None, Some((0, 990)), Some((1, u64::MAX))]
        );
        for event in &events {
            assert_eq!(
                &body(&put)[event.body_offset..][..event.body.len()],
                event.body
            );
        }
        assert_eq!(events[2].body, b"third");
        let table: Vec<_> = parsed.positions().map(Result::unwrap).collect();
        assert_eq!(table, [(&b"file-a"[..], &b"dev:inode"[..]), (b"", b"")]);
    }

    #[test]
    fn the_buffer_is_header_room_body_and_zero_padding() {
        let mut put = sample();
        assert_eq!(put.buffer.len(), frame_bytes(widen(put.body_len)));
        assert_eq!(put.buffer[..64], [0; 64]);
        assert!(
            put.buffer[64 + widen(put.body_len)..]
                .iter()
                .all(|&b| b == 0)
        );
        assert_eq!(put.body_crc, crc32fast::hash(body(&put)));
        assert_eq!(put.header_room().map(|room| room.len()), Some(64));
    }

    #[test]
    fn the_length_known_before_is_the_length_after() {
        let mut put = PutEncoder::default();
        // The interpreter (Miri) sums slowly, and the sums grow with the square.
        let events = if cfg!(miri) { 12 } else { 200 };
        for n in 0..events {
            put.event([("k", "v")].into_iter(), &vec![1; n], Some((0, 7)));
            put.position(&[7; 130], b"x");
            assert_eq!(put.body_len(), widen(put.clone().finish().body_len));
        }
        assert_eq!(put.count(), u32::try_from(events).unwrap());
    }

    #[test]
    fn a_reused_buffer_gives_the_same_frame_and_does_not_grow() {
        let mut first = PutEncoder::reusing(vec![0xff; 4096]);
        first.event([].into_iter(), b"x", None);
        let mut fresh = PutEncoder::new();
        fresh.event([].into_iter(), b"x", None);
        let (first, fresh) = (first.finish(), fresh.finish());
        assert_eq!(first, fresh);
        assert!(first.buffer.capacity() >= 4096);
    }

    #[test]
    fn a_put_without_events_may_carry_positions() {
        let mut put = PutEncoder::new();
        put.position(b"k", b"v");
        let put = put.finish();
        let parsed = PutBody::parse(body(&put), 0).unwrap();
        assert_eq!(
            (parsed.events().count(), parsed.positions().count()),
            (0, 1)
        );
        assert!(PutBody::parse(body(&PutEncoder::new().finish()), 0).is_ok());
    }

    #[test]
    fn a_count_that_does_not_match_is_refused() {
        let put = sample();
        let last = |count| {
            let parsed = PutBody::parse(body(&put), count)?;
            let mut last = Ok(());
            for event in parsed.events() {
                last = event.map(|_| ());
            }
            last
        };
        assert_eq!(last(4), Ok(()));
        assert!(matches!(last(0), Err(BodyError::TrailingBytes { at: 0 })));
        assert!(matches!(last(3), Err(BodyError::TrailingBytes { .. })));
        assert!(matches!(last(5), Err(BodyError::Truncated { .. })));
        assert!(matches!(
            last(u32::MAX),
            Err(BodyError::CountTooHigh { at: 0, .. })
        ));
    }

    #[test]
    fn a_cut_body_is_refused_at_every_length() {
        let put = sample();
        for length in 0..body(&put).len() {
            let cut = &body(&put)[..length];
            let whole = PutBody::parse(cut, put.count)
                .and_then(|parsed| parsed.events().collect::<Result<Vec<_>, _>>());
            assert!(whole.is_err(), "cut at {length}");
        }
    }

    #[test]
    fn bad_event_fields_are_refused() {
        let first_error = |events: &[u8]| {
            let mut bytes = events.to_vec();
            bytes.extend_from_slice(&[0; 4]);
            let parsed = PutBody::parse(&bytes, 1).unwrap();
            let mut events = parsed.events();
            let error = events.next().unwrap().unwrap_err();
            assert!(events.next().is_none(), "an error ends the iterator");
            error
        };
        // Headers, position tag, body.
        assert_eq!(
            first_error(&[9, 0, 0, 0]),
            BodyError::CountTooHigh { at: 0, count: 9 }
        );
        assert_eq!(
            first_error(&[1, 1, 0xff, 0, 0, 0]),
            BodyError::NotUtf8 { at: 2 }
        );
        assert_eq!(
            first_error(&[0, 1, 2, 0]),
            BodyError::NoEarlierPosition { at: 1 }
        );
        assert_eq!(first_error(&[0, 0, 9, 0]), BodyError::Truncated { at: 2 });
        let huge = [0, 0x82, 0x80, 0x80, 0x80, 0x10, 0, 0];
        assert_eq!(first_error(&huge), BodyError::NumberTooLarge { at: 1 });
        assert_eq!(
            first_error(&[0x80, 0, 0]),
            BodyError::VarintOverlong { at: 0 }
        );
    }

    #[test]
    fn a_bad_position_table_is_refused_before_any_event() {
        let table = |bytes: &[u8], length: u32| {
            let mut body = bytes.to_vec();
            body.extend_from_slice(&length.to_le_bytes());
            PutBody::parse(&body, 0).map(|_| ())
        };
        assert_eq!(table(&[1, b'k', 1, b'v'], 4), Ok(()));
        assert_eq!(table(&[1, b'k'], 2), Err(BodyError::Truncated { at: 2 }));
        assert_eq!(
            table(&[1, b'k', 9, b'v'], 4),
            Err(BodyError::Truncated { at: 2 })
        );
        assert_eq!(table(&[1, b'k'], 3), Err(BodyError::Truncated { at: 2 }));
        assert_eq!(
            table(&[0, 0], u32::MAX),
            Err(BodyError::Truncated { at: 2 })
        );
    }
}
