//! Owns what all formats share: bounds, rejects, and handing a good row on.

use std::io;

use super::decode::Broken;
use super::{Counts, REJECTS_KEPT_MAX, ReadOptions, Reject, Rejects, Take};
use crate::member::{ROW_BYTES_MAX, check_id};
use crate::scan::Scan;
use crate::{Error, Progress};

/// How often the share of rejects is looked at before the end, and watchers are told.
const ROWS_BETWEEN_LOOKS: u64 = 4_096;

/// An upload with fewer rows is judged at its end alone.
const ROWS_BEFORE_GIVING_UP: u64 = 100_000;

pub(crate) struct Rows<'a> {
    pub(crate) options: &'a ReadOptions,
    progress: &'a Progress,
    take: &'a mut Take<'a>,
    scan: Scan,
    id: Vec<u8>,
    pub(crate) body: Vec<u8>,
    rows: u64,
    rejects: Rejects,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(
        options: &'a ReadOptions,
        progress: &'a Progress,
        take: &'a mut Take<'a>,
    ) -> Self {
        Self {
            options,
            progress,
            take,
            scan: Scan::default(),
            id: Vec::new(),
            body: Vec::new(),
            rows: 0,
            rejects: Rejects::default(),
        }
    }

    /// A row that is a JSON object, as it was written.
    pub(crate) fn object(&mut self, line: u64, text: &[u8]) -> Result<(), Error> {
        match self.canonical(text) {
            Ok(()) => self.hand_on(line),
            Err(reason) => self.reject(line, reason),
        }
    }

    /// A row whose canonical fields are in `body` already.
    pub(crate) fn member(&mut self, line: u64, id: &[u8]) -> Result<(), Error> {
        self.id.clear();
        self.id.extend_from_slice(id);
        self.hand_on(line)
    }

    /// Reads `text` into `id` and `body`.
    fn canonical(&mut self, text: &[u8]) -> Result<(), &'static str> {
        std::str::from_utf8(text).map_err(|_| "not UTF-8")?;
        self.scan.object(text)?;
        let name = self.options.id_field.as_bytes();
        let id = self.scan.get(text, name).ok_or("there is no id")?;
        self.id.clear();
        id.write_id(&mut self.id)?;
        if name != b"id" && self.scan.get(text, b"id").is_some() {
            return Err("there is a field `id` beside the one that has the id");
        }
        self.body.clear();
        self.scan
            .write_canonical(text, |field| field != name, &mut self.body);
        Ok(())
    }

    fn hand_on(&mut self, line: u64) -> Result<(), Error> {
        if let Err(reason) = check_id(&self.id) {
            return self.reject(line, reason);
        }
        if self.id.len() + self.body.len() > ROW_BYTES_MAX {
            return self.reject(line, "the row is longer than 64 KiB");
        }
        self.count()?;
        (self.take)(&self.id, &self.body)
    }

    pub(crate) fn reject(&mut self, line: u64, reason: &str) -> Result<(), Error> {
        self.rejects.total += 1;
        if self.rejects.first.len() < REJECTS_KEPT_MAX {
            self.rejects.first.push(Reject {
                line,
                reason: reason.to_owned(),
            });
        }
        self.count()
    }

    fn count(&mut self) -> Result<(), Error> {
        self.rows += 1;
        if self.rows > self.options.rows_max {
            let limit = format!("{} rows", self.options.rows_max);
            return Err(Error::Limit {
                what: "the input".to_owned(),
                limit,
            });
        }
        if !self.rows.is_multiple_of(ROWS_BETWEEN_LOOKS) {
            return Ok(());
        }
        self.progress.set_rows(self.rows, self.rejects.total);
        self.progress.check()?;
        if self.rows >= ROWS_BEFORE_GIVING_UP {
            self.judge()
        } else {
            Ok(())
        }
    }

    fn judge(&self) -> Result<(), Error> {
        let share = per_cent(self.rejects.total, self.rows);
        if share <= self.options.rejects_max_percent {
            return Ok(());
        }
        Err(Error::TooManyRejects {
            rows: self.rows,
            allowed_percent: self.options.rejects_max_percent,
            rejects: Box::new(self.rejects.clone()),
        })
    }

    pub(crate) fn finish(self) -> Result<Counts, Error> {
        self.progress.set_rows(self.rows, self.rejects.total);
        self.judge()?;
        Ok(Counts {
            rows: self.rows,
            rejects: self.rejects,
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share of rows needs no more than a double has"
)]
fn per_cent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

/// Tells a caller's broken reader from bytes that are not what they claim to be.
pub(crate) fn input_error(what: &str, error: io::Error) -> Error {
    let broken = error.get_ref().is_some_and(|inner| inner.is::<Broken>());
    if broken {
        Error::Reading(error)
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        Error::Input(format!("{what}: it ends too early"))
    } else {
        Error::Input(format!("{what}: {error}"))
    }
}
