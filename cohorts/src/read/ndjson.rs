//! Owns reading a JSON object a line. Lines are looked at where they were read, without a copy.

use std::io::Read;

use memchr::memchr;

use super::Rows;
use super::rows::input_error;
use crate::Error;
use crate::member::ROW_BYTES_MAX;

/// Must be more than one row.
const BUFFER_BYTES: usize = 512 << 10;

pub(super) fn read(input: &mut dyn Read, rows: &mut Rows<'_>) -> Result<(), Error> {
    let mut lines = Lines {
        buffer: vec![0; BUFFER_BYTES],
        from: 0,
        to: 0,
        line: 1,
        skips: false,
    };
    loop {
        lines.complete(rows)?;
        if lines.fill(input)? == 0 {
            break;
        }
    }
    let last = lines.buffer.get(lines.from..lines.to).unwrap_or_default();
    if lines.skips {
        Ok(())
    } else {
        row(lines.line, last, rows)
    }
}

struct Lines {
    buffer: Vec<u8>,
    /// What was read and not yet handed on.
    from: usize,
    to: usize,
    line: u64,
    /// The rest of the current line belongs to a row that was refused for its length.
    skips: bool,
}

impl Lines {
    /// Hands on all lines that are there as a whole.
    fn complete(&mut self, rows: &mut Rows<'_>) -> Result<(), Error> {
        loop {
            let rest = self.buffer.get(self.from..self.to).unwrap_or_default();
            let Some(length) = memchr(b'\n', rest) else {
                break;
            };
            if !std::mem::take(&mut self.skips) {
                row(self.line, rest.get(..length).unwrap_or_default(), rows)?;
            }
            self.line += 1;
            self.from += length + 1;
        }
        if self.to - self.from > ROW_BYTES_MAX && !self.skips {
            self.skips = true;
            rows.reject(self.line, "the row is longer than 64 KiB")?;
        }
        if self.skips {
            self.from = self.to;
        }
        Ok(())
    }

    /// Reads more behind what is there.
    fn fill(&mut self, input: &mut dyn Read) -> Result<usize, Error> {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        loop {
            let room = self.buffer.get_mut(self.to..).unwrap_or_default();
            match input.read(room) {
                Ok(bytes) => {
                    self.to += bytes;
                    return Ok(bytes);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(input_error("ndjson", error)),
            }
        }
    }
}

fn row(line: u64, text: &[u8], rows: &mut Rows<'_>) -> Result<(), Error> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok(());
    }
    if text.len() > ROW_BYTES_MAX {
        return rows.reject(line, "the row is longer than 64 KiB");
    }
    rows.object(line, text)
}
