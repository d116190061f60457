//! Flume's `TEXT`: the body, and a newline unless `appendNewline = false`.

use super::{Serializer, Unformattable};
use crate::event::Event;

/// Body and newline.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// Whether a newline follows each body.
    pub append_newline: bool,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            append_newline: true,
        }
    }
}

impl Serializer for Text {
    fn append(&self, event: &Event, out: &mut Vec<u8>) -> Result<(), Unformattable> {
        out.extend_from_slice(&event.body);
        if self.append_newline {
            out.push(b'\n');
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_followed_by_a_newline_unless_told_otherwise() {
        let event = Event::from_body("a b");
        let mut out = Vec::new();
        Text::default().append(&event, &mut out).unwrap();
        Text {
            append_newline: false,
        }
        .append(&event, &mut out)
        .unwrap();
        assert_eq!(out, b"a b\na b");
    }
}
