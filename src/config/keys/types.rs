//! Component types: aliases in any case, Flume's class names, and what we do not have yet.

use super::{Section, TABLES, Table, distance};

/// All sections, in the order of the flow.
pub const SECTIONS: [Section; 3] = [Section::Sources, Section::Channels, Section::Sinks];

/// Types that Flume has and we do not: refused by name, so that nobody looks for a typing error.
const NOT_YET: [(Section, &[(&str, &str)]); 3] = [
    (
        Section::Sources,
        &[
            ("seq", "org.apache.flume.source.SequenceGeneratorSource"),
            ("exec", "org.apache.flume.source.ExecSource"),
            ("avro", "org.apache.flume.source.AvroSource"),
            ("syslogtcp", "org.apache.flume.source.SyslogTcpSource"),
            (
                "multiport_syslogtcp",
                "org.apache.flume.source.MultiportSyslogTCPSource",
            ),
            ("syslogudp", "org.apache.flume.source.SyslogUDPSource"),
            ("spooldir", "org.apache.flume.source.SpoolDirectorySource"),
            ("http", "org.apache.flume.source.http.HTTPSource"),
            ("thrift", "org.apache.flume.source.ThriftSource"),
            ("jms", "org.apache.flume.source.jms.JMSSource"),
            ("netcatudp", "org.apache.flume.source.NetcatUdpSource"),
            ("", "org.apache.flume.source.kafka.KafkaSource"),
            ("", "org.apache.flume.source.StressSource"),
            ("", "org.apache.flume.source.twitter.TwitterSource"),
            ("", "org.apache.flume.source.scribe.ScribeSource"),
            ("", "org.apache.flume.source.avroLegacy.AvroLegacySource"),
            (
                "",
                "org.apache.flume.source.thriftLegacy.ThriftLegacySource",
            ),
        ],
    ),
    (
        Section::Channels,
        &[
            ("jdbc", "org.apache.flume.channel.jdbc.JdbcChannel"),
            (
                "SPILLABLEMEMORY",
                "org.apache.flume.channel.SpillableMemoryChannel",
            ),
            ("", "org.apache.flume.channel.kafka.KafkaChannel"),
            ("", "org.apache.flume.channel.PseudoTxnMemoryChannel"),
        ],
    ),
    (
        Section::Sinks,
        &[
            ("irc", "org.apache.flume.sink.irc.IRCSink"),
            ("avro", "org.apache.flume.sink.AvroSink"),
            ("thrift", "org.apache.flume.sink.ThriftSink"),
            (
                "elasticsearch",
                "org.apache.flume.sink.elasticsearch.ElasticSearchSink",
            ),
            ("hbase", "org.apache.flume.sink.hbase.HBaseSink"),
            ("asynchbase", "org.apache.flume.sink.hbase.AsyncHBaseSink"),
            ("hbase2", "org.apache.flume.sink.hbase2.HBase2Sink"),
            (
                "MORPHLINE_SOLR",
                "org.apache.flume.sink.solr.morphline.MorphlineSolrSink",
            ),
            ("hive", "org.apache.flume.sink.hive.HiveSink"),
            ("http", "org.apache.flume.sink.http.HttpSink"),
            ("", "org.apache.flume.sink.kafka.KafkaSink"),
            ("", "org.apache.flume.sink.kudu.KuduSink"),
        ],
    ),
];

/// What a `type` names.
#[derive(Clone, Copy, Debug)]
pub enum TypeMatch {
    /// A component we have.
    Supported(&'static Table),
    /// A component that Flume has and we do not.
    NotYet,
    /// Nothing that Flume ships; the nearest name it has, if one is near.
    Unknown(Option<&'static str>),
}

/// Finds what a `type` names: an alias in any case, or a class name.
pub fn find_type(section: Section, written: &str) -> TypeMatch {
    let supported = TABLES.iter().filter(|table| table.section == section);
    let known = NOT_YET
        .iter()
        .filter(|(of, _)| *of == section)
        .flat_map(|(_, types)| *types);
    for table in supported.clone() {
        if table.alias.eq_ignore_ascii_case(written) || table.class == written {
            return TypeMatch::Supported(table);
        }
    }
    let same = |(alias, class): &&(&str, &str)| {
        (!alias.is_empty() && alias.eq_ignore_ascii_case(written)) || *class == written
    };
    if known.clone().any(|pair| same(&pair)) {
        return TypeMatch::NotYet;
    }
    let lower = written.to_ascii_lowercase();
    let names = supported
        .flat_map(|table| [table.alias, table.class])
        .chain(known.flat_map(|(alias, class)| [*alias, *class]))
        .filter(|name| !name.is_empty());
    let nearest = names
        .map(|name| (distance(&name.to_ascii_lowercase(), &lower), name))
        .min()
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3));
    TypeMatch::Unknown(nearest.map(|(_, name)| name))
}
