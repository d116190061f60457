//! The grammar of `java.util.Properties`, with the line of every property.
//!
//! *Place in the flow*: bytes of a file in, properties in the order of the file out. Nothing is
//! looked up, trimmed or merged here.
//! *Invariants*: never panics, whatever the bytes; a property carries the line on which it
//! begins.

use std::fmt;
use std::sync::Arc;

use java_properties::{LineContent, PropertiesIter};

use super::diagnostic::{Diagnostics, Location};
use super::secret::is_secret_key;

/// The largest configuration file that is read.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// One `key = value` of a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    /// Key, as written after unescaping.
    pub key: String,
    /// Value, as written after unescaping; `${..}` is still in it.
    pub value: String,
    /// Where the property begins.
    pub at: Location,
    /// It holds characters beyond ASCII that are not `\u` escapes, read as UTF-8.
    pub utf8: bool,
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if is_secret_key(&self.key) {
            ".."
        } else {
            &self.value
        };
        write!(f, "{}: {} = {value}", self.at, self.key)
    }
}

/// Reads the properties of a file. Malformed `\u` escapes become errors in `found`, each with its
/// line, and the rest of the file is read all the same.
///
/// Text is UTF-8; a file that is not valid UTF-8 is read as ISO-8859-1, as Flume does.
pub fn parse(bytes: &[u8], file: &Arc<str>, found: &mut Diagnostics) -> Vec<Property> {
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("larger than {FILE_BYTES_MAX} bytes; is this the right file?");
        found.error(&Location::whole(file), "", message);
        return Vec::new();
    }
    let (mut text, utf8) = match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), true),
        Err(_) => (bytes.iter().map(|&byte| char::from(byte)).collect(), false),
    };
    // A file that ends in a continuation mark would lose its last property in the parser.
    text.push('\n');
    let natural = natural_lines(&text);
    let joined = for_the_parser(&text);
    let mut properties: Vec<Property> = Vec::new();
    // Lines are read in pairs, since a property reaches to where the next logical line begins.
    let mut lines =
        PropertiesIter::new_with_encoding(joined.as_bytes(), encoding_rs::UTF_8).peekable();
    while let Some(line) = lines.next() {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                let number = error.line_number().unwrap_or(0);
                // Java never looks into comments; `# C:\users` is fine there.
                if !natural
                    .get(number.wrapping_sub(1))
                    .is_some_and(|text| is_comment(text))
                {
                    let at = location(file, number);
                    found.error(
                        &at,
                        "",
                        "malformed \\uxxxx escape: four hex digits must follow",
                    );
                }
                continue;
            }
        };
        let first = line.line_number();
        let after = match lines.peek() {
            Some(Ok(next)) => next.line_number(),
            Some(Err(error)) => error.line_number().unwrap_or(first + 1),
            None => natural.len() + 1,
        };
        if let LineContent::KVPair(key, value) = line.consume_content() {
            let own = natural
                .get(first.saturating_sub(1)..after.saturating_sub(1))
                .unwrap_or(&[]);
            let utf8 = utf8 && own.iter().any(|text| !text.is_ascii() && !is_comment(text));
            properties.push(Property {
                key,
                value,
                at: location(file, first),
                utf8,
            });
        }
    }
    properties
}

/// The text as the parser needs it to read what Java reads: characters beyond `\uffff` stand as two
/// escapes, and it knows only those that are one; at the beginning of a line that goes on, it skips
/// whatever Unicode calls white.
fn for_the_parser(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        joined.push_str(before);
        if let Some((c, behind)) = escape_pair(escape) {
            joined.push(c);
            rest = behind;
            continue;
        }
        // The next character is escaped and begins no escape of its own.
        let skipped = match escape[1..].chars().next() {
            Some('\r') if escape[2..].starts_with('\n') => 3,
            next => next.map_or(1, |c| 1 + c.len_utf8()),
        };
        let (escape, behind) = escape.split_at(skipped);
        joined.push_str(escape);
        rest = behind;
        if escape.ends_with(['\r', '\n']) {
            rest = keep_white(rest, &mut joined);
        }
    }
    joined.push_str(rest);
    joined
}

/// Takes the blanks of Java at the beginning of `line`, and a white character behind them as an
/// escape. Returns what follows.
fn keep_white<'a>(line: &'a str, joined: &mut String) -> &'a str {
    let behind = line.trim_start_matches([' ', '\t', '\x0c']);
    joined.push_str(&line[..line.len() - behind.len()]);
    match behind.chars().next() {
        Some(c) if c.is_whitespace() && !matches!(c, '\r' | '\n') => {
            joined.push_str(&format!("\\u{:04x}", u32::from(c)));
            &behind[c.len_utf8()..]
        }
        _ => behind,
    }
}

/// The character of two escapes at the beginning of `text`, and what follows them.
fn escape_pair(text: &str) -> Option<(char, &str)> {
    let (high, rest) = escape_unit(text)?;
    let (low, rest) = escape_unit(rest)?;
    let c = char::decode_utf16([high, low]).next()?.ok()?;
    (u32::from(c) > 0xffff).then_some((c, rest))
}

fn escape_unit(text: &str) -> Option<(u16, &str)> {
    let (digits, rest) = text.strip_prefix("\\u")?.split_at_checked(4)?;
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let unit = hex.then(|| u16::from_str_radix(digits, 16).ok())??;
    Some((unit, rest))
}

fn location(file: &Arc<str>, line: usize) -> Location {
    Location {
        file: Arc::clone(file),
        line: u32::try_from(line).unwrap_or(u32::MAX),
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start_matches([' ', '\t', '\x0c'])
        .starts_with(['#', '!'])
}

/// Lines as Java counts them: ended by `\n`, `\r` or `\r\n`.
fn natural_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\n', '\r']) {
        lines.push(&rest[..end]);
        let ending = if rest[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + ending..];
    }
    lines.push(rest);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> (Vec<(String, String, u32)>, Vec<String>) {
        let mut found = Diagnostics::default();
        let properties = parse(text, &Arc::from("f"), &mut found)
            .into_iter()
            .map(|property| (property.key, property.value, property.at.line))
            .collect();
        (
            properties,
            found.sorted().iter().map(ToString::to_string).collect(),
        )
    }

    fn pairs(text: &str) -> Vec<(String, String, u32)> {
        let (properties, errors) = read(text.as_bytes());
        assert!(errors.is_empty(), "{errors:?}");
        properties
    }

    fn pair(key: &str, value: &str, line: u32) -> (String, String, u32) {
        (key.to_owned(), value.to_owned(), line)
    }

    #[test]
    fn separators_comments_and_escapes_are_those_of_java() {
        let text = "# c\n! c\n a = b\nc:d\ne f g\nh\ni\\=j=k\\tl\nm=\\u0041 \n";
        let expected = [
            pair("a", "b", 3),
            pair("c", "d", 4),
            pair("e", "f g", 5),
            pair("h", "", 6),
            pair("i=j", "k\tl", 7),
            pair("m", "A ", 8),
        ];
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn a_continued_value_has_the_line_of_its_beginning() {
        assert_eq!(
            pairs("a=1,\\\r\n   2,\\\r\n   3\r\nb=4"),
            [pair("a", "1,2,3", 1), pair("b", "4", 4)]
        );
    }

    #[test]
    fn a_continuation_mark_at_the_end_of_the_file_loses_nothing() {
        assert_eq!(pairs("a=b\\"), [pair("a", "b", 1)]);
    }

    #[test]
    fn a_malformed_escape_is_an_error_with_its_line_and_the_rest_is_read() {
        let (properties, errors) = read(b"a=\\u12\nb=C:\\users\nc=1\n");
        assert_eq!(properties, [pair("c", "1", 3)]);
        let text = "malformed \\uxxxx escape: four hex digits must follow";
        assert_eq!(
            errors,
            [format!("error: f:1: {text}"), format!("error: f:2: {text}")]
        );
    }

    #[test]
    fn a_malformed_escape_in_a_comment_is_no_error() {
        assert_eq!(pairs("# C:\\users\n  ! \\u1\na=b\n"), [pair("a", "b", 3)]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_read_as_latin_1() {
        let (properties, _) = read(b"a=\xe9\n");
        assert_eq!(properties, [pair("a", "\u{e9}", 1)]);
    }

    #[test]
    fn only_literal_characters_beyond_ascii_are_marked() {
        let mut found = Diagnostics::default();
        let text = "a=\u{e9}\nb=\\u00e9\nc=1\\\n\u{e9}\n# \u{e9}\nd=1\n\u{e9}=1\n";
        let marked: Vec<bool> = parse(text.as_bytes(), &Arc::from("f"), &mut found)
            .iter()
            .map(|property| property.utf8)
            .collect();
        assert_eq!(marked, [true, false, true, false, true]);
    }
}
