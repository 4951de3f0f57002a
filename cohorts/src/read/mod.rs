//! Owns reading members from what people upload: NDJSON, CSV and Parquet, plain, gzip or zstd, with
//! a memory that does not depend on the size. Never decides what becomes of a member.
//!
//! The surprise: a bad row is not an error. It goes to the list of rejects with its line number and
//! reason, and only more than a stated share of them fails the whole.

mod csv;
mod decode;
mod ndjson;
mod parquet;
mod rows;

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::sort::SortOptions;
use crate::{Error, Progress};

pub(crate) use rows::Rows;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// Comma-separated values (RFC 4180) whose first row names the fields. Every value is a string;
    /// an empty cell is a field that the member does not have.
    Csv,
    /// Apache Parquet. A null is a field that the member does not have.
    Parquet,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ndjson" | "jsonl" => Ok(Self::Ndjson),
            "csv" => Ok(Self::Csv),
            "parquet" => Ok(Self::Parquet),
            other => Err(format!("`{other}` is none of `ndjson`, `csv`, `parquet`")),
        }
    }
}

/// How the whole input is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    Plain,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878, one frame or several.
    Zstd,
}

/// How to read an input.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// The format; found out from the first bytes when none is given.
    pub format: Option<Format>,
    /// The compression; found out from the first bytes when none is given.
    pub compression: Option<Compression>,
    /// The field or column that has the member's id.
    pub id_field: String,
    /// What separates the cells of a CSV row.
    pub delimiter: u8,
    /// The share of bad rows that is tolerated, in per cent.
    pub rejects_max_percent: f64,
    /// The most rows that are read.
    pub rows_max: u64,
}

impl Default for ReadOptions {
    /// One bad row in a hundred is a few people's odd data; more is a wrong file. A billion rows
    /// are what the default scratch space holds.
    fn default() -> Self {
        Self {
            format: None,
            compression: None,
            id_field: "id".to_owned(),
            delimiter: b',',
            rejects_max_percent: 1.0,
            rows_max: 1_000_000_000,
        }
    }
}

/// One row that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reject {
    /// Its line in the decompressed input, from 1; for Parquet its row.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// The most rejects that are kept word for word.
pub const REJECTS_KEPT_MAX: usize = 1_000;

/// The rows that were refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejects {
    /// How many there are.
    pub total: u64,
    /// The first [`REJECTS_KEPT_MAX`] of them.
    pub first: Vec<Reject>,
}

impl Rejects {
    /// The first one's line.
    #[must_use]
    pub fn first_line(&self) -> u64 {
        self.first.first().map_or(0, |reject| reject.line)
    }

    /// The first one's reason.
    #[must_use]
    pub fn first_reason(&self) -> &str {
        self.first.first().map_or("", |reject| &reject.reason)
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Rows, good and bad.
    pub(crate) rows: u64,
    pub(crate) rejects: Rejects,
}

/// Where good members go: the id and the canonical fields.
pub(crate) type Take<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), Error> + 'a;

/// Reads all members of `input`, in the order they are there, duplicates included.
pub(crate) fn read(
    input: &mut dyn Read,
    options: &ReadOptions,
    sort: &SortOptions,
    progress: &Progress,
    take: &mut Take<'_>,
) -> Result<Counts, Error> {
    let mut counted = decode::Counted::new(input, progress);
    let (mut decoded, found) = decode::open(&mut counted, options)?;
    let mut rows = Rows::new(options, progress, take);
    match found {
        Format::Ndjson => ndjson::read(&mut decoded, &mut rows)?,
        Format::Csv => csv::read(&mut decoded, &mut rows)?,
        Format::Parquet => {
            let spooled = parquet::spool(&mut decoded, sort)?;
            // The library's own checks do not reach every damaged byte.
            let read = catch_unwind(AssertUnwindSafe(|| parquet::read(spooled, &mut rows)));
            read.map_err(|_| Error::Input("parquet: the file is damaged".to_owned()))??;
        }
    }
    rows.finish()
}

#[cfg(test)]
mod tests;
