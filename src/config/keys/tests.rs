use super::*;

fn hdfs() -> &'static Table {
    TABLES[4]
}

#[test]
fn every_default_obeys_its_own_type() {
    for table in TABLES {
        for key in table.all() {
            let Some(default) = key.default else { continue };
            let good = match key.kind {
                KeyType::Boolean => default == "true" || default == "false",
                KeyType::Integer { min, max } => default
                    .parse::<i64>()
                    .is_ok_and(|number| (min..=max).contains(&number)),
                KeyType::Positive => default.parse::<i64>().is_ok_and(|number| number > 0),
                KeyType::Choice(words) => words.contains(&default),
                KeyType::Text | KeyType::Path | KeyType::PathList | KeyType::NameList => true,
            };
            assert!(good, "{} {}: {default}", table.alias, key.name);
        }
    }
}

#[test]
fn no_key_stands_twice_in_a_table() {
    for table in TABLES {
        let mut names: Vec<&str> = table.all().map(|key| key.name).collect();
        let before = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), before, "{}", table.alias);
    }
}

#[test]
fn families_match_by_their_prefix_and_need_a_name() {
    let taildir = TABLES[0];
    assert_eq!(
        taildir.find("filegroups.f1").map(|key| key.name),
        Some("filegroups.*")
    );
    assert_eq!(
        taildir.find("headers.f1.a.b").map(|key| key.name),
        Some("headers.*.*")
    );
    assert!(taildir.find("headers.f1").is_none());
    assert!(taildir.find("filegroups.").is_none());
    assert_eq!(
        hdfs().find("serializer.appendNewline").map(|key| key.name),
        Some("serializer.appendNewline")
    );
}

#[test]
fn the_nearest_key_is_found_also_inside_families() {
    let nearest = |table: &Table, written: &str| {
        table
            .nearest(written)
            .map(|nearest| (nearest.name, nearest.distance))
    };
    assert_eq!(
        nearest(hdfs(), "hdfs.rollsize"),
        Some(("hdfs.rollSize".to_owned(), 0))
    );
    assert_eq!(
        nearest(hdfs(), "hdfs.rolSiz"),
        Some(("hdfs.rollSize".to_owned(), 2))
    );
    assert_eq!(
        nearest(TABLES[0], "filegroup.f1"),
        Some(("filegroups.f1".to_owned(), 1))
    );
    assert_eq!(
        nearest(TABLES[0], "fielgroups"),
        Some(("filegroups".to_owned(), 1))
    );
}

#[test]
fn types_are_known_in_any_case_and_by_class() {
    let supported = |section, written| match find_type(section, written) {
        TypeMatch::Supported(table) => table.alias,
        other => panic!("{written}: {other:?}"),
    };
    assert_eq!(supported(Section::Sources, "taildir"), "TAILDIR");
    assert_eq!(
        supported(
            Section::Sources,
            "org.apache.flume.source.taildir.TaildirSource"
        ),
        "TAILDIR"
    );
    assert_eq!(supported(Section::Channels, "FILE"), "file");
    assert!(matches!(
        find_type(Section::Sinks, "avro"),
        TypeMatch::NotYet
    ));
    assert!(matches!(
        find_type(Section::Sinks, "hdsf"),
        TypeMatch::Unknown(Some("hdfs"))
    ));
    // A sink's alias is no source's.
    assert!(matches!(
        find_type(Section::Sources, "hdfs"),
        TypeMatch::Unknown(_)
    ));
}
