//! Hadoop's XML configuration, as far as the store needs it before hdfs-native reads it.
//!
//! Place in the flow: [`super::store_hdfs`] asks which values the user has set, because whatever
//! it hands to hdfs-native overrides the files; [`super::store_open`] asks for `fs.defaultFS`.
//! Read once per store; changed files count from the next start.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::store::StoreError;

/// Properties of `core-site.xml` and `hdfs-site.xml`, the latter winning.
#[derive(Debug, Clone, Default)]
pub struct HadoopConf {
    dir: Option<PathBuf>,
    values: BTreeMap<String, String>,
}

impl HadoopConf {
    /// Reads the directory given, else `$HADOOP_CONF_DIR`, else `$HADOOP_HOME/etc/hadoop`; none of
    /// them is an empty configuration. A missing file is fine, a broken one is
    /// [`StoreError::Refused`].
    pub fn load(dir: Option<&Path>) -> Result<Self, StoreError> {
        let dir = match dir {
            Some(dir) => Some(dir.to_owned()),
            None => env::var_os("HADOOP_CONF_DIR")
                .map(PathBuf::from)
                .or_else(|| {
                    env::var_os("HADOOP_HOME").map(|home| Path::new(&home).join("etc/hadoop"))
                }),
        };
        let mut values = BTreeMap::new();
        if let Some(dir) = &dir {
            for name in ["core-site.xml", "hdfs-site.xml"] {
                read_into(&dir.join(name), &mut values)?;
            }
        }
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
    let broken = |why: &dyn std::fmt::Display| {
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
        let conf = HadoopConf::load(Some(dir.path())).unwrap();
        assert_eq!(conf.get("a"), Some("2"));
        assert_eq!(conf.get("b"), Some("x"));
        assert_eq!(conf.get("c"), None);
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = dir("<configuration>", "<configuration/>");
        let error = HadoopConf::load(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("core-site.xml"), "{error}");
    }
}
