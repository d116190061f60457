use super::*;

fn parse(line: &str) -> Result<Command, String> {
    let words = line.split_whitespace();
    Cli::try_parse_from(words)
        .map(|cli| cli.command)
        .map_err(|error| error.to_string())
}

fn agent(line: &str) -> AgentArgs {
    match parse(line) {
        Ok(Command::Agent(args)) => args,
        other => panic!("{other:?}"),
    }
}

fn output(line: &str) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(
        line.split_whitespace().map(OsString::from),
        &mut out,
        &mut err,
    );
    (
        code,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

#[test]
fn the_grammar_has_no_contradictions() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn the_agent_takes_the_line_that_flume_ng_takes() {
    let args = agent(
        "forebay agent --conf conf --conf-file x.conf --name a1 --no-reload-conf \
         -Dflume.root.logger=DEBUG,console -Dk=a=b -D p=q -Xmx512m -C lib/a.jar",
    );
    assert_eq!(args.name, "a1");
    assert_eq!(args.conf_file.to_str(), Some("x.conf"));
    assert_eq!(
        args.conf.as_deref().and_then(std::path::Path::to_str),
        Some("conf")
    );
    assert!(args.no_reload_conf && !args.dryrun && !args.until_drained);
    let own = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let expected = [
        own("flume.root.logger", "DEBUG,console"),
        own("k", "a=b"),
        own("p", "q"),
    ];
    assert_eq!(args.system_properties(), expected);
    assert_eq!(args.level(), LogLevel::Debug);
    assert_eq!(args.without_effect(), ["-Xmx512m", "--classpath lib/a.jar"]);
}

#[test]
fn the_agent_has_short_options_and_defaults() {
    let args = agent("forebay agent -n a1 -f x.conf -c conf -d");
    assert!(args.dryrun);
    assert_eq!(args.drain_timeout.as_secs(), 30);
    assert_eq!(
        (args.log_format, args.level()),
        (LogFormat::Human, LogLevel::Info)
    );
    let args = agent(
        "forebay agent -n a1 -f x --drain-timeout 5 --until-drained --log-format json \
         --log-level warn -Dflume.root.logger=DEBUG",
    );
    assert_eq!(args.drain_timeout.as_secs(), 5);
    assert_eq!(
        (args.log_format, args.level()),
        (LogFormat::Json, LogLevel::Warn)
    );
    assert!(args.until_drained);
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    assert!(
        parse("forebay agent -n a1")
            .unwrap_err()
            .contains("--conf-file <FILE>")
    );
    assert!(
        parse("forebay agent -f x")
            .unwrap_err()
            .contains("--name <NAME>")
    );
    let error = parse("forebay agent -n a -f x --drain-timeout 1h").unwrap_err();
    assert!(
        error.contains("a whole number of seconds from 0 to 86400"),
        "{error}"
    );
    assert!(
        parse("forebay agent -n a -f x -D ==v")
            .unwrap_err()
            .contains("with a key")
    );
    let Ok(Command::Resolve(undecided)) = parse("forebay resolve 17 data") else {
        panic!()
    };
    assert!(undecided.decision().unwrap_err().contains("--done"));
    assert!(parse("forebay resolve 17 --done --again data").is_err());
    assert!(parse("forebay resolve seventeen --done data").is_err());
    assert!(parse("forebay wal verify").unwrap_err().contains("<DIR>"));
}

#[test]
fn the_tools_are_parsed() {
    assert!(matches!(parse("forebay status --json d"), Ok(Command::Status(a)) if a.json));
    let Ok(Command::Wal(wal)) = parse("forebay wal verify --json d e") else {
        panic!()
    };
    assert!(matches!(wal.command, WalCommand::Verify(a) if a.json && a.dirs.len() == 2));
    let Ok(Command::Audit(args)) = parse("forebay audit hdfs://nn/a --log d") else {
        panic!()
    };
    assert_eq!((args.paths[0].as_str(), args.json), ("hdfs://nn/a", false));
    let Ok(Command::Resolve(args)) = parse("forebay resolve 17 --again d") else {
        panic!()
    };
    let again = crate::tools::resolve::Decision::Again(17);
    assert_eq!(args.decision(), Ok(again));
}

#[test]
fn help_and_version_go_to_stdout_and_usage_errors_to_stderr() {
    let (code, out, err) = output("forebay version");
    assert_eq!((code, err.as_str()), (exit::CLEAN, ""));
    assert_eq!(out, format!("forebay {}\n", env!("CARGO_PKG_VERSION")));
    let (code, out, _) = output("forebay help");
    assert_eq!(code, exit::CLEAN);
    assert!(
        out.contains("Examples:") && out.contains("flume-ng"),
        "{out}"
    );
    let (code, out, err) = output("forebay nonsense");
    assert_eq!((code, out.as_str()), (exit::USAGE, ""));
    assert!(err.contains("nonsense"));
    assert_eq!(output("forebay").0, exit::USAGE);
}

#[test]
fn every_command_teaches_with_examples() {
    for command in [
        "agent",
        "check",
        "status",
        "wal",
        "wal inspect",
        "wal verify",
        "audit",
        "resolve",
    ] {
        let (code, out, _) = output(&format!("forebay {command} --help"));
        assert_eq!(code, exit::CLEAN);
        assert!(out.contains("Examples:\n  forebay "), "{command}: {out}");
    }
}

#[test]
fn defined_values_are_not_in_debug_texts() {
    let args = agent("forebay agent -n a1 -f x -Dpassword=swordfish");
    assert!(!format!("{args:?}").contains("swordfish"));
}
