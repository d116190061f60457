//! Where files go: the store and the path in it, taken from `hdfs.path`.

/// A file store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreKind {
    /// The store that `fs.defaultFS` names.
    DefaultFs,
    /// An HDFS: `host:port`, or the name of a name service.
    Hdfs(String),
    /// A directory of this machine.
    Local,
}

/// A path in a store; may hold escapes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The store.
    pub store: StoreKind,
    /// Absolute path, without a slash at its end (but `/` itself), without empty, `.` or `..`
    /// components.
    pub path: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.store {
            StoreKind::DefaultFs => f.write_str(&self.path),
            StoreKind::Hdfs(authority) => write!(f, "hdfs://{authority}{}", self.path),
            StoreKind::Local => write!(f, "file://{}", self.path),
        }
    }
}

impl Target {
    /// Reads `hdfs://authority/path`, `file:///path` or `/path`.
    ///
    /// # Errors
    /// A message that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (store, path) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => with_scheme(scheme, rest)?,
            _ => (StoreKind::DefaultFs, text),
        };
        if !path.starts_with('/') {
            return Err(format!("'{text}' has no absolute path"));
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if let Some(dots) = parts.iter().find(|part| matches!(**part, "." | "..")) {
            return Err(format!("'{text}' holds the component '{dots}'"));
        }
        Ok(Self {
            store,
            path: format!("/{}", parts.join("/")),
        })
    }

    /// The longest front of the path without an escape.
    pub fn base(&self) -> Self {
        let parts = self.path.split('/').filter(|part| !part.is_empty());
        let plain: Vec<&str> = parts.take_while(|part| !part.contains('%')).collect();
        Self {
            store: self.store.clone(),
            path: format!("/{}", plain.join("/")),
        }
    }

    /// Whether the path holds an escape.
    pub fn has_escape(&self) -> bool {
        self.path.contains('%')
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn with_scheme<'a>(scheme: &str, rest: &'a str) -> Result<(StoreKind, &'a str), String> {
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    // `hdfs://nn` without a path is the root.
    let path = if path.is_empty() { "/" } else { path };
    if authority.contains('%') {
        return Err("an escape cannot stand in the host".to_owned());
    }
    match scheme.to_ascii_lowercase().as_str() {
        "hdfs" if authority.is_empty() => Ok((StoreKind::DefaultFs, path)),
        "hdfs" => Ok((StoreKind::Hdfs(authority.to_owned()), path)),
        "file" if authority.is_empty() || authority == "localhost" => Ok((StoreKind::Local, path)),
        "file" => Err(format!(
            "file:// with the host '{authority}'; write file:///path"
        )),
        other => Err(format!(
            "scheme '{other}' is not supported; hdfs and file are"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_flume_are_read() {
        let read = |text: &str| Target::parse(text).unwrap().to_string();
        assert_eq!(read("hdfs://nn:8020/a//b/%Y/"), "hdfs://nn:8020/a/b/%Y");
        assert_eq!(read("hdfs://ns"), "hdfs://ns/");
        assert_eq!(read("hdfs:///a"), "/a");
        assert_eq!(read("/a:b"), "/a:b");
        assert_eq!(read("file:///x"), "file:///x");
        assert_eq!(read("FILE:/x"), "file:///x");
    }

    #[test]
    fn what_is_no_place_is_refused_with_a_reason() {
        let error = |text: &str| Target::parse(text).unwrap_err();
        assert_eq!(error("a/b"), "'a/b' has no absolute path");
        assert_eq!(error("/a/../b"), "'/a/../b' holds the component '..'");
        assert_eq!(
            error("s3a://b/c"),
            "scheme 's3a' is not supported; hdfs and file are"
        );
        assert_eq!(error("hdfs://%{h}/c"), "an escape cannot stand in the host");
        assert_eq!(
            error("file://h/c"),
            "file:// with the host 'h'; write file:///path"
        );
    }

    #[test]
    fn the_base_ends_before_the_first_escape() {
        let base = |text: &str| Target::parse(text).unwrap().base().path;
        assert_eq!(base("/a/b/c%Y/d"), "/a/b");
        assert_eq!(base("/a"), "/a");
        assert_eq!(base("/%Y/a"), "/");
    }
}
