//! Owns the packed form of a record's headers: one buffer, whatever their number.

use bytes::{BufMut, Bytes, BytesMut};

/// A record's headers in order. A name may repeat. Cloning is cheap.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    // (name length: u16, value length: u32, name, value)*
    packed: Bytes,
}

impl Headers {
    /// A builder with no headers.
    pub fn builder() -> HeadersBuilder {
        HeadersBuilder {
            packed: BytesMut::new(),
        }
    }

    /// The headers in order. Values share this record's buffer.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone + '_ {
        let mut rest: &[u8] = &self.packed;
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_at_checked(6)?;
            let name_len = usize::from(u16::from_be_bytes(head.get(..2)?.try_into().ok()?));
            let value_len = u32::from_be_bytes(head.get(2..6)?.try_into().ok()?) as usize;
            let (name, tail) = tail.split_at_checked(name_len)?;
            let (value, tail) = tail.split_at_checked(value_len)?;
            rest = tail;
            Some((std::str::from_utf8(name).ok()?, value))
        })
    }

    /// The first value named `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find_map(|(found, value)| (found == name).then_some(value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// The bytes that names and values take, with six for each pair.
    pub fn len_bytes(&self) -> usize {
        self.packed.len()
    }

    /// The packed form, for a log that stores headers itself.
    pub fn as_packed(&self) -> &Bytes {
        &self.packed
    }

    /// Takes the packed form back; what is cut short is left out by [`Headers::iter`].
    pub fn from_packed(packed: Bytes) -> Self {
        Self { packed }
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(name, value)| (name, String::from_utf8_lossy(value))),
            )
            .finish()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut builder = Self::builder();
        for (name, value) in pairs {
            builder.push(name.as_ref(), value.as_ref());
        }
        builder.build()
    }
}

/// Builds [`Headers`].
#[derive(Debug)]
pub struct HeadersBuilder {
    packed: BytesMut,
}

impl HeadersBuilder {
    /// Appends a header. A name over 65,535 bytes or a value over 4 GiB is left out: no log takes
    /// either.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u32::try_from(value.len()))
        else {
            return;
        };
        self.packed.reserve(6 + name.len() + value.len());
        let ([n0, n1], [v0, v1, v2, v3]) = (name_len.to_be_bytes(), value_len.to_be_bytes());
        self.packed.put_slice(&[n0, n1, v0, v1, v2, v3]);
        self.packed.put_slice(name.as_bytes());
        self.packed.put_slice(value);
    }

    /// The headers pushed so far; the builder goes on with none, in the same memory. For many
    /// records at once.
    pub fn take(&mut self) -> Headers {
        Headers {
            packed: self.packed.split().freeze(),
        }
    }

    /// Makes room for `bytes` of names and values, six more for each pair.
    pub fn reserve(&mut self, bytes: usize) {
        self.packed.reserve(bytes);
    }

    /// The headers.
    pub fn build(self) -> Headers {
        Headers {
            packed: self.packed.freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_in_order_with_repeats_and_empty_values() {
        let pairs = [
            ("ce_id", &b"1"[..]),
            ("a", b""),
            ("a", b"\xff\x00"),
            ("", b"x"),
        ];
        let headers: Headers = pairs.into_iter().collect();
        assert_eq!(headers.iter().collect::<Vec<_>>(), pairs);
        assert_eq!(headers.get("a"), Some(&b""[..]));
        assert_eq!(headers.get("b"), None);
        assert_eq!(Headers::from_packed(headers.as_packed().clone()), headers);
    }

    #[test]
    fn one_builder_makes_the_headers_of_many_records() {
        let mut builder = Headers::builder();
        builder.reserve(64);
        builder.push("a", b"1");
        let one = builder.take();
        builder.push("b", b"2");
        let two = builder.take();
        assert_eq!(one.iter().collect::<Vec<_>>(), [("a", &b"1"[..])]);
        assert_eq!(two.iter().collect::<Vec<_>>(), [("b", &b"2"[..])]);
        assert!(builder.take().is_empty());
    }

    #[test]
    fn a_packed_form_that_is_cut_short_yields_the_whole_headers_before_the_cut() {
        let headers: Headers = [("ab", "cd"), ("ef", "gh")].into_iter().collect();
        for cut in 0..headers.len_bytes() {
            let short = Headers::from_packed(headers.as_packed().slice(..cut));
            assert_eq!(short.iter().count(), cut / 10);
        }
    }
}
