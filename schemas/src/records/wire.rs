//! Owns the two primitives of binary records: LEB128 numbers and a bounded reader.

use super::Error;

/// Appends `number` as LEB128, seven bits a byte, low ones first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Appends `number` so that small ones of either sign stay short.
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

/// Appends `bytes` behind their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from the front of a slice; every read is bounded by what is left.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Error::Short(what))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        self.take(N, what)?
            .try_into()
            .map_err(|_| Error::Short(what))
    }

    pub(super) fn varint(&mut self, what: &'static str) -> Result<u64, Error> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Error::Invalid(what));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::Invalid(what))
    }

    pub(super) fn signed(&mut self, what: &'static str) -> Result<i64, Error> {
        let number = self.varint(what)?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// A number that must fit `T`.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, Error> {
        T::try_from(self.varint(what)?).map_err(|_| Error::Invalid(what))
    }

    pub(super) fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Error> {
        let len = self.number(what)?;
        self.take(len, what)
    }

    pub(super) fn text(&mut self, what: &'static str) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| Error::Invalid(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(number: u64, signed: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            put_signed(&mut out, signed);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.varint("a").unwrap(), number);
            prop_assert_eq!(cursor.signed("b").unwrap(), signed);
            prop_assert_eq!(cursor.remaining(), 0);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let mut cursor = Cursor::new(&bytes);
            while cursor.varint("a").is_ok() && cursor.text("b").is_ok() {}
        }
    }
}
