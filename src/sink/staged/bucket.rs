//! Which file an event belongs to: Flume's path escapes.
//!
//! *Place in the flow*: a [`Template`] is parsed once from `hdfs.path` or `hdfs.filePrefix`; the
//! attempt renders it for each event. A rendering depends on the event only (headers, body never,
//! put time), so that every attempt puts an event into the same file.
//!
//! *Differences from Flume*, all because header values come from the network: a value is
//! percent-encoded where it holds `/`, `:` or control characters, is `..`, or begins with `_` or
//! `.`; `useLocalTimeStamp` is the put time; repeated slashes are cut. A missing header renders
//! empty, as in Flume. A missing or unreadable `timestamp` that an escape needs makes the event
//! [`Unplaceable`]: it goes to the reject part of its epoch, where Flume would fail the batch for
//! ever.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit, ZonedDateTime};

use super::names::MAX_NAME;
use crate::channel::journal::EPOCH_TOKEN;
use crate::event::Event;

/// Longest path that HDFS takes by default, with room for the file's own name.
const MAX_PATH: usize = 8000 - MAX_NAME;

/// What is wrong with a template.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{text:?}: {reason}")]
pub struct TemplateError {
    /// The template.
    pub text: String,
    /// Why it cannot be used.
    pub reason: String,
}

/// Why an event has no place: it goes to the reject part.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Unplaceable {
    /// An escape needs the header `timestamp`.
    #[error("header `timestamp` is missing and the path needs it")]
    NoTimestamp,
    /// The header `timestamp` is not a number of milliseconds in the years -9999 to 9999.
    #[error("header `timestamp` is not a time in milliseconds: {0:?}")]
    BadTimestamp(String),
    /// A name or path would be longer than the store takes.
    #[error("a path component would be {0} bytes long")]
    TooLong(usize),
}

/// What time escapes show.
#[derive(Clone, Debug)]
pub struct TimeRule {
    /// Zone of the escapes.
    pub zone: TimeZone,
    /// `hdfs.round`: value and unit (second, minute or hour).
    pub round: Option<(u32, Unit)>,
    /// Use the put time instead of the header `timestamp`.
    pub put_time: bool,
}

impl Default for TimeRule {
    fn default() -> Self {
        Self {
            zone: TimeZone::system(),
            round: None,
            put_time: false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Header(String),
    Time(char),
}

/// A text with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

impl Template {
    /// Reads a template. `%[localhost]`, `%[IP]` and `%[FQDN]` are looked up now.
    ///
    /// # Errors
    /// An unknown escape, or a literal that would hide published files from readers.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let fail = |reason: String| TemplateError {
            text: text.to_owned(),
            reason,
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            push_literal(&mut pieces, &rest[..at]);
            rest = &rest[at + 1..];
            let (piece, used) = match rest.chars().next() {
                Some('%') => (Piece::Literal("%".into()), 1),
                Some('{') => {
                    let end = rest.find('}').ok_or_else(|| fail("%{ without }".into()))?;
                    (Piece::Header(rest[1..end].to_owned()), end + 1)
                }
                Some('[') => {
                    let end = rest.find(']').ok_or_else(|| fail("%[ without ]".into()))?;
                    let known = "known are %[localhost], %[IP], %[FQDN]";
                    let value = host_value(&rest[1..end])
                        .ok_or_else(|| fail(format!("%[{}] is unknown; {known}", &rest[1..end])))?;
                    (Piece::Literal(value), end + 1)
                }
                Some(c) if "taAbBcdDeHIjklmnMpsSyYz".contains(c) => (Piece::Time(c), 1),
                Some(c) => return Err(fail(format!("%{c} is not an escape; write %% for '%'"))),
                None => return Err(fail("ends with '%'; write %% for '%'".into())),
            };
            match piece {
                Piece::Literal(more) => push_literal(&mut pieces, &more),
                piece => pieces.push(piece),
            }
            rest = &rest[used..];
        }
        push_literal(&mut pieces, rest);
        if pieces
            .iter()
            .any(|p| matches!(p, Piece::Literal(l) if l.contains(EPOCH_TOKEN)))
        {
            return Err(fail(
                "holds {epoch}, which stands for the epoch number".into(),
            ));
        }
        Ok(Self {
            text: text.to_owned(),
            pieces,
        })
    }

    /// The longest front of a path, in whole components, that holds no escape.
    pub fn base(&self) -> String {
        let components = self.text.split('/').filter(|c| !c.is_empty());
        let plain: Vec<&str> = components.take_while(|c| !c.contains('%')).collect();
        format!("/{}", plain.join("/"))
    }

    /// Whether a header other than `timestamp` shows in the result.
    pub fn has_headers(&self) -> bool {
        self.pieces.iter().any(|p| matches!(p, Piece::Header(_)))
    }

    /// Whether every event renders to the same text.
    pub fn is_literal(&self) -> bool {
        self.pieces.iter().all(|p| matches!(p, Piece::Literal(_)))
    }

    /// The text before the first escape.
    pub fn literal_front(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Literal(text)) => text,
            _ => "",
        }
    }

    /// The text for an event.
    pub fn render(&self, event: &Event, rule: &TimeRule) -> Result<String, Unplaceable> {
        let mut out = String::with_capacity(self.text.len() + 16);
        let mut time = None;
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Header(name) => {
                    encode_into(&mut out, event.headers.get(name).unwrap_or(""));
                }
                Piece::Time(escape) => {
                    let time = match &mut time {
                        Some(time) => time,
                        none => none.insert(time_of(event, rule)?),
                    };
                    time_into(&mut out, *escape, time);
                }
            }
        }
        Ok(out)
    }

    /// The text for an event as a directory: absolute, no empty components, no trailing slash.
    pub fn render_path(&self, event: &Event, rule: &TimeRule) -> Result<String, Unplaceable> {
        let text = self.render(event, rule)?;
        let mut path = String::with_capacity(text.len() + 1);
        for component in text.split('/').filter(|c| !c.is_empty()) {
            if component.len() > MAX_NAME {
                return Err(Unplaceable::TooLong(component.len()));
            }
            path.push('/');
            path.push_str(component);
        }
        if path.len() > MAX_PATH {
            return Err(Unplaceable::TooLong(path.len()));
        }
        if path.is_empty() {
            path.push('/');
        }
        Ok(path)
    }
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Literal(before)) => before.push_str(text),
        _ => pieces.push(Piece::Literal(text.to_owned())),
    }
}

/// Appends a header value as a part of one path component.
fn encode_into(out: &mut String, value: &str) {
    let hidden = value.starts_with(['_', '.']);
    let token = value.contains(EPOCH_TOKEN);
    for (at, c) in value.char_indices() {
        let encode = matches!(c, '/' | ':')
            || c.is_control()
            || (at == 0 && hidden)
            || (value == ".." && c == '.')
            || (token && matches!(c, '{' | '}'));
        if encode {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // Writing to a String cannot fail.
                if write!(out, "%{byte:02X}").is_err() {}
            }
        } else {
            out.push(c);
        }
    }
}

fn time_of(event: &Event, rule: &TimeRule) -> Result<ZonedDateTime, Unplaceable> {
    let (ms, text) = if rule.put_time {
        (i64::try_from(event.put_time_ms).ok(), "")
    } else {
        let text = event
            .headers
            .get("timestamp")
            .ok_or(Unplaceable::NoTimestamp)?;
        (text.trim().parse().ok(), text)
    };
    let bad = || Unplaceable::BadTimestamp(text.chars().take(40).collect());
    let time = ms
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .ok_or_else(bad)?;
    let time = time.to_zoned_datetime(rule.zone.clone());
    let Some((value, unit)) = rule.round else {
        return Ok(time);
    };
    // Flume cuts the field to a multiple of the value, whether or not it divides the next unit.
    let floor = |field: i8| {
        let value = i8::try_from(value.max(1)).unwrap_or(i8::MAX);
        field - field % value
    };
    let cut = time.with().subsec_nanosecond(0);
    let cut = match unit {
        Unit::Hour => cut.hour(floor(time.hour())).minute(0).second(0),
        Unit::Minute => cut.minute(floor(time.minute())).second(0),
        _ => cut.second(floor(time.second())),
    };
    cut.build().map_err(|_| bad())
}

/// Appends one time escape, in the words of Java's English locale.
fn time_into(out: &mut String, escape: char, time: &ZonedDateTime) {
    let format = match escape {
        't' => return push_number(out, time.timestamp().as_millisecond()),
        's' => return push_number(out, time.timestamp().as_millisecond() / 1000),
        'a' => "%a",
        'A' => "%A",
        'b' => "%b",
        'B' => "%B",
        'c' => "%a %b %-d %H:%M:%S %Y",
        'd' => "%d",
        'D' => "%m/%d/%y",
        'e' => "%-d",
        'H' => "%H",
        'I' => "%I",
        'j' => "%j",
        'k' => "%-H",
        'l' => "%-I",
        'm' => "%m",
        'n' => "%-m",
        'M' => "%M",
        'p' => "%p",
        'S' => "%S",
        'y' => "%y",
        'Y' => "%Y",
        _ => "%z",
    };
    // Writing to a String cannot fail, and the formats are fixed.
    if write!(out, "{}", time.strftime(format)).is_err() {}
}

fn push_number(out: &mut String, number: i64) {
    // Writing to a String cannot fail.
    if write!(out, "{number}").is_err() {}
}

fn host_value(name: &str) -> Option<String> {
    let host = || {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    };
    match name {
        "localhost" => Some(host()),
        "IP" => Some(host_address(&host())),
        "FQDN" => Some(full_name(&host())),
        _ => None,
    }
}

fn host_address(host: &str) -> String {
    use std::net::ToSocketAddrs;
    let found = (host, 0).to_socket_addrs().ok();
    let mut addresses: Vec<_> = found.into_iter().flatten().map(|a| a.ip()).collect();
    addresses.sort_by_key(|ip| !ip.is_ipv4());
    addresses
        .first()
        .map_or_else(|| "127.0.0.1".to_owned(), ToString::to_string)
}

/// The host's name with its domain: from the kernel, else the first name with a dot that
/// `/etc/hosts` gives it, else the bare name.
fn full_name(host: &str) -> String {
    if host.contains('.') {
        return host.to_owned();
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    let mut named = lines
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>())
        .filter(|names| names.contains(&host));
    let full = named.find_map(|names| names.into_iter().find(|n| n.contains('.')));
    full.map_or_else(|| host.to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> TimeRule {
        TimeRule {
            zone: TimeZone::UTC,
            round: None,
            put_time: false,
        }
    }

    fn event(headers: &[(&str, &str)]) -> Event {
        let mut event = Event::from_body("x");
        for (name, value) in headers {
            event.headers.set(*name, *value);
        }
        event
    }

    fn render(template: &str, headers: &[(&str, &str)]) -> String {
        let template = Template::parse(template).unwrap();
        template.render_path(&event(headers), &rule()).unwrap()
    }

    // 2023-03-05 14:07:09.123 UTC, a Sunday.
    const AT: &str = "1678025229123";

    #[test]
    fn every_time_escape_prints_what_flume_prints() {
        let cases = [
            ("t", AT),
            ("s", "1678025229"),
            ("a", "Sun"),
            ("A", "Sunday"),
            ("b", "Mar"),
            ("B", "March"),
            ("d", "05"),
            ("e", "5"),
            ("H", "14"),
            ("I", "02"),
            ("j", "064"),
            ("k", "14"),
            ("l", "2"),
            ("m", "03"),
            ("n", "3"),
            ("M", "07"),
            ("p", "PM"),
            ("S", "09"),
            ("y", "23"),
            ("Y", "2023"),
            ("z", "+0000"),
            ("c", "Sun Mar 5 14:07:09 2023"),
        ];
        for (escape, expected) in cases {
            let path = render(&format!("/x/%{escape}"), &[("timestamp", AT)]);
            assert_eq!(path, format!("/x/{expected}"), "%{escape}");
        }
        assert_eq!(render("/%D", &[("timestamp", AT)]), "/03/05/23");
    }

    #[test]
    fn rounding_cuts_the_field_and_all_below_it() {
        let template = Template::parse("/%H%M%S/%t").unwrap();
        let cases = [
            ((10, Unit::Minute), "/140000/1678024800000"),
            ((7, Unit::Minute), "/140700/1678025220000"),
            ((6, Unit::Hour), "/120000/1678017600000"),
            ((5, Unit::Second), "/140705/1678025225000"),
        ];
        for (round, expected) in cases {
            let rule = TimeRule {
                round: Some(round),
                ..rule()
            };
            let path = template
                .render_path(&event(&[("timestamp", AT)]), &rule)
                .unwrap();
            assert_eq!(path, expected);
        }
    }

    #[test]
    fn the_zone_and_the_put_time_are_used() {
        let mut rule = rule();
        rule.zone = TimeZone::get("Asia/Tokyo").unwrap();
        rule.put_time = true;
        let mut event = event(&[("timestamp", "0")]);
        event.put_time_ms = AT.parse().unwrap();
        let template = Template::parse("/%Y%m%d/%H%z").unwrap();
        assert_eq!(
            template.render_path(&event, &rule).unwrap(),
            "/20230305/23+0900"
        );
    }

    #[test]
    fn header_values_cannot_leave_their_component_or_hide_a_file() {
        for (value, expected) in [
            ("../../etc", "/a/%2E.%2F..%2Fetc/z"),
            ("..", "/a/%2E%2E/z"),
            ("_x", "/a/%5Fx/z"),
            (".x", "/a/%2Ex/z"),
            ("a:b\n", "/a/a%3Ab%0A/z"),
            ("plain", "/a/plain/z"),
            ("{epoch}", "/a/%7Bepoch%7D/z"),
            ("", "/a/z"),
        ] {
            assert_eq!(render("/a/%{h}/z", &[("h", value)]), expected);
        }
        assert_eq!(render("/a/%{missing}/z", &[]), "/a/z");
    }

    #[test]
    fn a_missing_or_bad_timestamp_or_a_long_name_rejects_the_event() {
        let template = Template::parse("/a/%Y").unwrap();
        let place = |headers: &[(&str, &str)]| template.render_path(&event(headers), &rule());
        assert_eq!(place(&[]), Err(Unplaceable::NoTimestamp));
        assert!(matches!(
            place(&[("timestamp", "x")]),
            Err(Unplaceable::BadTimestamp(_))
        ));
        let far = "99999999999999999";
        assert!(matches!(
            place(&[("timestamp", far)]),
            Err(Unplaceable::BadTimestamp(_))
        ));
        let long = "n".repeat(300);
        let template = Template::parse("/%{h}").unwrap();
        let placed = template.render_path(&event(&[("h", &long)]), &rule());
        assert_eq!(placed, Err(Unplaceable::TooLong(300)));
    }

    #[test]
    fn the_base_is_the_front_without_escapes() {
        for (text, base) in [
            ("/data/%Y/x", "/data"),
            ("/data/app-%Y", "/data"),
            ("/%{t}/x", "/"),
            ("/logs", "/logs"),
        ] {
            assert_eq!(Template::parse(text).unwrap().base(), base);
        }
    }

    #[test]
    fn unknown_escapes_are_errors() {
        for text in ["/%q", "/%", "/%{x", "/%[nope]", "/{epoch}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert_eq!(render("/100%%/%[localhost]", &[]).matches('%').count(), 1);
        assert!(!Template::parse("/%[IP]/%[FQDN]").unwrap().has_headers());
    }
}
