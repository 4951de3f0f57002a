use std::ffi::OsString;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::Entropy;
use crate::secret::{ExposeSecret, Sealer};

fn faults(layers: Layers) -> Vec<String> {
    let faults = layers.load().expect_err("a fault").0;
    faults.into_iter().map(|fault| fault.message).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn the_defaults_are_valid() {
    let loaded = Layers::new().load().unwrap();
    assert_eq!(loaded.config.dispatcher.horizon, Duration::from_secs(10));
    assert_eq!(
        loaded.config.embedded_dir(),
        PathBuf::from("anabranch-data/log")
    );
    assert!(!loaded.config.instance().is_empty());
}

#[test]
fn a_later_layer_wins_key_by_key() {
    let loaded = Layers::new()
        .toml(
            "a.toml",
            "instance = 'one'\n[ingest]\nmax_body = '4MiB'\nmax_batch_events = 10",
        )
        .environment(pairs(&[
            ("ANABRANCH_INGEST__MAX_BODY", "5MiB"),
            ("ANABRANCH_INSTANCE", "two"),
            ("ANABRANCH_API_KEY", "not an option"),
            ("ANABRANCH_CONFIG", "elsewhere.toml"),
            ("HOME", "/root"),
        ]))
        .assign("ingest.max_body=6MiB")
        .load()
        .unwrap();
    assert_eq!(loaded.config.ingest.max_body, ByteSize::mib(6));
    assert_eq!(loaded.config.ingest.max_batch_events, 10);
    assert_eq!(loaded.config.instance(), "two");
    assert_eq!(loaded.source("ingest.max_body"), Source::Flag);
    assert_eq!(
        loaded.source("ingest.max_batch_events").to_string(),
        "file a.toml"
    );
    assert_eq!(loaded.source("ingest.bind"), Source::Default);
}

#[test]
fn every_fault_is_reported_at_once() {
    let faults = faults(
        Layers::new()
            .toml(
                "a.toml",
                "[ingest]\nbnid = 'x'\nmax_body = '8MB'\n[kafka]\nproperties = 1",
            )
            .environment(pairs(&[("ANABRANCH_ROUTER__COMMIT_INTERVAL", "1s")]))
            .assign("dispatcher.drain_deadline=20s")
            .assign("telemetry.filter=info,[")
            .assign("nonsense"),
    );
    let expected = [
        "`--set` takes `section.key=value`",
        "`ingest.max_body`: expected a size such as `64KiB` or `1MiB`, got `8MB` (file a.toml)",
        "`router.commit_interval` must be from `1ms` to `250ms`, got `1s`",
        "`ingest.bnid`: unknown key (file a.toml), did you mean `ingest.bind`?",
        "`kafka.properties` is a table: set `kafka.properties.NAME` (file a.toml)",
        "`dispatcher.drain_deadline` must be less than `kafka.session_timeout` = 10s, got 20s",
    ];
    for (fault, expected) in faults.iter().zip(expected) {
        assert_eq!(fault, expected);
    }
    assert!(
        faults.last().unwrap().starts_with("`telemetry.filter`: "),
        "{faults:?}"
    );
    assert_eq!(faults.len(), 7);
}

#[test]
fn values_that_do_not_go_together_are_named_with_both() {
    let check = |assignments: &[&str], expected: &str| {
        let layers = assignments
            .iter()
            .fold(Layers::new(), |layers, text| layers.assign(text));
        assert_eq!(faults(layers), [expected]);
    };
    check(
        &["ingest.max_event=2MiB", "ingest.max_body=1MiB"],
        "`ingest.max_event` must be at most `ingest.max_body` = 1MiB, got 2MiB",
    );
    check(
        &["ingest.max_event=4MiB"],
        "`ingest.max_event` and 548KiB for headers, targets and a kept response must be at most \
         4MiB, the largest record, got 4MiB",
    );
    check(
        &["kafka.heartbeat_interval=3s"],
        "`kafka.heartbeat_interval` must be at most a quarter of `kafka.session_timeout` = 10s, \
         got 3s",
    );
    check(
        &["topics.prefix=a b"],
        "`topics.prefix` must be at most 100 of a-z, A-Z, 0-9, `.`, `_` and `-`, got `a b`",
    );
    check(
        &["control.operator_key=hunter2"],
        "`control.operator_key` must have at least 16 characters",
    );
    check(
        &["kafka.properties.acks=1"],
        "`kafka.properties.acks` is set by the service that uses it and cannot be passed on",
    );
    let exactly = Layers::new()
        .assign("kafka.heartbeat_interval=2500ms")
        .load();
    assert!(exactly.is_ok(), "the bound itself holds");
}

#[test]
fn properties_come_from_every_layer() {
    let loaded = Layers::new()
        .toml(
            "a.toml",
            "[kafka.properties]\n'sasl.mechanism' = 'PLAIN'\nssl.ca.location = '/ca'",
        )
        .environment(pairs(&[(
            "ANABRANCH_KAFKA__PROPERTIES__SASL_PASSWORD",
            "hunter2",
        )]))
        .assign("kafka.properties.client.rack=a")
        .load()
        .unwrap();
    let all: Vec<_> = loaded.config.kafka.properties.iter().collect();
    let expected = [
        ("client.rack", "a"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.password", "hunter2"),
        ("ssl.ca.location", "/ca"),
    ];
    assert_eq!(all, expected);
    let text = loaded.print();
    assert!(
        text.contains("properties.\"sasl.mechanism\" = \"PLAIN\"  # file a.toml"),
        "{text}"
    );
    assert!(!text.contains("hunter2"));
}

#[test]
fn secrets_are_redacted_wherever_the_configuration_is_shown() {
    let key = Sealer::generate("k1", &Entropy::seeded(1)).unwrap();
    let loaded = Layers::new()
        .toml(
            "a.toml",
            &format!("[secrets]\nkeys = ['{}']", key.expose_secret()),
        )
        .assign("control.operator_key=hunter2-hunter2-hunter2")
        .load()
        .unwrap();
    assert_eq!(
        loaded
            .config
            .control
            .operator_key
            .as_ref()
            .unwrap()
            .expose_secret(),
        "hunter2-hunter2-hunter2"
    );
    for text in [loaded.print(), format!("{loaded:?}")] {
        assert!(!text.contains("hunter2") && !text.contains("k1:"), "{text}");
    }
    assert!(
        loaded
            .print()
            .contains("operator_key = \"[secret]\"  # flag")
    );
    let broken = faults(
        Layers::new()
            .toml(
                "a.toml",
                "[control]\noperator_key = 12345\n[secrets]\nkeys = ['hunter2']",
            )
            .toml("b.toml", "operator_key = 'hunter2"),
    );
    assert_eq!(broken.len(), 3, "{broken:?}");
    assert!(!broken.concat().contains("hunter2") && !broken.concat().contains("12345"));
}

#[test]
fn what_is_printed_reads_back() {
    let loaded = Layers::new()
        .assign("dispatcher.allowed_ports=443,8443")
        .load()
        .unwrap();
    let again = Layers::new()
        .toml("printed", &loaded.print())
        .load()
        .unwrap();
    assert_eq!(again.config.dispatcher.allowed_ports, [443, 8_443]);
    assert_eq!(
        format!("{:?}", again.config),
        format!("{:?}", loaded.config)
    );
}

#[test]
fn the_standard_layers_read_the_file_that_the_environment_names() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "instance = 'from file'").unwrap();
    let environment = || {
        [(
            OsString::from("ANABRANCH_CONFIG"),
            file.path().as_os_str().to_owned(),
        )]
    };
    let loaded = Layers::standard(None, environment(), &[]).load().unwrap();
    assert_eq!(loaded.config.instance(), "from file");
    let set = ["instance=from flag".to_owned()];
    let loaded = Layers::standard(None, environment(), &set).load().unwrap();
    assert_eq!(loaded.config.instance(), "from flag");
    let missing = faults(Layers::standard(
        Some("/nonexistent.toml".as_ref()),
        environment(),
        &[],
    ));
    assert!(
        missing[0].starts_with("`/nonexistent.toml`: "),
        "{missing:?}"
    );
}

#[test]
fn the_reference_lists_every_option_with_a_purpose() {
    let text = reference();
    for option in Config::options() {
        assert!(
            text.contains(&format!("* `{}` (", option.key())),
            "{}",
            option.key()
        );
        assert!(
            option.doc.len() > 5 && option.doc.ends_with('.'),
            "{}",
            option.key()
        );
    }
    let line = "* `router.commit_interval` (duration, default `250ms`, 1ms to 250ms): How often";
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains("`kafka.brokers` (list, default `[]`)"),
        "{text}"
    );
}

proptest! {
    #[test]
    fn reading_never_panics(text in "\\PC{0,60}", key in "[a-z._]{0,20}") {
        drop(Layers::new().toml("x", &text).assign(&text).flag(&key, &text).load());
    }
}
