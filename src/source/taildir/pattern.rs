//! The patterns of file groups: Java's regular expressions, as far as both engines agree.
//!
//! *Place in the flow*: [`whole_name`] turns the part of `filegroups.<group>` behind the last `/`
//! into a matcher. What this engine lacks (look-around, back references, possessive quantifiers,
//! atomic groups) or would read differently is an error that names the construct: a pattern
//! never quietly matches other files than in Flume.

use regex::Regex;

/// A matcher for whole file names.
///
/// # Errors
/// Says which construct is not supported, or what is wrong with the pattern.
pub fn whole_name(java: &str) -> Result<Regex, String> {
    let pattern = translate(java)?;
    Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        format!(
            "cannot use the pattern '{java}': {}",
            last.trim_start_matches("error: ")
        )
    })
}

fn unsupported(java: &str, construct: &str, what: &str) -> String {
    format!("cannot use the pattern '{java}': '{construct}' ({what}) is not supported here")
}

/// Classes that Java takes as ASCII unless told otherwise.
fn ascii_class(letter: char) -> Option<&'static str> {
    Some(match letter {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        's' => r"[\t\n\x0B\f\r ]",
        'S' => r"[^\t\n\x0B\f\r ]",
        _ => return None,
    })
}

fn posix_class(name: &str) -> Option<&'static str> {
    Some(match name {
        "Lower" => "lower",
        "Upper" => "upper",
        "ASCII" => "ascii",
        "Alpha" => "alpha",
        "Digit" => "digit",
        "Alnum" => "alnum",
        "Punct" => "punct",
        "Graph" => "graph",
        "Print" => "print",
        "Blank" => "blank",
        "Cntrl" => "cntrl",
        "XDigit" => "xdigit",
        "Space" => "space",
        _ => return None,
    })
}

struct Translator<'a> {
    java: &'a str,
    rest: &'a str,
    out: String,
    /// Depth of `[`.
    class: usize,
}

fn translate(java: &str) -> Result<String, String> {
    let mut this = Translator {
        java,
        rest: java,
        out: String::new(),
        class: 0,
    };
    while let Some(c) = this.next() {
        match c {
            '\\' => this.escape()?,
            _ if this.class > 0 => this.in_class(c)?,
            '[' => {
                this.class = 1;
                this.out.push('[');
                this.class_begins()?;
            }
            '(' => this.group()?,
            '*' | '+' | '?' => this.quantifier(c)?,
            '{' => {
                let close = this.rest.find('}').ok_or_else(|| {
                    unsupported(java, "{", "a repetition without its closing brace")
                })?;
                this.out.push('{');
                this.out.push_str(&this.rest[..close]);
                this.rest = &this.rest[close + 1..];
                this.quantifier('}')?;
            }
            _ => this.out.push(c),
        }
    }
    Ok(this.out)
}

impl Translator<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest.strip_prefix(token);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn class_begins(&mut self) -> Result<(), String> {
        if self.take("^") {
            self.out.push('^');
        }
        if self.rest.starts_with(']') {
            return Err(unsupported(
                self.java,
                "[]",
                "an empty class, or an unescaped ]",
            ));
        }
        Ok(())
    }

    fn in_class(&mut self, c: char) -> Result<(), String> {
        match c {
            '[' => {
                if self.rest.starts_with(':') {
                    return Err(unsupported(self.java, "[[:", r"use \p{Alpha} and the like"));
                }
                self.class += 1;
                self.out.push('[');
                return self.class_begins();
            }
            ']' => self.class -= 1,
            '-' | '~' if self.rest.starts_with(c) => {
                let construct = format!("{c}{c}");
                return Err(unsupported(
                    self.java,
                    &construct,
                    "inside a character class",
                ));
            }
            _ => {}
        }
        self.out.push(c);
        Ok(())
    }

    fn quantifier(&mut self, c: char) -> Result<(), String> {
        self.out.push(c);
        if self.take("+") {
            return Err(unsupported(
                self.java,
                &format!("{c}+"),
                "possessive quantifier",
            ));
        }
        if self.take("?") {
            self.out.push('?');
        }
        Ok(())
    }

    fn group(&mut self) -> Result<(), String> {
        for (token, what) in [
            ("?=", "look-ahead"),
            ("?!", "look-ahead"),
            ("?<=", "look-behind"),
            ("?<!", "look-behind"),
            ("?>", "atomic group"),
        ] {
            if self.rest.starts_with(token) {
                return Err(unsupported(self.java, &format!("({token}"), what));
            }
        }
        self.out.push('(');
        if self.rest.starts_with('?') && !self.rest.starts_with("?<") {
            let flags = self.rest[1..]
                .find([':', ')'])
                .map_or("", |end| &self.rest[1..=end]);
            if let Some(flag) = flags.chars().find(|flag| !"imsx-".contains(*flag)) {
                return Err(unsupported(self.java, &format!("(?{flag}"), "flag"));
            }
            // Handled here so that `?` is not taken for a quantifier.
            self.out.push('?');
            self.rest = &self.rest[1..];
        } else if self.take("?") {
            self.out.push('?');
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), String> {
        let Some(c) = self.next() else {
            return Err(unsupported(self.java, r"\", "at the end of the pattern"));
        };
        match c {
            'Q' => {
                let (literal, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
                self.out.push_str(&regex::escape(literal));
                self.rest = rest;
            }
            'p' | 'P' => self.property(c == 'P')?,
            _ if let Some(class) = ascii_class(c) => self.out.push_str(class),
            't' | 'n' | 'r' | 'f' | 'a' | 'x' | 'u' | 'b' | 'B' | 'A' | 'z' => {
                self.out.push('\\');
                self.out.push(c);
            }
            _ if c.is_ascii_alphanumeric() => {
                let what = if c.is_ascii_digit() || c == 'k' {
                    "back reference"
                } else {
                    "escape"
                };
                return Err(unsupported(self.java, &format!("\\{c}"), what));
            }
            _ => self
                .out
                .push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
        Ok(())
    }

    fn property(&mut self, negated: bool) -> Result<(), String> {
        let sign = if negated { 'P' } else { 'p' };
        let name = match self
            .rest
            .strip_prefix('{')
            .and_then(|rest| rest.split_once('}'))
        {
            Some((name, rest)) => {
                self.rest = rest;
                name.to_owned()
            }
            None => self.next().map(String::from).unwrap_or_default(),
        };
        if let Some(class) = posix_class(&name) {
            let not = if negated { "^" } else { "" };
            self.out.push_str(&format!("[[:{not}{class}:]]"));
        } else if matches!(name.len(), 1 | 2)
            && name.starts_with(['L', 'M', 'N', 'P', 'S', 'Z', 'C'])
        {
            self.out.push_str(&format!("\\{sign}{{{name}}}"));
        } else {
            return Err(unsupported(
                self.java,
                &format!("\\{sign}{{{name}}}"),
                "property",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::whole_name;

    fn matches(pattern: &str, name: &str) -> bool {
        whole_name(pattern).unwrap().is_match(name)
    }

    #[test]
    fn patterns_match_whole_names_as_in_java() {
        assert!(matches(".*", "app.log"));
        assert!(matches(r"app\.log", "app.log"));
        assert!(!matches(r"app\.log", "app.log.1"));
        assert!(!matches(r"app.log", "my-app.log"));
        assert!(matches(r"app\.log(\.\d{1,2})?", "app.log.12"));
        assert!(!matches(r"a|ab", "abc"));
        assert!(matches(r"\Qa.b[\E\d+", "a.b[42"));
        assert!(matches(r"[\w&&[^x]]+\.\p{Lower}+?", "ab_c.log"));
        assert!(!matches(r"[\w&&[^x]]+\.\p{Lower}+?", "abx.log"));
        assert!(matches("(?i)APP.*", "app.log"));
        assert!(matches("(?<name>a)b", "ab"));
        assert!(matches(r"a\-b\ c", "a-b c"));
    }

    #[test]
    fn classes_are_ascii_as_in_java() {
        assert!(!matches(r"\d", "٣"));
        assert!(!matches(r"\w", "é"));
        assert!(!matches(r"\p{Alpha}", "é"));
        assert!(matches(r"\p{L}\P{Alpha}", "éé"));
    }

    #[test]
    fn what_the_engine_lacks_is_an_error_that_names_it() {
        for (pattern, named) in [
            (r"(?!x).*", "(?!"),
            (r"(?<=x).*", "(?<="),
            (r"(?>x).*", "(?>"),
            (r"(a)\1", r"\1"),
            (r"(?<n>a)\k<n>", r"\k"),
            (r"a*+", "*+"),
            (r"a{1,2}+", "}+"),
            (r"\R", r"\R"),
            (r"\p{javaLowerCase}", "javaLowerCase"),
            (r"(?d)a", "(?d"),
            (r"[a--b]", "--"),
            (r"a{", "{"),
            (r"a\", r"\"),
        ] {
            let error = whole_name(pattern).unwrap_err();
            assert!(
                error.contains(&format!("'{named}")) || error.contains(named),
                "{error}"
            );
            assert!(error.contains("not supported"), "{error}");
        }
        assert!(whole_name("a(b").unwrap_err().contains("unclosed group"));
        assert!(whole_name("[]").is_err());
    }
}
