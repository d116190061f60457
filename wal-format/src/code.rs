//! Varints, strings and the cursor that reads them from bytes nobody vouches for.
//!
//! A varint is LEB128: seven bits a byte, least significant first, the top bit set on every byte
//! but the last. One value has one encoding: a last byte of zero (but for the value 0 itself) and
//! values beyond 64 bits are refused.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::BodyError;

/// Widens a length; segments, and so all lengths, are below 2^32.
#[allow(
    clippy::as_conversions,
    reason = "From<u32> for usize does not exist, and is not const"
)]
pub(crate) const fn widen(value: u32) -> usize {
    const { assert!(usize::BITS >= 32, "the format needs 32-bit offsets") };
    value as usize
}

/// Narrows a length; more than `u32::MAX` bytes become `u32::MAX`, which fits no segment.
pub(crate) fn narrow(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[allow(
    clippy::as_conversions,
    reason = "usize is at most 64 bits on every target of Rust"
)]
pub(crate) const fn long(value: usize) -> u64 {
    value as u64
}

/// Appends a varint.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    let mut bytes = [0u8; 10];
    let mut used = 0usize;
    for slot in &mut bytes {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        used = used.saturating_add(1);
        if value == 0 {
            *slot = low & 0x7f;
            break;
        }
        *slot = low | 0x80;
    }
    if let Some(bytes) = bytes.get(..used) {
        out.extend_from_slice(bytes);
    }
}

/// Appends a length, almost always below 128.
#[inline]
pub(crate) fn put_length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => put_varint(out, long(length)),
    }
}

/// Appends a length and the bytes.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Signed difference to a number that is small for small differences of either sign.
pub(crate) const fn zigzag(from: u64, to: u64) -> u64 {
    let delta = to.wrapping_sub(from);
    (delta << 1) ^ 0u64.wrapping_sub(delta >> 63)
}

/// The number that [`zigzag`] was given as `to`.
pub(crate) const fn unzigzag(from: u64, code: u64) -> u64 {
    from.wrapping_add((code >> 1) ^ 0u64.wrapping_sub(code & 1))
}

/// Reads fields from the front of a slice and knows where in the body it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor over `bytes`, which begin at `at` in the frame's body.
    pub(crate) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { rest: bytes, at }
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], BodyError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(BodyError::Truncated { at: self.at })?;
        self.rest = rest;
        self.at = self.at.saturating_add(count);
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BodyError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(BodyError::Truncated { at: self.at })?;
        self.rest = rest;
        self.at = self.at.saturating_add(N);
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u64_varint(&mut self) -> Result<u64, BodyError> {
        if let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            self.at = self.at.saturating_add(1);
            return Ok(u64::from(first));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, BodyError> {
        let begin = self.at;
        let mut value = 0u64;
        for shift in (0u32..64).step_by(7) {
            let [byte] = self
                .array()
                .map_err(|_| BodyError::Truncated { at: begin })?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 {
                return Err(BodyError::NumberTooLarge { at: begin });
            }
            value |= bits.wrapping_shl(shift);
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(BodyError::VarintOverlong { at: begin });
                }
                return Ok(value);
            }
        }
        Err(BodyError::NumberTooLarge { at: begin })
    }

    pub(crate) fn u32_varint(&mut self) -> Result<u32, BodyError> {
        let at = self.at;
        u32::try_from(self.u64_varint()?).map_err(|_| BodyError::NumberTooLarge { at })
    }

    pub(crate) fn u64_fixed(&mut self) -> Result<u64, BodyError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32_fixed(&mut self) -> Result<u32, BodyError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, BodyError> {
        let at = self.at;
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [value] => Err(BodyError::BadFlag { at, value }),
        }
    }

    /// Bytes behind their length.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], BodyError> {
        let at = self.at;
        let length =
            usize::try_from(self.u64_varint()?).map_err(|_| BodyError::Truncated { at })?;
        self.take(length).map_err(|_| BodyError::Truncated { at })
    }

    /// UTF-8 behind its length.
    #[inline]
    pub(crate) fn str(&mut self) -> Result<&'a str, BodyError> {
        let bytes = self.bytes()?;
        core::str::from_utf8(bytes).map_err(|_| BodyError::NotUtf8 {
            at: self.at.saturating_sub(bytes.len()),
        })
    }

    pub(crate) fn string(&mut self) -> Result<String, BodyError> {
        Ok(String::from(self.str()?))
    }

    /// A list behind its count. Nothing is allocated for a count that the bytes left cannot hold,
    /// each element taking at least `smallest` bytes.
    pub(crate) fn list<T>(
        &mut self,
        smallest: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, BodyError>,
    ) -> Result<Vec<T>, BodyError> {
        let at = self.at;
        let count = self.u64_varint()?;
        let most = self.rest.len().checked_div(smallest).unwrap_or(0);
        if count > long(most) {
            return Err(BodyError::CountTooHigh { at, count });
        }
        let count = usize::try_from(count).unwrap_or(most);
        let mut list = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    /// Ok when every byte was read.
    pub(crate) fn finish(self) -> Result<(), BodyError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(BodyError::TrailingBytes { at: self.at })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn read(bytes: &[u8]) -> Result<u64, BodyError> {
        let mut cursor = Cursor::new(bytes, 0);
        let value = cursor.u64_varint()?;
        cursor.finish()?;
        Ok(value)
    }

    #[test]
    fn every_width_of_varint_comes_back() {
        for bits in 0..64 {
            for value in [1u64 << bits, (1u64 << bits) - 1, u64::MAX >> bits] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(read(&out), Ok(value));
                let mut short = Vec::new();
                put_length(&mut short, usize::try_from(value).unwrap());
                assert_eq!(short, out);
            }
        }
        let mut out = Vec::new();
        put_varint(&mut out, 300);
        assert_eq!(out, [0xac, 0x02]);
    }

    #[test]
    fn overlong_oversized_and_cut_varints_are_refused() {
        assert_eq!(
            read(&[0x80, 0x00]),
            Err(BodyError::VarintOverlong { at: 0 })
        );
        assert_eq!(
            read(&[0xff, 0x80, 0x00]),
            Err(BodyError::VarintOverlong { at: 0 })
        );
        let mut big = vec![0xff; 9];
        big.push(1);
        assert_eq!(read(&big), Ok(u64::MAX));
        big[9] = 2;
        assert_eq!(read(&big), Err(BodyError::NumberTooLarge { at: 0 }));
        big[9] = 0x81;
        big.push(0);
        assert_eq!(read(&big), Err(BodyError::NumberTooLarge { at: 0 }));
        assert_eq!(read(&[]), Err(BodyError::Truncated { at: 0 }));
        assert_eq!(read(&[0x80]), Err(BodyError::Truncated { at: 0 }));
        let mut cursor = Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x1f], 5);
        assert_eq!(
            cursor.u32_varint(),
            Err(BodyError::NumberTooLarge { at: 5 })
        );
    }

    #[test]
    fn zigzag_is_small_for_small_steps_and_total() {
        assert_eq!([zigzag(5, 5), zigzag(5, 4), zigzag(5, 6)], [0, 1, 2]);
        for from in [0, 1, 77, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            for to in [0, 1, 76, 78, u64::MAX / 2 + 1, u64::MAX] {
                assert_eq!(unzigzag(from, zigzag(from, to)), to);
            }
        }
    }

    #[test]
    fn a_count_beyond_the_bytes_allocates_nothing_and_is_refused() {
        let mut out = Vec::new();
        put_varint(&mut out, 1 << 60);
        out.extend_from_slice(&[0; 16]);
        let mut cursor = Cursor::new(&out, 0);
        let list = cursor.list(1, |c| c.u64_fixed());
        assert_eq!(
            list,
            Err(BodyError::CountTooHigh {
                at: 0,
                count: 1 << 60
            })
        );
    }

    #[test]
    fn lengths_beyond_the_bytes_and_bad_text_are_refused() {
        let mut cursor = Cursor::new(&[5, b'a'], 10);
        assert_eq!(cursor.bytes(), Err(BodyError::Truncated { at: 10 }));
        let mut cursor = Cursor::new(&[2, 0xc3, 0x28], 10);
        assert_eq!(cursor.str(), Err(BodyError::NotUtf8 { at: 11 }));
        let mut cursor = Cursor::new(&[2], 3);
        assert_eq!(cursor.flag(), Err(BodyError::BadFlag { at: 3, value: 2 }));
    }
}
