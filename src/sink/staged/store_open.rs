//! From a sink's target to its store: `hdfs://host[:port]/..`, `hdfs://nameservice/..`,
//! `file:///..`, or a plain `/..` under `fs.defaultFS`.
//!
//! Paths are taken as written: they hold Flume's `%` escapes and are never percent-decoded, as
//! Hadoop's own are not.

use std::path::PathBuf;
use std::sync::Arc;

use super::hadoop_conf::HadoopConf;
use super::store::{FileStore, StoreError};
use super::store_hdfs::{HdfsOptions, HdfsStore};
use super::store_local::LocalStore;

/// Splits a target into the URI of its store and the path in it, with repeated and trailing
/// slashes cut. The URI is `None` for a plain path, which belongs to `fs.defaultFS`.
pub fn split_target(target: &str) -> Result<(Option<&str>, String), StoreError> {
    let refused = |why: &str| StoreError::Refused(format!("target {target:?} {why}"));
    let (uri, path) = match target.find("://") {
        Some(at) => {
            let authority = at + "://".len();
            let end = target[authority..]
                .find('/')
                .map_or(target.len(), |slash| authority + slash);
            (Some(&target[..end]), &target[end..])
        }
        None => match target.strip_prefix("file:") {
            Some(path) => (Some("file://"), path),
            None => (None, target),
        },
    };
    if uri.is_none() && !path.starts_with('/') {
        return Err(refused(
            "is neither an absolute path nor hdfs:// nor file://",
        ));
    }
    let components: Vec<&str> = path.split('/').filter(|c| !c.is_empty()).collect();
    if components.iter().any(|c| matches!(*c, "." | "..")) {
        return Err(refused("holds a `.` or `..` component"));
    }
    Ok((uri, format!("/{}", components.join("/"))))
}

/// Opens the store of a target, or of a store URI that SEAL recorded. Nothing is contacted.
/// [`StoreError::Refused`] says what to change in the configuration.
pub fn open_store(
    target: &str,
    conf_dir: Option<PathBuf>,
    options: HdfsOptions,
) -> Result<Arc<dyn FileStore>, StoreError> {
    let refused = |why: &str| StoreError::Refused(format!("target {target:?} {why}"));
    let (uri, _) = split_target(target)?;
    let uri = match uri {
        Some(uri) => uri.to_owned(),
        None => {
            let conf = HadoopConf::load(conf_dir.as_deref())?;
            let default = options.properties.get("fs.defaultFS").map(String::as_str);
            let default = default.or_else(|| conf.get("fs.defaultFS"));
            default.map(str::to_owned).ok_or_else(|| {
                refused(
                    "has no scheme and no fs.defaultFS is set: write hdfs://host:port/.. or \
                     file:///.., or name a directory with core-site.xml (-c, HADOOP_CONF_DIR)",
                )
            })?
        }
    };
    match uri.split("://").next() {
        Some("file") if matches!(uri.as_str(), "file://" | "file:///" | "file://localhost") => {
            Ok(Arc::new(LocalStore::new()))
        }
        Some("file") => Err(refused("names another host: write file:///path")),
        Some("hdfs") => Ok(Arc::new(HdfsStore::connect(&uri, conf_dir, options)?)),
        _ => Err(refused(
            "has a scheme that is not supported: use hdfs:// or file://",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_split_into_store_and_raw_path() {
        let split = |target| split_target(target).unwrap();
        assert_eq!(
            split("hdfs://nn:1/a/%{host}/%Y"),
            (Some("hdfs://nn:1"), "/a/%{host}/%Y".into())
        );
        assert_eq!(split("hdfs://ns"), (Some("hdfs://ns"), "/".into()));
        assert_eq!(split("file:///tmp//x/"), (Some("file://"), "/tmp/x".into()));
        assert_eq!(split("file:/tmp/x"), (Some("file://"), "/tmp/x".into()));
        assert_eq!(split("/logs"), (None, "/logs".into()));
        assert!(split_target("logs").is_err());
        assert!(split_target("/a/../b").is_err());
    }

    #[test]
    fn the_scheme_chooses_the_store_and_a_recorded_uri_opens_again() {
        let open = |target: &str| open_store(target, None, HdfsOptions::default());
        let local = open("file:///tmp/x").map_err(|e| e.to_string()).unwrap();
        assert_eq!(
            open(local.uri()).map(|s| s.uri().to_owned()).unwrap(),
            "file://"
        );
        let hdfs = open("hdfs://127.0.0.1/x")
            .map_err(|e| e.to_string())
            .unwrap();
        assert_eq!(hdfs.uri(), "hdfs://127.0.0.1:8020");
        for bad in ["s3://bucket/x", "file://elsewhere/x", "relative"] {
            assert!(matches!(open(bad), Err(StoreError::Refused(_))), "{bad}");
        }
    }

    #[test]
    fn a_plain_path_lies_under_the_default_file_system() {
        let mut options = HdfsOptions::default();
        options
            .properties
            .insert("fs.defaultFS".into(), "hdfs://nn:9000".into());
        let store = open_store("/logs", None, options)
            .map_err(|e| e.to_string())
            .unwrap();
        assert_eq!(store.uri(), "hdfs://nn:9000");
    }
}
