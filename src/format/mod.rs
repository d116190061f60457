//! How events become bytes of a file: serializers and codecs.
//!
//! *Place in the flow*: the staged publisher owns one [`Serializer`] a sink and one [`Encoder`] a
//! part. A serializer depends on the event only, so that every attempt writes the same content.

pub mod text;

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::event::Event;

/// Turns one event into bytes.
pub trait Serializer: Send + Sync + std::fmt::Debug {
    /// Appends the event to `out`.
    ///
    /// # Errors
    /// The event has no form in this format; it goes to the reject part. `out` is then unchanged.
    fn append(&self, event: &Event, out: &mut Vec<u8>) -> Result<(), Unformattable>;
}

/// An event that has no form in a format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event has no form in this format: {0}")]
pub struct Unformattable(pub String);

/// Compression of a whole file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// As it comes.
    #[default]
    Plain,
    /// One gzip member, which Hadoop and gunzip read.
    Gzip,
}

/// The state of one file's codec.
#[derive(Debug)]
pub enum Encoder {
    /// As it comes.
    Plain(Vec<u8>),
    /// Compressing.
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    /// For a new file.
    pub fn new(codec: Codec) -> Self {
        match codec {
            Codec::Plain => Self::Plain(Vec::new()),
            Codec::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
        }
    }

    /// Takes more content.
    ///
    /// # Errors
    /// The compressor has failed.
    pub fn push(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(out) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Self::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    /// Bytes of the file that wait to be written.
    pub fn pending(&self) -> usize {
        match self {
            Self::Plain(out) => out.len(),
            Self::Gzip(encoder) => encoder.get_ref().len(),
        }
    }

    /// Takes the bytes that wait.
    pub fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Plain(out) => std::mem::take(out),
            Self::Gzip(encoder) => std::mem::take(encoder.get_mut()),
        }
    }

    /// The last bytes of the file.
    ///
    /// # Errors
    /// The compressor has failed.
    pub fn finish(self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_gzip_file_is_one_member_however_often_it_is_flushed() {
        let mut encoder = Encoder::new(Codec::Gzip);
        let (mut file, mut content) = (Vec::new(), Vec::new());
        for i in 0..20_000 {
            let line = format!("line {i}\n");
            content.extend_from_slice(line.as_bytes());
            encoder.push(line.as_bytes()).unwrap();
            if encoder.pending() > 1000 {
                file.extend(encoder.take());
            }
        }
        file.extend(encoder.finish().unwrap());
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&file[..])
            .read_to_end(&mut read)
            .unwrap();
        assert_eq!(read, content);
    }
}
