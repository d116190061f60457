//! The file store on HDFS, over hdfs-native.
//!
//! Place in the flow: the publisher's port [`FileStore`] for `hdfs://` targets. Errors are sorted
//! in [`super::hdfs_errors`].
//!
//! hdfs-native puts no time-out on a NameNode call, reuses a hung connection for all later calls,
//! and leaks the heartbeat of a writer that was dropped. So every call runs as a task of its own
//! on a *client generation*: a client with a small runtime that lives and dies with it. When an
//! answer is lost or late the call is aborted, the answer is [`StoreError::Unknown`], and the
//! generation is retired: later calls get a new one, with a new connection and a new lease holder.
//! When the last writer of a retired generation is gone its runtime goes too, and with it every
//! connection and every leaked task. The NameNode drops queued calls of closed connections, which
//! keeps late executions short, not impossible.
//!
//! *Invariants*
//! - Nothing is overwritten, and a file is created only in an existing directory
//!   (`overwrite=false, create_parent=false`): fencing by deletion rests on it.
//! - A writer is closed at most once and never used after an error.
//!
//! *A crash* leaves files under construction; deleting their directory ends their leases.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hdfs_native::file::FileWriter;
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::hadoop_conf::HadoopConf;
use super::hdfs_errors::{self, Op};
use super::store::{FileInfo, FileStore, StoreError, StoreWriter, check_path};

/// Threads of one generation's runtime: connections and packets, not computation.
const RUNTIME_THREADS: usize = 2;
/// Port of a NameNode where the URI and the configuration name none.
const DEFAULT_PORT: u16 = 8020;
/// What a rename over ViewFS or an unknown provider would otherwise do to stale reads.
const FAILOVER_PROVIDER: &str =
    "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider";
const WRITE_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;

/// How to reach HDFS and as whom.
#[derive(Debug, Clone)]
pub struct HdfsOptions {
    /// Time allowed to a NameNode call (`hdfs.callTimeout`), default 30 s.
    pub call_timeout: Duration,
    /// Time allowed to one write or to close, which wait for DataNodes; default 150 s, more than
    /// hdfs-native's own 60 s for an acknowledgement and 15 s for completing a file.
    pub data_timeout: Duration,
    /// Act as this user (`hdfs.proxyUser`): the user itself under simple authentication, the user
    /// acted for under Kerberos. Default: `HADOOP_USER_NAME` or the process's user.
    pub user: Option<String>,
    /// Kerberos principal (`hdfs.kerberosPrincipal`).
    pub kerberos_principal: Option<String>,
    /// Kerberos keytab file (`hdfs.kerberosKeytab`).
    pub kerberos_keytab: Option<String>,
    /// Replication of new files; default as the cluster says.
    pub replication: Option<u32>,
    /// Block size of new files in bytes; default as the cluster says.
    pub block_size: Option<u64>,
    /// Hadoop properties that override the XML files and our defaults.
    pub properties: BTreeMap<String, String>,
}

impl Default for HdfsOptions {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(30),
            data_timeout: Duration::from_secs(150),
            user: None,
            kerberos_principal: None,
            kerberos_keytab: None,
            replication: None,
            block_size: None,
            properties: BTreeMap::new(),
        }
    }
}

/// What a client is built from.
#[derive(Debug, Clone)]
struct Settings {
    uri: String,
    conf_dir: Option<PathBuf>,
    properties: BTreeMap<String, String>,
    options: HdfsOptions,
}

/// A client and the runtime that all its tasks live on.
#[derive(Debug)]
struct Generation {
    client: Client,
    /// `None` only while being dropped.
    runtime: Option<Runtime>,
}

impl Generation {
    /// Runs `call` as a task of this generation for at most `limit`; `None` where no answer came.
    async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let mut task = AbortOnDrop(self.runtime.as_ref()?.spawn(call));
        tokio::time::timeout(limit, &mut task.0).await.ok()?.ok()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A task that does not outlive the interest in its answer.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Settings {
    fn build(&self) -> Result<Generation, HdfsError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("hdfs")
            .enable_all()
            .build()?;
        let mut builder = ClientBuilder::new()
            .with_url(&self.uri)
            .with_config(self.properties.clone())
            .with_io_runtime(runtime.handle().clone());
        if let Some(dir) = &self.conf_dir {
            builder = builder.with_config_dir(dir.to_string_lossy());
        }
        if let Some(user) = &self.options.user {
            builder = builder.with_user(user);
        }
        if let Some(principal) = &self.options.kerberos_principal {
            builder = builder.with_kerberos_principal(principal);
        }
        if let Some(keytab) = &self.options.kerberos_keytab {
            builder = builder.with_kerberos_keytab(keytab);
        }
        match builder.build() {
            Ok(client) => Ok(Generation {
                client,
                runtime: Some(runtime),
            }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }
}

/// HDFS as a [`FileStore`].
#[derive(Debug)]
pub struct HdfsStore {
    shared: Arc<Shared>,
}

/// What the store and its open writers have in common.
#[derive(Debug)]
struct Shared {
    settings: Arc<Settings>,
    current: Mutex<Option<Arc<Generation>>>,
}

impl HdfsStore {
    /// A store at `uri` (`hdfs://host[:port]` or `hdfs://nameservice`). Nothing is contacted: a
    /// NameNode that is down shows at the first call. [`StoreError::Refused`] where URI or
    /// configuration cannot be used.
    pub fn connect(
        uri: &str,
        conf_dir: Option<PathBuf>,
        options: HdfsOptions,
    ) -> Result<Self, StoreError> {
        let conf = HadoopConf::load(conf_dir.as_deref())?;
        let uri = canonical_uri(uri, &conf)?;
        let properties = with_defaults(&uri, &conf, &options.properties);
        match conf.dir() {
            Some(dir) => tracing::info!(store = uri, conf = %dir.display(), "Hadoop configuration"),
            None => tracing::info!(
                store = uri,
                "no Hadoop configuration directory, defaults only"
            ),
        }
        let conf_dir = conf.dir().map(PathBuf::from);
        let settings = Settings {
            uri,
            conf_dir,
            properties,
            options,
        };
        let first = match settings.build() {
            Ok(generation) => Some(Arc::new(generation)),
            // Name resolution may fail now and work later.
            Err(HdfsError::IOError(_)) => None,
            Err(error) => {
                return Err(StoreError::Refused(format!("{}: {error}", settings.uri)));
            }
        };
        let shared = Shared {
            settings: Arc::new(settings),
            current: Mutex::new(first),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

impl Shared {
    /// The current generation, built anew after a retirement.
    async fn generation(&self) -> Result<Arc<Generation>, StoreError> {
        let mut current = self.current.lock().await;
        if let Some(generation) = &*current {
            return Ok(Arc::clone(generation));
        }
        // Name resolution blocks, so it gets a thread and a limit.
        let settings = Arc::clone(&self.settings);
        let build = tokio::task::spawn_blocking(move || settings.build());
        let unavailable = |why: &dyn std::fmt::Display| {
            StoreError::Unavailable(format!("{}: building a client: {why}", self.settings.uri))
        };
        match tokio::time::timeout(self.settings.options.call_timeout, build).await {
            Ok(Ok(Ok(generation))) => {
                let generation = Arc::new(generation);
                *current = Some(Arc::clone(&generation));
                Ok(generation)
            }
            Ok(Ok(Err(error))) => Err(unavailable(&error)),
            Ok(Err(lost)) => Err(unavailable(&lost)),
            Err(_) => Err(unavailable(&"no answer in time")),
        }
    }

    /// Takes `generation` out of use for later calls.
    async fn retire(&self, generation: &Arc<Generation>) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|c| Arc::ptr_eq(c, generation)) {
            *current = None;
            tracing::warn!(
                store = self.settings.uri,
                "lost an HDFS answer, reconnecting"
            );
        }
    }

    async fn call<T, C, F>(&self, op: Op, what: &str, call: C) -> Result<T, StoreError>
    where
        T: Send + 'static,
        C: FnOnce(Client) -> F,
        F: Future<Output = Result<T, HdfsError>> + Send + 'static,
    {
        let generation = self.generation().await?;
        let call = call(generation.client.clone());
        self.call_on(&generation, op, what, call).await
    }

    /// Runs a call on the generation it belongs to, and retires that where the outcome is unknown.
    async fn call_on<T: Send + 'static>(
        &self,
        generation: &Arc<Generation>,
        op: Op,
        what: &str,
        call: impl Future<Output = Result<T, HdfsError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let limit = self.limit(op);
        let answer = match generation.run(limit, call).await {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(hdfs_errors::sort(op, what, &error)),
            None => Err(StoreError::Unknown(format!(
                "{what}: no answer within {limit:?}"
            ))),
        };
        if matches!(answer, Err(StoreError::Unknown(_))) {
            self.retire(generation).await;
        }
        answer
    }

    fn limit(&self, op: Op) -> Duration {
        match op {
            Op::Read | Op::Write | Op::Close => self.settings.options.data_timeout,
            _ => self.settings.options.call_timeout,
        }
    }
}

/// Scheme and authority with a port, or the logical name service alone.
fn canonical_uri(uri: &str, conf: &HadoopConf) -> Result<String, StoreError> {
    let refused = |why: &str| StoreError::Refused(format!("store {uri:?} {why}"));
    let parsed = url::Url::parse(uri).map_err(|e| refused(&format!("is not a URI: {e}")))?;
    if parsed.scheme() != "hdfs" {
        return Err(refused("is not an hdfs:// URI"));
    }
    let host = parsed.host_str().filter(|h| !h.is_empty());
    let host = host.ok_or_else(|| refused("names no NameNode and no name service"))?;
    match parsed.port() {
        Some(port) => Ok(format!("hdfs://{host}:{port}")),
        None if !conf.namenodes(host).is_empty() => Ok(format!("hdfs://{host}")),
        None => Ok(format!("hdfs://{host}:{DEFAULT_PORT}")),
    }
}

/// What goes to hdfs-native on top of the XML files: our defaults where those are silent, the one
/// provider whose reads are not stale, then what the user set.
fn with_defaults(
    uri: &str,
    conf: &HadoopConf,
    user: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let host = uri.trim_start_matches("hdfs://");
    let namenodes = conf.namenodes(host).len().max(1);
    // Four rounds over all NameNodes take some 6 s, well inside a call's time-out: a NameNode that
    // is down is then told from one that does not answer.
    let attempts = (4 * namenodes).to_string();
    let defaults = [
        (
            "dfs.client.block.write.replace-datanode-on-failure.best-effort",
            "true",
        ),
        ("dfs.client.failover.max.attempts", attempts.as_str()),
        ("dfs.client.failover.sleep.base.millis", "250"),
        ("dfs.client.failover.sleep.max.millis", "2000"),
    ];
    let mut properties = BTreeMap::new();
    for (key, value) in defaults {
        if conf.get(key).is_none() {
            properties.insert(key.to_owned(), value.to_owned());
        }
    }
    properties.extend(user.iter().map(|(k, v)| (k.clone(), v.clone())));
    let provider = format!("dfs.client.failover.proxy.provider.{host}");
    properties.insert(provider, FAILOVER_PROVIDER.to_owned());
    properties
}

fn info(status: &hdfs_native::client::FileStatus) -> FileInfo {
    FileInfo {
        path: status.path.clone(),
        length: u64::try_from(status.length).unwrap_or(u64::MAX),
        is_dir: status.isdir,
    }
}

/// Turns a proven absence into a value.
fn absent_is<T>(value: T, answer: Result<T, StoreError>) -> Result<T, StoreError> {
    match answer {
        Err(StoreError::NotFound(_)) => Ok(value),
        answer => answer,
    }
}

#[async_trait]
impl FileStore for HdfsStore {
    fn uri(&self) -> &str {
        &self.shared.settings.uri
    }

    async fn mkdirs(&self, path: &str, create_parent: bool) -> Result<(), StoreError> {
        let path = check_path(path)?.to_owned();
        let what = format!("mkdirs {path}");
        let call =
            |client: Client| async move { client.mkdirs(&path, DIR_MODE, create_parent).await };
        self.shared.call(Op::Mkdirs, &what, call).await
    }

    async fn create(&self, path: &str) -> Result<Box<dyn StoreWriter>, StoreError> {
        let path = check_path(path)?.to_owned();
        let shared = Arc::clone(&self.shared);
        let what = format!("create {path}");
        let options = WriteOptions {
            block_size: shared.settings.options.block_size,
            replication: shared.settings.options.replication,
            permission: WRITE_MODE,
            overwrite: false,
            create_parent: false,
        };
        let generation = shared.generation().await?;
        let (client, name) = (generation.client.clone(), path.clone());
        let call = async move { client.create(&name, options).await };
        let writer = Some(shared.call_on(&generation, Op::Create, &what, call).await?);
        Ok(Box::new(HdfsWriter {
            shared,
            generation,
            writer,
            path,
        }))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let (from, to) = (check_path(from)?.to_owned(), check_path(to)?.to_owned());
        let what = format!("rename {from} to {to}");
        let call = |client: Client| async move { client.rename(&from, &to, false).await };
        self.shared.call(Op::Rename, &what, call).await
    }

    async fn delete(&self, path: &str, recursive: bool) -> Result<bool, StoreError> {
        let path = check_path(path)?.to_owned();
        let what = format!("delete {path}");
        let call = |client: Client| async move { client.delete(&path, recursive).await };
        self.shared.call(Op::Delete, &what, call).await
    }

    async fn stat(&self, path: &str) -> Result<Option<FileInfo>, StoreError> {
        let path = check_path(path)?.to_owned();
        let what = format!("stat {path}");
        let call = |client: Client| async move {
            client
                .get_file_info(&path)
                .await
                .map(|status| Some(info(&status)))
        };
        absent_is(None, self.shared.call(Op::Stat, &what, call).await)
    }

    async fn list(&self, path: &str) -> Result<Vec<FileInfo>, StoreError> {
        let dir = check_path(path)?.to_owned();
        let what = format!("list {dir}");
        let name = dir.clone();
        let call = |client: Client| async move { client.list_status(&name, false).await };
        let found = absent_is(Vec::new(), self.shared.call(Op::List, &what, call).await)?;
        // A file lists as itself.
        if found.iter().any(|status| status.path == dir) {
            return Err(StoreError::Refused(format!("{what}: not a directory")));
        }
        let mut found: Vec<FileInfo> = found.iter().map(info).collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    async fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        let path = check_path(path)?.to_owned();
        let what = format!("read {path}");
        let call = |client: Client| async move {
            let reader = client.read(&path).await?;
            reader.read_range(0, reader.file_length()).await
        };
        self.shared.call(Op::Read, &what, call).await
    }

    async fn sync_dirs(&self, _paths: &[&str]) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A file of an attempt in HDFS.
struct HdfsWriter {
    shared: Arc<Shared>,
    generation: Arc<Generation>,
    /// `None` once a write failed, timed out or was given up half-way.
    writer: Option<FileWriter>,
    path: String,
}

impl HdfsWriter {
    fn take(&mut self) -> Result<FileWriter, StoreError> {
        let spoilt = || StoreError::Unknown(format!("{}: an earlier write failed", self.path));
        self.writer.take().ok_or_else(spoilt)
    }
}

#[async_trait]
impl StoreWriter for HdfsWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let mut writer = self.take()?;
        let call = async move {
            let answer = writer.write_bytes(bytes).await;
            answer.map(|_| writer)
        };
        let what = format!("write {}", self.path);
        let writer = self
            .shared
            .call_on(&self.generation, Op::Write, &what, call)
            .await?;
        self.writer = Some(writer);
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        let mut writer = self.take()?;
        let call = async move { writer.close().await };
        let what = format!("close {}", self.path);
        self.shared
            .call_on(&self.generation, Op::Close, &what, call)
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn conf(text: &str) -> (tempfile::TempDir, HadoopConf) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("hdfs-site.xml"), text).unwrap();
        let conf = HadoopConf::read(dir.path()).unwrap();
        (dir, conf)
    }

    #[test]
    fn a_store_is_recorded_with_its_port_or_as_its_name_service() {
        let ha = "<configuration><property><name>dfs.ha.namenodes.ns1</name>\
                  <value>a,b</value></property></configuration>";
        let (_dir, conf) = conf(ha);
        assert_eq!(
            canonical_uri("hdfs://nn/x", &conf).unwrap(),
            "hdfs://nn:8020"
        );
        assert_eq!(
            canonical_uri("hdfs://nn:9000", &conf).unwrap(),
            "hdfs://nn:9000"
        );
        assert_eq!(canonical_uri("hdfs://ns1/x", &conf).unwrap(), "hdfs://ns1");
        assert!(canonical_uri("hdfs:///x", &conf).is_err());
        assert!(canonical_uri("s3://x", &conf).is_err());
    }

    #[test]
    fn defaults_give_way_to_the_users_files_but_the_provider_does_not() {
        let key = "dfs.client.block.write.replace-datanode-on-failure.best-effort";
        let provider = "dfs.client.failover.proxy.provider.ns1";
        let text = format!(
            "<configuration><property><name>{key}</name><value>false</value></property>\
             <property><name>{provider}</name><value>Other</value></property></configuration>"
        );
        let (_dir, written) = conf(&text);
        let properties = with_defaults("hdfs://ns1", &written, &BTreeMap::new());
        assert_eq!(properties.get(key), None);
        assert_eq!(properties[provider], FAILOVER_PROVIDER);
        let (_dir, silent) = conf("<configuration/>");
        assert_eq!(
            with_defaults("hdfs://ns1", &silent, &BTreeMap::new())[key],
            "true"
        );
    }

    #[tokio::test]
    async fn a_namenode_that_is_down_is_unavailable_and_not_unknown() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let uri = format!("hdfs://127.0.0.1:{port}");
        let store = HdfsStore::connect(&uri, None, HdfsOptions::default()).unwrap();
        let answer = store.rename("/a", "/b").await;
        assert!(
            matches!(answer, Err(StoreError::Unavailable(_))),
            "{answer:?}"
        );
    }
}
