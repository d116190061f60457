//! The store that `fs.defaultFS` of Hadoop's configuration names.
//!
//! *Place in the flow*: asked by `check`. The directory is the one that the stores will read, see
//! [`crate::sink::staged::hadoop_conf::find`].

use std::fmt;
use std::path::{Path, PathBuf};

use super::lookup::Lookups;
use super::options::{StoreKind, Target};
use crate::sink::staged::hadoop_conf::{self, HadoopConf, Origin};

/// The directory of Hadoop's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HadoopDir {
    /// The directory, for hdfs-native's `with_config_dir`.
    pub dir: PathBuf,
    /// Who named it.
    pub origin: Origin,
    /// The store that `fs.defaultFS` names; never [`StoreKind::DefaultFs`].
    pub default_fs: Option<StoreKind>,
}

impl fmt::Display for HadoopDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {})", self.dir.display(), self.origin)
    }
}

/// Hadoop's configuration is there and cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("Hadoop's configuration in {dir}: {reason}")]
pub struct HadoopError {
    /// The directory.
    pub dir: String,
    /// What is wrong with it, and in which file.
    pub reason: String,
}

/// Finds the directory; `None` where nobody names one that holds a configuration.
///
/// # Errors
/// A file is there and cannot be read or is no configuration. Nothing falls through to the next
/// directory then.
pub fn find(conf: Option<&Path>, lookups: &Lookups) -> Result<Option<HadoopDir>, HadoopError> {
    let env = |name: &str| lookups.env(name).map(Into::into);
    let Some((dir, origin)) = hadoop_conf::find(conf, env) else {
        return Ok(None);
    };
    let default_fs = default_fs(&dir)?;
    Ok(Some(HadoopDir {
        dir,
        origin,
        default_fs,
    }))
}

fn default_fs(dir: &Path) -> Result<Option<StoreKind>, HadoopError> {
    let fail = |reason: String| HadoopError {
        dir: dir.display().to_string(),
        reason,
    };
    let conf = HadoopConf::read(dir).map_err(|error| fail(error.to_string()))?;
    let Some(value) = conf.get("fs.defaultFS") else {
        return Ok(None);
    };
    let target = Target::parse(value).map_err(|error| fail(format!("fs.defaultFS: {error}")))?;
    if value.contains("${") || target.store == StoreKind::DefaultFs {
        return Err(fail(format!("fs.defaultFS: '{value}' names no store")));
    }
    Ok(Some(target.store))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(dir: &Path, name: &str, value: &str) {
        std::fs::create_dir_all(dir).unwrap();
        let text = format!(
            "<?xml version=\"1.0\"?>\n<configuration><property><name>fs.defaultFS</name>\
             <value> {value} </value></property></configuration>"
        );
        std::fs::write(dir.join(name), text).unwrap();
    }

    fn env(pairs: &[(&str, &Path)]) -> Lookups {
        let own = |(key, path): &(&str, &Path)| ((*key).to_owned(), path.display().to_string());
        Lookups::fixed([], pairs.iter().map(own))
    }

    #[test]
    fn the_first_directory_that_holds_a_configuration_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let (given, conf, home) = (
            root.path().join("given"),
            root.path().join("conf"),
            root.path().join("home"),
        );
        std::fs::create_dir(&given).unwrap();
        let lookups = env(&[("HADOOP_CONF_DIR", &conf), ("HADOOP_HOME", &home)]);
        let found = || find(Some(&given), &lookups).unwrap();
        assert_eq!(found(), None);
        site(
            &home.join("etc/hadoop"),
            "core-site.xml",
            "hdfs://home:8020",
        );
        assert_eq!(found().unwrap().origin, Origin::Home);
        site(&conf, "core-site.xml", "hdfs://conf");
        assert_eq!(
            found().unwrap().default_fs,
            Some(StoreKind::Hdfs("conf".to_owned()))
        );
        // Flume's own directory stands in front only once it has a configuration of Hadoop's.
        site(&given, "core-site.xml", "hdfs://given:9000/");
        let found = found().unwrap();
        assert_eq!(
            found.default_fs,
            Some(StoreKind::Hdfs("given:9000".to_owned()))
        );
        assert_eq!(found.to_string(), format!("{} (from -c)", given.display()));
    }

    #[test]
    fn a_broken_file_is_an_error_with_its_name() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("core-site.xml"), "<configuration>").unwrap();
        let error = find(Some(root.path()), &env(&[])).unwrap_err().to_string();
        assert!(error.contains("core-site.xml"), "{error}");
        site(root.path(), "core-site.xml", "${nn}");
        let error = find(Some(root.path()), &env(&[])).unwrap_err().to_string();
        assert!(error.contains("fs.defaultFS"), "{error}");
    }

    #[test]
    fn the_second_file_overrules_the_first() {
        let root = tempfile::tempdir().unwrap();
        site(root.path(), "core-site.xml", "hdfs://a");
        site(root.path(), "hdfs-site.xml", "file:///");
        let found = find(Some(root.path()), &env(&[])).unwrap().unwrap();
        assert_eq!(found.default_fs, Some(StoreKind::Local));
    }
}
