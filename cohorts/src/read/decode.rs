//! Owns the way from the bytes that came to the bytes that were meant: counting, decompression, and
//! finding out what they are.

use std::io::{self, BufReader, Chain, Cursor, Read};

use super::rows::input_error;
use super::{Compression, Format, ReadOptions};
use crate::{Error, Progress};

const BUFFER_BYTES: usize = 256 << 10;

/// zstd frames may want a window of up to so many bytes (2 to the power): all levels but `--ultra`
/// and `--long` stay below.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;

const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// An error of the reader that we were given, as opposed to one of a decoder on top of it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(#[source] io::Error);

/// Counts what comes, and marks whose fault an error is.
pub(crate) struct Counted<'a> {
    input: &'a mut dyn Read,
    progress: &'a Progress,
}

impl<'a> Counted<'a> {
    pub(crate) fn new(input: &'a mut dyn Read, progress: &'a Progress) -> Self {
        Self { input, progress }
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(to);
        let bytes = read.map_err(|error| {
            // An interrupted read is tried again by whoever asked.
            let again = error.kind() == io::ErrorKind::Interrupted;
            if again {
                error
            } else {
                io::Error::new(error.kind(), Broken(error))
            }
        })?;
        self.progress.add_bytes(bytes as u64);
        Ok(bytes)
    }
}

pub(crate) type Decoded<'a> = Chain<Cursor<Vec<u8>>, Box<dyn Read + 'a>>;

/// Opens what was uploaded: decompressed, without a byte order mark, its format known.
pub(crate) fn open<'a>(
    input: &'a mut Counted<'_>,
    options: &ReadOptions,
) -> Result<(Decoded<'a>, Format), Error> {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    let head = peek(&mut input).map_err(|error| input_error("the input", error))?;
    let compression = options.compression.unwrap_or_else(|| compression_of(&head));
    let whole = Cursor::new(head).chain(input);
    let mut decoded: Box<dyn Read + 'a> = match compression {
        Compression::Plain => Box::new(whole),
        Compression::Gzip => {
            let decoder = flate2::bufread::MultiGzDecoder::new(whole);
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
        Compression::Zstd => {
            let opened = zstd::stream::read::Decoder::with_buffer(whole).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Ok(decoder)
            });
            Box::new(opened.map_err(|error| input_error("zstd", error))?)
        }
    };
    let mut head = peek(&mut decoded).map_err(|error| input_error(name(compression), error))?;
    let format = options.format.unwrap_or_else(|| format_of(&head));
    if format != Format::Parquet && head.starts_with(&MARK) {
        head.drain(..MARK.len());
    }
    Ok((Cursor::new(head).chain(decoded), format))
}

fn name(compression: Compression) -> &'static str {
    match compression {
        Compression::Plain => "the input",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    }
}

/// Reads the first bytes, as many as it takes to know what follows.
fn peek(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    input.take(512).read_to_end(&mut head)?;
    Ok(head)
}

fn compression_of(head: &[u8]) -> Compression {
    if head.starts_with(&[0x1f, 0x8b]) {
        Compression::Gzip
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Compression::Zstd
    } else {
        Compression::Plain
    }
}

fn format_of(head: &[u8]) -> Format {
    let text = head.strip_prefix(&MARK).unwrap_or(head).trim_ascii_start();
    if head.starts_with(b"PAR1") {
        Format::Parquet
    } else if text.is_empty() || text.starts_with(b"{") {
        Format::Ndjson
    } else {
        Format::Csv
    }
}
