//! Owns reading Apache Parquet. A Parquet file is read from its end, so the input is first written
//! to a scratch file; rows are then read one by one.

use std::fs::File;
use std::io::{self, Read, Write};

use jiff::{Timestamp, ToSpan};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;

use super::Rows;
use super::rows::input_error;
use crate::Error;
use crate::member::write_string;
use crate::sort::SortOptions;

/// Writes the whole input to a scratch file.
pub(super) fn spool(input: &mut dyn Read, sort: &SortOptions) -> Result<File, Error> {
    let mut file = sort.file()?;
    let mut buffer = vec![0; 256 << 10];
    let mut written = 0;
    loop {
        let bytes = match input.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(input_error("parquet", error)),
        };
        written += bytes as u64;
        sort.check_scratch(written)?;
        let put = file.write_all(buffer.get(..bytes).unwrap_or_default());
        put.map_err(|source| sort.scratch_error(source))?;
    }
}

pub(super) fn read(file: File, rows: &mut Rows<'_>) -> Result<(), Error> {
    let reader = SerializedFileReader::new(file).map_err(|error| damaged(&error))?;
    let columns = Columns::new(reader.metadata().file_metadata().schema(), rows)?;
    let found = reader.get_row_iter(None).map_err(|error| damaged(&error))?;
    let (mut id, mut body) = (Vec::new(), Vec::new());
    for (number, row) in (1..).zip(found) {
        let row = row.map_err(|error| damaged(&error))?;
        match columns.write(&row, &mut id, &mut body) {
            Ok(()) => {
                std::mem::swap(&mut rows.body, &mut body);
                rows.member(number, &id)?;
            }
            Err(reason) => rows.reject(number, reason)?,
        }
    }
    Ok(())
}

fn damaged(error: &ParquetError) -> Error {
    Error::Input(format!("parquet: {error}"))
}

/// The columns, in the order of the canonical form.
struct Columns {
    id: usize,
    fields: Vec<(usize, Vec<u8>)>,
}

impl Columns {
    fn new(schema: &Type, rows: &Rows<'_>) -> Result<Self, Error> {
        let id_field = rows.options.id_field.as_str();
        let mut named: Vec<_> = schema
            .get_fields()
            .iter()
            .map(|field| field.name())
            .zip(0..)
            .collect();
        let id = named
            .iter()
            .find(|(name, _)| *name == id_field)
            .map(|(_, at)| *at);
        let id = id.ok_or_else(|| {
            let has: Vec<_> = named.iter().map(|(name, _)| *name).take(20).collect();
            Error::Input(format!(
                "parquet: no column `{id_field}` among `{}`",
                has.join("`, `")
            ))
        })?;
        if schema
            .get_fields()
            .get(id)
            .is_some_and(|field| field.is_group())
        {
            return Err(Error::Input(format!(
                "parquet: the column `{id_field}` is nested"
            )));
        }
        if id_field != "id" && named.iter().any(|(name, _)| *name == "id") {
            return Err(Error::Input(format!(
                "parquet: a column `id` beside `{id_field}`"
            )));
        }
        named.sort_unstable();
        let fields = named.iter().filter(|(_, at)| *at != id).map(|(name, at)| {
            let mut written = Vec::new();
            write_string(name, &mut written);
            written.push(b':');
            (*at, written)
        });
        Ok(Self {
            id,
            fields: fields.collect(),
        })
    }

    fn write(&self, row: &Row, id: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<(), &'static str> {
        let cells: Vec<&Field> = row.get_column_iter().map(|(_, cell)| cell).collect();
        id.clear();
        write_id(cells.get(self.id).copied().unwrap_or(&Field::Null), id)?;
        body.clear();
        body.push(b'{');
        for (at, name) in &self.fields {
            let cell = cells.get(*at).copied().unwrap_or(&Field::Null);
            if matches!(cell, Field::Null) {
                continue;
            }
            if body.len() > 1 {
                body.push(b',');
            }
            body.extend_from_slice(name);
            write_field(cell, body)?;
        }
        body.push(b'}');
        Ok(())
    }
}

fn write_id(field: &Field, out: &mut Vec<u8>) -> Result<(), &'static str> {
    if let Some(number) = integer(field) {
        out.extend_from_slice(number.to_string().as_bytes());
    } else if let Field::Str(text) = field {
        out.extend_from_slice(text.as_bytes());
    } else if let Field::Bytes(bytes) = field {
        let text = std::str::from_utf8(bytes.data()).map_err(|_| "the id is not UTF-8")?;
        out.extend_from_slice(text.as_bytes());
    } else if matches!(field, Field::Null) {
        return Err("there is no id");
    } else {
        return Err("the id is neither a string nor an integer");
    }
    Ok(())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds of a foreign enum are none"
)]
fn integer(field: &Field) -> Option<i128> {
    Some(match field {
        Field::Byte(number) => i128::from(*number),
        Field::Short(number) => i128::from(*number),
        Field::Int(number) => i128::from(*number),
        Field::Long(number) => i128::from(*number),
        Field::UByte(number) => i128::from(*number),
        Field::UShort(number) => i128::from(*number),
        Field::UInt(number) => i128::from(*number),
        Field::ULong(number) => i128::from(*number),
        _ => return None,
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what has no JSON of its own is its text"
)]
fn write_field(field: &Field, out: &mut Vec<u8>) -> Result<(), &'static str> {
    if let Some(number) = integer(field) {
        out.extend_from_slice(number.to_string().as_bytes());
        return Ok(());
    }
    match field {
        Field::Null => out.extend_from_slice(b"null"),
        Field::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Field::Float(number) => write_float(f64::from(*number), out)?,
        Field::Double(number) => write_float(*number, out)?,
        Field::Str(text) => write_string(text, out),
        Field::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes.data()).map_err(|_| "a field is not UTF-8")?;
            write_string(text, out);
        }
        Field::Date(days) => write_string(&date(*days)?, out),
        Field::TimestampMillis(at) => write_string(&moment(Timestamp::from_millisecond(*at))?, out),
        Field::TimestampMicros(at) => write_string(&moment(Timestamp::from_microsecond(*at))?, out),
        Field::Group(row) => write_object(row, out)?,
        Field::ListInternal(list) => write_list(list.elements(), out)?,
        other => write_string(&other.to_string(), out),
    }
    Ok(())
}

fn write_float(number: f64, out: &mut Vec<u8>) -> Result<(), &'static str> {
    serde_json::Number::from_f64(number)
        .map(|number| out.extend_from_slice(number.to_string().as_bytes()))
        .ok_or("a number is not finite")
}

fn date(days: i32) -> Result<String, &'static str> {
    let day = jiff::civil::date(1970, 1, 1).checked_add(days.days());
    day.map(|day| day.to_string())
        .map_err(|_| "a date is out of range")
}

fn moment(at: Result<Timestamp, jiff::Error>) -> Result<String, &'static str> {
    at.map(|at| at.to_string())
        .map_err(|_| "a time is out of range")
}

fn write_object(row: &Row, out: &mut Vec<u8>) -> Result<(), &'static str> {
    out.push(b'{');
    for (at, (name, field)) in row.get_column_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(name, out);
        out.push(b':');
        write_field(field, out)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_list(elements: &[Field], out: &mut Vec<u8>) -> Result<(), &'static str> {
    out.push(b'[');
    for (at, field) in elements.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_field(field, out)?;
    }
    out.push(b']');
    Ok(())
}
