//! Hadoop's XML configuration: where it lies, and what the store needs of it before hdfs-native
//! reads it.
//!
//! Place in the flow: [`super::store_hdfs`] asks which values the user has set, because whatever
//! it hands to hdfs-native overrides the files; [`super::store_open`] and `check` ask for
//! `fs.defaultFS`. Read once per store; changed files count from the next start.
//!
//! *Invariant*: the order is the directory given (`-c DIR`), then `HADOOP_CONF_DIR`, then
//! `HADOOP_HOME/etc/hadoop`. A directory counts only where it holds core-site.xml or
//! hdfs-site.xml, because Flume's own `-c` directory often holds neither.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::store::StoreError;

/// The files that hdfs-native reads, the later winning.
const FILES: [&str; 2] = ["core-site.xml", "hdfs-site.xml"];

/// Who named the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `-c DIR`
    CommandLine,
    /// `HADOOP_CONF_DIR`
    ConfDir,
    /// `HADOOP_HOME`
    Home,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "-c",
            Self::ConfDir => "HADOOP_CONF_DIR",
            Self::Home => "HADOOP_HOME",
        })
    }
}

/// The first directory that holds a configuration, and who named it. One that cannot be looked into
/// counts as well: reading it says what is wrong, and nothing falls through to the next.
pub fn find(
    given: Option<&Path>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Option<(PathBuf, Origin)> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let named = [
        (given.map(Path::to_owned), Origin::CommandLine),
        (set("HADOOP_CONF_DIR").map(PathBuf::from), Origin::ConfDir),
        (
            set("HADOOP_HOME").map(|home| Path::new(&home).join("etc/hadoop")),
            Origin::Home,
        ),
    ];
    let holds = |dir: &Path| {
        let is_there = |file| !matches!(dir.join(file).try_exists(), Ok(false));
        FILES.into_iter().any(is_there)
    };
    let named = named.into_iter();
    let mut named = named.filter_map(|(dir, origin)| Some((dir?, origin)));
    named.find(|(dir, _)| holds(dir))
}

/// Properties of `core-site.xml` and `hdfs-site.xml`, the latter winning.
#[derive(Debug, Clone, Default)]
pub struct HadoopConf {
    dir: Option<PathBuf>,
    values: BTreeMap<String, String>,
}

impl HadoopConf {
    /// Reads what [`find`] finds with the environment of the process; nothing found is an empty
    /// configuration, a broken file is [`StoreError::Refused`].
    pub fn load(given: Option<&Path>) -> Result<Self, StoreError> {
        match find(given, |name| env::var_os(name)) {
            Some((dir, _)) => Self::read(&dir),
            None => Ok(Self::default()),
        }
    }

    /// Reads this directory. A missing file is fine, a broken one is [`StoreError::Refused`].
    pub fn read(dir: &Path) -> Result<Self, StoreError> {
        let mut values = BTreeMap::new();
        for name in FILES {
            read_into(&dir.join(name), &mut values)?;
        }
        let dir = Some(dir.to_owned());
        Ok(Self { dir, values })
    }

    /// The directory it was read from, for the log.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// A property's value as written.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// NameNode ids of a logical name service; empty where `host` is not one.
    pub(super) fn namenodes(&self, host: &str) -> Vec<&str> {
        let ids = self.get(&format!("dfs.ha.namenodes.{host}")).unwrap_or("");
        ids.split(',')
            .map(str::trim)
            .filter(|id| !id.is_empty())
            .collect()
    }
}

fn read_into(file: &Path, values: &mut BTreeMap<String, String>) -> Result<(), StoreError> {
    let broken = |why: &dyn fmt::Display| {
        StoreError::Refused(format!("Hadoop configuration {}: {why}", file.display()))
    };
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(broken(&e)),
    };
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    let tree = roxmltree::Document::parse_with_options(&text, options).map_err(|e| broken(&e))?;
    let properties = tree
        .root_element()
        .children()
        .filter(|n| n.has_tag_name("property"));
    for property in properties {
        let text_of = |tag: &str| {
            let child = property.children().find(|n| n.has_tag_name(tag));
            child.and_then(|n| n.text()).map(|t| t.trim().to_owned())
        };
        if let (Some(name), Some(value)) = (text_of("name"), text_of("value")) {
            values.insert(name, value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(core: &str, hdfs: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("core-site.xml"), core).unwrap();
        fs::write(dir.path().join("hdfs-site.xml"), hdfs).unwrap();
        dir
    }

    #[test]
    fn hdfs_site_wins_and_values_are_trimmed() {
        let dir = dir(
            "<configuration><property><name>a</name><value>1</value></property>\
             <property><name> b </name><value> x </value></property></configuration>",
            "<configuration><property><name>a</name><value>2</value></property></configuration>",
        );
        let conf = HadoopConf::read(dir.path()).unwrap();
        assert_eq!(conf.get("a"), Some("2"));
        assert_eq!(conf.get("b"), Some("x"));
        assert_eq!(conf.get("c"), None);
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = dir("<configuration>", "<configuration/>");
        let error = HadoopConf::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("core-site.xml"), "{error}");
    }

    #[test]
    fn the_first_directory_that_holds_a_configuration_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        // As Flume's own directory: it is there, and nothing in it is Hadoop's.
        fs::create_dir_all(path("given")).unwrap();
        fs::create_dir_all(path("home/etc/hadoop")).unwrap();
        fs::create_dir_all(path("conf")).unwrap();
        let env = |name: &str| match name {
            "HADOOP_CONF_DIR" => Some(path("conf").into()),
            _ => Some(path("home").into()),
        };
        let found = || find(Some(&path("given")), env).map(|(_, origin)| origin);
        assert_eq!(found(), None);
        fs::write(path("home/etc/hadoop/hdfs-site.xml"), "").unwrap();
        assert_eq!(found(), Some(Origin::Home));
        fs::write(path("conf/core-site.xml"), "").unwrap();
        assert_eq!(found(), Some(Origin::ConfDir));
        fs::write(path("given/core-site.xml"), "").unwrap();
        assert_eq!(found(), Some(Origin::CommandLine));
        let none = |_: &str| Some(OsString::new());
        assert_eq!(find(None, none), None);
    }
}
