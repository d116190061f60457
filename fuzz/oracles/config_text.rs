//! What reading any text as a configuration must do. Included by the fuzz target `config_text` and
//! by `tests/fuzz_seeds.rs`.
//!
//! *Claims*: the properties are those of a second reader, written from the documentation of
//! `java.util.Properties`; all of `check` says the same in both of its forms and its exit code
//! follows the number of errors; every line that a finding names is there; every property of an
//! agent is shown, or a finding names it, so that nothing is ignored in silence; an agent without
//! errors has a configuration and one with errors has none; the value of a key that names a secret
//! is shown nowhere.
//!
//! *Input*: the text. `@` stands for `a.sources.s.`, `%` for `a.channels.c.` and `&` for
//! `a.sinks.k.` at the beginning of a line.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use forebay::cli::CheckArgs;
use forebay::config::check::run_on;
use forebay::config::diagnostic::Diagnostics;
use forebay::config::secret::is_secret_key;
use forebay::config::{Lookups, parse, properties};
use serde_json::Value;

/// What one input has led to, so that a test can see that a corpus is not all garbage.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Agents without errors.
    pub(crate) usable: usize,
    /// Findings of all agents.
    pub(crate) findings: usize,
}

/// Keys of an agent that are lists and no components.
const WORDS: [&str; 5] = [
    "sources",
    "channels",
    "sinks",
    "sinkgroups",
    "configfilters",
];

/// Reads the text in every way, and panics where a claim does not hold.
pub(crate) fn check(input: &[u8]) -> Seen {
    let text = expand(input);
    let own = [("HOME", "/h"), ("PORT", "44"), ("EMPTY", " ")];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let lookups = Lookups::fixed([("sys".to_owned(), "x y".to_owned())], own);
    let file: Arc<str> = "f".into();
    let mut found = Diagnostics::default();
    let read = properties::parse(&text, &file, &mut found);
    let pairs: Vec<(String, String)> = read
        .iter()
        .map(|property| (property.key.clone(), property.value.clone()))
        .collect();
    if let Ok(text) = std::str::from_utf8(&text) {
        assert_eq!(pairs, java(text), "beside the second reader");
    }

    let mut args = CheckArgs {
        file: PathBuf::from("f"),
        name: None,
        conf: Some(PathBuf::from("/nonexistent")),
        strict: false,
        json: true,
        define: Vec::new(),
    };
    let mut json = Vec::new();
    let code = run_on(&text, &args, &lookups, &mut json);
    args.json = false;
    let mut human = Vec::new();
    assert_eq!(
        run_on(&text, &args, &lookups, &mut human),
        code,
        "two forms"
    );
    let report: Value = serde_json::from_slice(&json).expect("a JSON document");
    let errors = report["errors"].as_u64().expect("a number");
    assert_eq!(code, if errors > 0 { 2 } else { 0 });
    assert_eq!(report["usable"].as_bool(), Some(errors == 0));

    let lines = text
        .iter()
        .filter(|byte| matches!(byte, b'\n' | b'\r'))
        .count() as u64
        + 1;
    let mut seen = Seen::default();
    let agents = report["agents"].as_array().expect("a list");
    for agent in agents {
        let name = agent["name"].as_str().expect("a name");
        let usable = agent["usable"].as_bool().expect("a flag");
        let loaded = parse(&text, &file, name, &lookups);
        if usable {
            assert!(loaded.config.is_some(), "{name} is called usable");
        }
        assert_eq!(loaded.config.is_some(), !loaded.found.has_errors());
        seen.usable += usize::from(usable);
        let findings = agent["findings"].as_array().expect("a list");
        seen.findings += findings.len();
        for finding in findings {
            let line = finding["line"].as_u64().unwrap_or(1);
            assert!((1..=lines).contains(&line), "{finding}: {lines} lines");
        }
        nothing_is_ignored(name, agent, &pairs);
    }
    let human = String::from_utf8(human).expect("text");
    let json = String::from_utf8(json).expect("text");
    secrets_are_kept(&read, &text, &[&human, &json]);
    seen
}

fn expand(input: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut at_start = true;
    for byte in input {
        match byte {
            b'@' if at_start => text.extend_from_slice(b"a.sources.s."),
            b'%' if at_start => text.extend_from_slice(b"a.channels.c."),
            b'&' if at_start => text.extend_from_slice(b"a.sinks.k."),
            other => text.push(*other),
        }
        at_start = matches!(byte, b'\n' | b'\r');
    }
    text
}

/// Every key of the agent with a value is shown or named; `pairs` are those of all agents.
fn nothing_is_ignored(name: &str, agent: &Value, pairs: &[(String, String)]) {
    let mut shown = BTreeSet::new();
    for part in agent["components"].as_array().expect("a list") {
        let text = |field: &str| part[field].as_str().expect("text").to_owned();
        for key in part["keys"].as_array().expect("a list") {
            let key = key["key"].as_str().expect("text");
            shown.insert(format!("{name}.{}.{}.{key}", text("section"), text("name")));
        }
    }
    let findings = agent["findings"].as_array().expect("a list");
    let named: Vec<&str> = findings
        .iter()
        .filter_map(|found| found["key"].as_str())
        .collect();
    for (key, _) in pairs {
        let key = key.trim();
        let Some(rest) = key
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('.'))
        else {
            continue;
        };
        // The name of a component is trimmed; a component that has an error as a whole, or a group
        // of sinks, is named by that.
        let parts: Vec<&str> = rest.splitn(3, '.').collect();
        let (full, whole) = match parts[..] {
            [word, part, below] => {
                let part = format!("{name}.{word}.{}", part.trim());
                (format!("{part}.{below}"), part)
            }
            _ => (key.to_owned(), key.to_owned()),
        };
        let named_so = |named: &&str| {
            let error = **named == *format!("{whole}.type");
            let group = parts[0] == "sinkgroups" && named.starts_with(&whole);
            !named.is_empty() && (error || group || full.starts_with(*named))
        };
        let known = WORDS.contains(&rest) || rest.is_empty() || shown.contains(&full);
        let known = known || named.iter().any(|named| key == *named || named_so(named));
        assert!(known, "{key:?} of {name:?} is ignored in silence");
    }
}

/// Values of keys that name secrets, long enough not to be there by chance.
fn secrets_are_kept(read: &[properties::Property], text: &[u8], outputs: &[&str]) {
    // An agent may be called `token`: what its components are called is no secret.
    let list = |key: &str| {
        let word = key.trim().split_once('.').map(|(_, word)| word);
        word.is_some_and(|word| WORDS.contains(&word))
    };
    let secret = |key: &str| is_secret_key(key) && !list(key);
    for property in read.iter().filter(|property| secret(&property.key)) {
        let value = property.value.trim();
        let inside = |text: &[u8]| {
            let value = value.as_bytes();
            text.windows(value.len())
                .filter(|window| *window == value)
                .count()
        };
        if value.len() < 12 || inside(text) != 1 {
            continue;
        }
        for output in outputs {
            assert!(
                !output.contains(value),
                "the value of {} is shown",
                property.key
            );
        }
    }
}

/// `java.util.Properties.load`, as its documentation says it and Java 17 does it. Properties with a
/// malformed escape are left out, where Java gives up, and those with half a surrogate pair.
fn java(text: &str) -> Vec<(String, String)> {
    let mut lines = text.split(['\n', '\r']).peekable();
    let mut pairs = Vec::new();
    let blank = [' ', '\t', '\x0c'];
    while let Some(line) = lines.next() {
        let mut logical = line.trim_start_matches(blank).to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        // An odd number of backslashes at the end goes on in the next line. `\r\n` is one end.
        while (logical.len() - logical.trim_end_matches('\\').len()) % 2 == 1 {
            logical.pop();
            let Some(next) = next_natural(&mut lines, text) else {
                break;
            };
            let next = next.trim_start_matches(blank);
            // As long as there is nothing of a property, this may still be a comment.
            if logical.is_empty() && next.starts_with(['#', '!']) {
                break;
            }
            logical += next;
        }
        if logical.is_empty() {
            continue;
        }
        let (key, value) = split_pair(&logical);
        if let (Some(key), Some(value)) = (unescape(key), unescape(value)) {
            pairs.push((key, value));
        }
    }
    pairs
}

/// The next line; the empty piece between `\r` and `\n` is none.
fn next_natural<'a>(
    lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    text: &'a str,
) -> Option<&'a str> {
    let next = lines.next()?;
    let at = next.as_ptr() as usize - text.as_ptr() as usize;
    let between = next.is_empty() && text[..at].ends_with('\r') && text[at..].starts_with('\n');
    if between { lines.next() } else { Some(next) }
}

fn split_pair(logical: &str) -> (&str, &str) {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\x0c');
    let mut escaped = false;
    let end = logical.find(|c: char| {
        let ends = !escaped && (blank(c) || c == '=' || c == ':');
        escaped = c == '\\' && !escaped;
        ends
    });
    let (key, rest) = logical.split_at(end.unwrap_or(logical.len()));
    let rest = rest.trim_start_matches(blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(blank))
}

fn unescape(text: &str) -> Option<String> {
    let mut units = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let c = match (c, if c == '\\' { rest.next() } else { None }) {
            ('\\', None) => break,
            ('\\', Some('u')) => {
                let digits: String = rest.by_ref().take(4).collect();
                let hex = digits.len() == 4 && digits.chars().all(|c| c.is_ascii_hexdigit());
                units.push(u16::from_str_radix(digits.get(..4).filter(|_| hex)?, 16).ok()?);
                continue;
            }
            ('\\', Some('t')) => '\t',
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('f')) => '\x0c',
            ('\\', Some(other)) => other,
            (other, _) => other,
        };
        units.extend(c.encode_utf16(&mut [0; 2]).iter());
    }
    String::from_utf16(&units).ok()
}
