//! What a staged sink is told: where, how and when to write.

use std::sync::Arc;
use std::time::Duration;

use crate::format::text::Text;
use crate::format::{Codec, Serializer};

use super::bucket::{Template, TemplateError, TimeRule};
use super::names::{MAX_NAME, label_fault, suffix_fault};
use super::store::check_path;

/// Longest name of a part that names a lost run, without prefix, sink and suffix.
const LOST_FRAME: usize = 160;

/// Options of one staged sink.
#[derive(Clone, Debug)]
pub struct StagedOptions {
    /// Name of the sink, a part of every file name.
    pub sink: String,
    /// Directory of `_staging` and `_rejected`, absolute in the store; never `/`.
    pub base: String,
    /// Directory of the published files.
    pub path: Template,
    /// How file names begin.
    pub prefix: Template,
    /// How file names end.
    pub suffix: String,
    /// What time escapes show.
    pub time: TimeRule,
    /// Seal so long after the epoch's first event.
    pub roll_interval: Option<Duration>,
    /// Next part of a bucket after so many bytes of bodies.
    pub roll_size: Option<u64>,
    /// Next part of a bucket after so many events.
    pub roll_count: Option<u64>,
    /// Seal when no event came for so long.
    pub idle_timeout: Option<Duration>,
    /// Most events taken at once.
    pub batch_size: usize,
    /// Seal when so many parts are open.
    pub max_open_files: usize,
    /// Seal when the epoch has so many parts.
    pub max_parts: usize,
    /// Seal when the epoch holds so many bytes of bodies.
    pub max_epoch_bytes: u64,
    /// Most events of an epoch where several sinks share the channel.
    pub block_events: u64,
    /// Compression.
    pub codec: Codec,
    /// Form of the events.
    pub serializer: Arc<dyn Serializer>,
}

impl StagedOptions {
    /// Text files under `path`, no rolls.
    ///
    /// # Errors
    /// The path or the sink's name cannot be used.
    pub fn new(sink: &str, path: &str) -> Result<Self, TemplateError> {
        let template = Template::parse(path)?;
        Self {
            sink: sink.to_owned(),
            base: template.base(),
            path: template,
            prefix: Template::parse("FlumeData")?,
            suffix: String::new(),
            time: TimeRule::default(),
            roll_interval: None,
            roll_size: None,
            roll_count: None,
            idle_timeout: None,
            batch_size: 100,
            max_open_files: 5_000,
            max_parts: 256,
            max_epoch_bytes: 1 << 30,
            block_events: 1_000_000,
            codec: Codec::Plain,
            serializer: Arc::new(Text::default()),
        }
        .checked()
    }

    /// Checks what cannot be told from one key alone.
    ///
    /// # Errors
    /// What is wrong, with the text that is at fault.
    pub fn checked(self) -> Result<Self, TemplateError> {
        let fail = |text: &str, reason: &str| {
            Err(TemplateError {
                text: text.to_owned(),
                reason: reason.to_owned(),
            })
        };
        if self.base == "/" {
            return fail("/", "is no place for staging; set hdfs.stagingPath");
        }
        if let Err(error) = check_path(&self.base) {
            return fail(&self.base, &error.to_string());
        }
        if let Some(reason) = suffix_fault(&self.suffix) {
            return fail(&self.suffix, reason);
        }
        for text in [&self.sink_label(), self.prefix.literal_front()] {
            if let Some(reason) = label_fault(text) {
                return fail(text, reason);
            }
        }
        if self.prefix.literal_front().starts_with(['_', '.']) {
            return fail(
                self.prefix.literal_front(),
                "begins with '_' or '.', which hides files",
            );
        }
        let front = self.prefix.literal_front().len().max("FlumeData".len());
        if front + self.sink_label().len() + self.suffix.len() + LOST_FRAME > MAX_NAME {
            let reason = "prefix, sink name and suffix are too long for a file name";
            return fail(&self.sink, reason);
        }
        if self.batch_size == 0 || self.max_open_files == 0 || self.max_parts == 0 {
            return fail("0", "batch size and limits of files must be at least 1");
        }
        Ok(self)
    }

    /// The sink's name as it stands in file names.
    pub fn sink_label(&self) -> String {
        self.sink.replace('/', "%2F")
    }
}
