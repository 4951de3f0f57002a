//! Owns reading comma-separated values (RFC 4180): the first row names the fields, every value is a
//! string.

use std::io::{self, Read};

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};

use super::Rows;
use super::rows::input_error;
use crate::Error;
use crate::member::write_string;

/// A row that is longer is no row: a quote was opened and never closed.
const ROW_BYTES_HARD_MAX: usize = 2 << 20;

const BUFFER_BYTES: usize = 256 << 10;

/// Ends a row that never ends, before it fills the memory.
struct Bounded<'a> {
    input: &'a mut dyn Read,
    since_row: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("a row is longer than 2 MiB: is a quote left open?")]
struct NoRow;

impl Read for Bounded<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.since_row > ROW_BYTES_HARD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, NoRow));
        }
        let bytes = self.input.read(to)?;
        self.since_row += bytes;
        Ok(bytes)
    }
}

/// The columns, in the order of the canonical form.
struct Columns {
    count: usize,
    id: usize,
    /// Where a field is, and `"name":`.
    fields: Vec<(usize, Vec<u8>)>,
}

pub(super) fn read(input: &mut dyn Read, rows: &mut Rows<'_>) -> Result<(), Error> {
    let mut reader = ReaderBuilder::new()
        .delimiter(rows.options.delimiter)
        .flexible(true)
        .buffer_capacity(BUFFER_BYTES)
        .from_reader(Bounded {
            input,
            since_row: 0,
        });
    let header = reader
        .byte_headers()
        .map_err(|error| failed(1, error))?
        .clone();
    let columns = Columns::new(&header, &rows.options.id_field)?;
    let mut record = ByteRecord::new();
    let mut line = 1;
    while next(&mut reader, &mut record, line)? {
        line = record.position().map_or(line, csv::Position::line);
        if record.len() != columns.count {
            let reason = format!(
                "{} cells where the header has {}",
                record.len(),
                columns.count
            );
            rows.reject(line, &reason)?;
        } else if std::str::from_utf8(record.as_slice()).is_err() {
            rows.reject(line, "not UTF-8")?;
        } else {
            columns.write(&record, &mut rows.body);
            rows.member(line, record.get(columns.id).unwrap_or_default())?;
        }
    }
    Ok(())
}

fn next(
    reader: &mut Reader<Bounded<'_>>,
    record: &mut ByteRecord,
    line: u64,
) -> Result<bool, Error> {
    reader.get_mut().since_row = 0;
    reader
        .read_byte_record(record)
        .map_err(|error| failed(line, error))
}

fn failed(line: u64, error: csv::Error) -> Error {
    let words = error.to_string();
    if let ErrorKind::Io(error) = error.into_kind() {
        return input_error(&format!("csv after line {line}"), error);
    }
    Error::Input(format!("csv after line {line}: {words}"))
}

impl Columns {
    fn new(header: &ByteRecord, id_field: &str) -> Result<Self, Error> {
        let mut named = Vec::with_capacity(header.len());
        for (at, name) in header.iter().enumerate() {
            let name = std::str::from_utf8(name)
                .map_err(|_| Error::Input("csv: the header is not UTF-8".to_owned()))?;
            named.push((name.trim(), at));
        }
        let id = named
            .iter()
            .find(|(name, _)| *name == id_field)
            .map(|(_, at)| *at);
        let id =
            id.ok_or_else(|| Error::Input(format!("csv: the header has no column `{id_field}`")))?;
        named.sort_unstable();
        for pair in named.windows(2) {
            if let [(one, _), (other, _)] = pair
                && one == other
            {
                return Err(Error::Input(format!("csv: the header has `{one}` twice")));
            }
        }
        if id_field != "id" && named.iter().any(|(name, _)| *name == "id") {
            return Err(Error::Input(format!(
                "csv: the header has `id` beside `{id_field}`"
            )));
        }
        let fields = named.iter().filter(|(_, at)| *at != id).map(|(name, at)| {
            let mut written = Vec::new();
            write_string(name, &mut written);
            written.push(b':');
            (*at, written)
        });
        Ok(Self {
            count: header.len(),
            id,
            fields: fields.collect(),
        })
    }

    /// Writes a record that is known to be UTF-8.
    fn write(&self, record: &ByteRecord, body: &mut Vec<u8>) {
        body.clear();
        body.push(b'{');
        for (at, name) in &self.fields {
            let cell = record.get(*at).unwrap_or_default();
            if cell.is_empty() {
                continue;
            }
            if body.len() > 1 {
                body.push(b',');
            }
            body.extend_from_slice(name);
            write_string(std::str::from_utf8(cell).unwrap_or_default(), body);
        }
        body.push(b'}');
    }
}
