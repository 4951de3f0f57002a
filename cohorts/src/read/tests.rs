use std::io::{self, Write};
use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::*;
use crate::doubles::sort_options;

type Found = Result<(Vec<String>, Counts), Error>;

fn read_with(mut input: &[u8], options: &ReadOptions) -> Found {
    let mut members = Vec::new();
    let mut take = |id: &[u8], body: &[u8]| {
        let (id, body) = (String::from_utf8_lossy(id), String::from_utf8_lossy(body));
        members.push(format!("{id}={body}"));
        Ok(())
    };
    let counts = read(
        &mut input,
        options,
        &sort_options(),
        &Progress::default(),
        &mut take,
    )?;
    Ok((members, counts))
}

fn lenient() -> ReadOptions {
    ReadOptions {
        rejects_max_percent: 100.0,
        ..ReadOptions::default()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Members of text `id`, optional text `city` and number `age`.
fn parquet_of(rows: &[(&str, Option<&str>, i64)], id_column: &str) -> Vec<u8> {
    let schema = format!(
        "message m {{ required binary {id_column} (UTF8); optional binary city (UTF8); required int64 age; }}"
    );
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let ids: Vec<ByteArray> = rows.iter().map(|(id, ..)| ByteArray::from(*id)).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<ByteArrayType>()
        .write_batch(&ids, None, None)
        .unwrap();
    column.close().unwrap();
    let cities: Vec<ByteArray> = rows
        .iter()
        .filter_map(|(_, city, _)| *city)
        .map(ByteArray::from)
        .collect();
    let levels: Vec<i16> = rows
        .iter()
        .map(|(_, city, _)| i16::from(city.is_some()))
        .collect();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<ByteArrayType>()
        .write_batch(&cities, Some(&levels), None)
        .unwrap();
    column.close().unwrap();
    let ages: Vec<i64> = rows.iter().map(|(.., age)| *age).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int64Type>()
        .write_batch(&ages, None, None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn every_format_and_compression_gives_the_same_members() {
    let ndjson =
        "{\"id\":\"b\",\"city\":\"Bern\",\"age\":\"3\"}\n\n {\"age\":\"4\", \"id\": \"a\"} \r\n";
    let csv = "id,city,age\r\nb,Bern,3\r\na,,4\r\n";
    let tabs = "age\tcity\tid\n3\tBern\tb\n4\t\ta\n";
    let expected = [r#"b={"age":"3","city":"Bern"}"#, r#"a={"age":"4"}"#];
    for (text, delimiter) in [(ndjson, b','), (csv, b','), (tabs, b'\t')] {
        let marked = [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat();
        for plain in [text.as_bytes(), &marked] {
            for bytes in [plain.to_vec(), gzip(plain), zstandard(plain)] {
                let options = ReadOptions {
                    delimiter,
                    ..ReadOptions::default()
                };
                let (members, counts) = read_with(&bytes, &options).unwrap();
                assert_eq!(members, expected, "{text}");
                assert_eq!((counts.rows, counts.rejects.total), (2, 0));
            }
        }
    }
    let table = parquet_of(&[("b", Some("Bern"), 3), ("a", None, 4)], "id");
    let expected = [r#"b={"age":3,"city":"Bern"}"#, r#"a={"age":4}"#];
    for bytes in [table.clone(), gzip(&table), zstandard(&table)] {
        assert_eq!(
            read_with(&bytes, &ReadOptions::default()).unwrap().0,
            expected
        );
    }
}

#[test]
fn inputs_of_several_frames_are_read_to_their_end() {
    let (one, two) = (b"{\"id\":\"a\"}\n", b"{\"id\":\"b\"}\n");
    for bytes in [
        [gzip(one), gzip(two)].concat(),
        [zstandard(one), zstandard(two)].concat(),
    ] {
        assert_eq!(
            read_with(&bytes, &ReadOptions::default()).unwrap().0,
            ["a={}", "b={}"]
        );
    }
}

#[test]
fn the_id_may_have_another_name() {
    let options = ReadOptions {
        id_field: "user".to_owned(),
        ..ReadOptions::default()
    };
    for bytes in [
        b"{\"x\":\"1\",\"user\":\"a\"}".to_vec(),
        b"x,user\n1,a\n".to_vec(),
    ] {
        assert_eq!(read_with(&bytes, &options).unwrap().0, [r#"a={"x":"1"}"#]);
    }
    let table = parquet_of(&[("a", None, 4)], "user");
    assert_eq!(read_with(&table, &options).unwrap().0, [r#"a={"age":4}"#]);
    // Two ids would be one too many for whoever reads the member.
    assert!(read_with(b"id,user\n1,a\n", &options).is_err());
    let (members, counts) = read_with(
        b"{\"id\":1,\"user\":\"a\"}",
        &ReadOptions {
            rejects_max_percent: 100.0,
            ..options
        },
    )
    .unwrap();
    assert_eq!((members.len(), counts.rejects.total), (0, 1));
}

#[test]
fn a_bad_row_is_rejected_with_its_line_and_reason() {
    let long_id = format!("{{\"id\":\"{}\"}}", "a".repeat(1_025));
    let megabyte = format!("{{\"id\":\"{}\"}}", "a".repeat(1 << 20));
    let long_row = format!("{{\"id\":\"a\",\"x\":\"{}\"}}", "a".repeat(64 << 10));
    for (row, reason) in [
        (
            &b"{\"id\":1.5}"[..],
            "the id is neither a string nor an integer",
        ),
        (b"{\"x\":1}", "there is no id"),
        (b"{\"id\":\"\"}", "the id is empty"),
        (b"{\"id\":\"a\\u0000\"}", "the id has a control character"),
        (b"{\"id\":\"a\"", "not a JSON object"),
        (b"{\"id\":\"a\"} x", "more than one JSON object in a row"),
        (b"{\"id\":\"a\",\"x\":1,\"x\":2}", "a field is there twice"),
        (b"{\"id\":\"\xff\"}", "not UTF-8"),
        (long_id.as_bytes(), "the id is longer than 1 KiB"),
        (megabyte.as_bytes(), "the row is longer than 64 KiB"),
        (long_row.as_bytes(), "the row is longer than 64 KiB"),
    ] {
        let input = [b"{\"id\":\"first\"}\n", row, b"\n{\"id\":\"last\"}\n"].concat();
        let options = ReadOptions {
            format: Some(Format::Ndjson),
            ..lenient()
        };
        let (members, counts) = read_with(&input, &options).unwrap();
        assert_eq!(members, ["first={}", "last={}"], "{reason}");
        let expected = Reject {
            line: 2,
            reason: reason.to_owned(),
        };
        assert_eq!(
            counts.rejects,
            Rejects {
                total: 1,
                first: vec![expected]
            }
        );
        assert_eq!(counts.rows, 3);
    }
}

#[test]
fn a_bad_row_of_a_table_is_rejected_too() {
    let input = b"id,x\na,1\nb\nc,1,2\n\"d\n\",1\ne,\xff\nf,1\n";
    let (members, counts) = read_with(input, &lenient()).unwrap();
    assert_eq!(members, [r#"a={"x":"1"}"#, r#"f={"x":"1"}"#]);
    let lines: Vec<_> = counts
        .rejects
        .first
        .iter()
        .map(|reject| reject.line)
        .collect();
    assert_eq!(lines, [3, 4, 5, 7]);
    let (members, counts) = read_with(
        &parquet_of(&[("", None, 1), ("b", None, 2)], "id"),
        &lenient(),
    )
    .unwrap();
    assert_eq!(members, [r#"b={"age":2}"#]);
    assert_eq!(counts.rejects.first_reason(), "the id is empty");
}

#[test]
fn what_is_not_what_it_claims_to_be_is_an_error_of_the_input() {
    let rows = "{\"id\":\"a\",\"x\":\"some text\"}\n".repeat(50_000);
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 7].to_vec();
    let flipped = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8].fill(0x55);
        bytes
    };
    let table = parquet_of(&[("a", None, 1)], "id");
    let open_quote = format!("id,x\na,\"{}", "1,2\n".repeat(1 << 20));
    for (name, input) in [
        ("truncated gzip", cut(gzip(rows.as_bytes()))),
        ("truncated zstd", cut(zstandard(rows.as_bytes()))),
        ("damaged gzip", flipped(gzip(rows.as_bytes()))),
        (
            "gzip and then something else",
            [gzip(b"{\"id\":1}"), b"junk".to_vec()].concat(),
        ),
        ("truncated parquet", cut(table)),
        ("parquet without its end", b"PAR1".to_vec()),
        (
            "parquet with a wrong schema",
            parquet_of(&[("a", None, 1)], "user"),
        ),
        ("csv without an id", b"name,x\na,1\n".to_vec()),
        ("csv with a column twice", b"id,x,x\na,1,2\n".to_vec()),
        ("csv with a quote left open", open_quote.into_bytes()),
        ("csv whose header is not text", b"id,\xff\na,1\n".to_vec()),
    ] {
        let found = read_with(&input, &lenient());
        assert!(
            matches!(found, Err(Error::Input(_))),
            "{name}: {:?}",
            found.map(|_| ())
        );
    }
    let nested = "message m { required group id { required binary x (UTF8); } }";
    let schema = Arc::new(parse_message_type(nested).unwrap());
    let mut bytes = Vec::new();
    SerializedFileWriter::new(&mut bytes, schema, Arc::default())
        .unwrap()
        .close()
        .unwrap();
    assert!(matches!(
        read_with(&bytes, &lenient()),
        Err(Error::Input(_))
    ));
}

#[test]
fn a_damaged_table_never_panics_the_caller() {
    let rows: Vec<_> = (0..200).map(|age| ("some-id", Some("Bern"), age)).collect();
    let table = parquet_of(&rows, "id");
    for at in 0..table.len() {
        let mut changed = table.clone();
        changed[at] ^= 0x41;
        // Not every byte matters, and Parquet has no checksum over all: an answer is all there is.
        drop(read_with(&changed, &lenient()));
    }
}

#[test]
fn numbers_that_json_does_not_have_are_rejected() {
    let schema = "message m { required binary id (UTF8); required double score; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let ids = [ByteArray::from("a"), ByteArray::from("b")];
    column
        .typed::<ByteArrayType>()
        .write_batch(&ids, None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<DoubleType>()
        .write_batch(&[f64::NAN, 1.5], None, None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let (members, counts) = read_with(&bytes, &lenient()).unwrap();
    assert_eq!(members, [r#"b={"score":1.5}"#]);
    assert_eq!(counts.rejects.first_reason(), "a number is not finite");
}

#[test]
fn more_than_the_tolerated_share_of_bad_rows_fails_the_whole() {
    let input = |bad: usize| format!("{}{}", "{\"id\":1}\n".repeat(99), "x\n".repeat(bad));
    let options = ReadOptions {
        format: Some(Format::Ndjson),
        ..ReadOptions::default()
    };
    assert!(read_with(input(1).as_bytes(), &options).is_ok());
    let error = read_with(input(2).as_bytes(), &options).unwrap_err();
    assert!(error.is_inputs_fault());
    assert_eq!(
        error.to_string(),
        "input: 2 of 101 rows are bad, more than 1 % (line 100: not a JSON object)"
    );
    // A wrong file of any length is given up early.
    let mut endless = io::Read::take(io::repeat(b'\n'), 0).chain(Lines);
    let mut take = |_: &[u8], _: &[u8]| Ok(());
    let given_up = read(
        &mut endless,
        &options,
        &sort_options(),
        &Progress::default(),
        &mut take,
    );
    assert!(
        matches!(given_up, Err(Error::TooManyRejects { rejects, .. })
        if rejects.first.len() == REJECTS_KEPT_MAX && rejects.total > 1_000)
    );
}

/// Bad rows without an end.
struct Lines;

impl Read for Lines {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        to.fill(b'x');
        to.iter_mut().step_by(2).for_each(|byte| *byte = b'\n');
        Ok(to.len())
    }
}

#[test]
fn bounds_and_stops_and_broken_readers_are_told_apart() {
    let rows = "{\"id\":1}\n".repeat(10_000);
    let few = ReadOptions {
        rows_max: 9,
        ..ReadOptions::default()
    };
    assert!(matches!(
        read_with(rows.as_bytes(), &few),
        Err(Error::Limit { .. })
    ));

    let progress = Progress::default();
    progress.stop();
    let mut take = |_: &[u8], _: &[u8]| Ok(());
    let options = ReadOptions::default();
    let stopped = read(
        &mut rows.as_bytes(),
        &options,
        &sort_options(),
        &progress,
        &mut take,
    );
    assert!(matches!(stopped, Err(Error::Stopped)));

    for start in [
        rows.as_bytes().to_vec(),
        gzip(rows.as_bytes())[..60].to_vec(),
        b"id\n1\n".repeat(300),
    ] {
        let mut broken = start.chain(Broken);
        let read = read(
            &mut broken,
            &options,
            &sort_options(),
            &Progress::default(),
            &mut take,
        );
        assert!(matches!(read, Err(Error::Reading(_))), "{read:?}");
    }
}

/// A client that went away.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn progress_counts_what_came_and_what_was_in_it() {
    let rows = gzip("{\"id\":1}\nx\n".repeat(10).as_bytes());
    let progress = Progress::default();
    let mut take = |_: &[u8], _: &[u8]| Ok(());
    read(
        &mut rows.as_slice(),
        &lenient(),
        &sort_options(),
        &progress,
        &mut take,
    )
    .unwrap();
    let reached = progress.reached();
    assert_eq!(
        (reached.bytes, reached.rows, reached.rejected),
        (rows.len() as u64, 20, 10)
    );
}
