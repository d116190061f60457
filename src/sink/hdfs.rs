//! The `hdfs` sink: from its configuration to a staged sink.

use std::sync::Arc;

use jiff::Unit;
use jiff::tz::TimeZone;

use crate::config::options::{Codec as CodecConfig, HdfsSinkConfig, RoundUnit, Serializer};
use crate::format::Codec;
use crate::format::text::Text;

use super::staged::bucket::{Template, TemplateError, TimeRule};
use super::staged::options::StagedOptions;

/// Options of the staged sink `name`. The store of `config.target` is opened by the caller.
///
/// # Errors
/// A path, prefix or suffix that cannot be used.
pub fn staged_options(name: &str, config: &HdfsSinkConfig) -> Result<StagedOptions, TemplateError> {
    let round = config.rounding.map(|rounding| {
        let unit = match rounding.unit {
            RoundUnit::Second => Unit::Second,
            RoundUnit::Minute => Unit::Minute,
            RoundUnit::Hour => Unit::Hour,
        };
        (rounding.value, unit)
    });
    let Serializer::Text { append_newline } = config.serializer;
    let options = StagedOptions::new(name, &config.base.path)?;
    StagedOptions {
        base: config.base.path.clone(),
        path: Template::parse(&config.target.path)?,
        prefix: Template::parse(&config.file_prefix)?,
        suffix: config.file_suffix.clone(),
        time: TimeRule {
            zone: config.time_zone.clone().unwrap_or_else(TimeZone::system),
            round,
            put_time: config.use_local_time_stamp,
        },
        roll_interval: config.roll_interval,
        roll_size: config.roll_size,
        roll_count: config.roll_count,
        idle_timeout: config.idle_timeout,
        batch_size: config.batch_size,
        max_open_files: config.max_open_files.min(options.max_parts),
        codec: match config.codec {
            CodecConfig::None => Codec::Plain,
            CodecConfig::Gzip => Codec::Gzip,
        },
        serializer: Arc::new(Text { append_newline }),
        ..options
    }
    .checked()
}
