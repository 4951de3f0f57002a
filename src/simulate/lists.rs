//! Owns what the partner holds: each list's members, compactly.
//!
//! It must never hold one twice. The surprise: a member is known by the 128-bit hash of its id and
//! 32 bits of its content's, so that ten million fit in half a gigabyte; texts are kept only where
//! somebody wants to read them.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

/// Parts of a list: none of them grows so much at once that a request waits for it.
const SHARDS: usize = 256;

type Key = [u8; 16];
type Content = [u8; 4];

/// A list.
#[derive(Debug)]
pub(super) struct List {
    shards: Vec<HashMap<Key, Content>>,
    count: u64,
    texts: Option<BTreeMap<String, Box<str>>>,
}

/// What became of a member that was put into a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It was not there.
    New,
    /// It was, with other content.
    Changed,
    /// It was, just so.
    Same,
}

/// What a list holds, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Digest {
    /// How many members.
    pub(super) count: u64,
    /// XXH3-64 of the sorted XXH3-128 (big-endian) of all ids, in hexadecimal.
    pub(super) ids: String,
    /// The same with the low 32 bits of XXH3-64 (big-endian) of the item's JSON behind each id's.
    pub(super) contents: String,
}

impl List {
    /// An empty list, which keeps texts where it is told to.
    pub(super) fn new(keeps_texts: bool) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashMap::new()).collect(),
            count: 0,
            texts: keeps_texts.then(BTreeMap::new),
        }
    }

    /// How many members it holds.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Takes a member.
    pub(super) fn put(&mut self, id: &str, item: &str) -> Put {
        let key = xxh3_128(id.as_bytes()).to_be_bytes();
        let [.., a, b, c, d] = xxh3_64(item.as_bytes()).to_be_bytes();
        let content = [a, b, c, d];
        if let Some(texts) = &mut self.texts {
            texts.insert(id.to_owned(), item.into());
        }
        let before = self
            .shard(&key)
            .and_then(|shard| shard.insert(key, content));
        match before {
            None => {
                self.count += 1;
                Put::New
            }
            Some(before) if before == content => Put::Same,
            Some(_) => Put::Changed,
        }
    }

    /// Drops a member; says whether it was there.
    pub(super) fn drop(&mut self, id: &str) -> bool {
        let key = xxh3_128(id.as_bytes()).to_be_bytes();
        if let Some(texts) = &mut self.texts {
            texts.remove(id);
        }
        let gone = self.shard(&key).and_then(|shard| shard.remove(&key));
        self.count -= u64::from(gone.is_some());
        gone.is_some()
    }

    fn shard(&mut self, key: &Key) -> Option<&mut HashMap<Key, Content>> {
        let [first, ..] = *key;
        self.shards.get_mut(usize::from(first))
    }

    /// What it holds, in short.
    pub(super) fn digest(&self) -> Digest {
        let (mut ids, mut contents) = (Xxh3::new(), Xxh3::new());
        // Shards are in the order of their keys' first bytes.
        for shard in &self.shards {
            let mut sorted: Vec<(&Key, &Content)> = shard.iter().collect();
            sorted.sort_unstable();
            for (key, content) in sorted {
                ids.update(key);
                contents.update(key);
                contents.update(content);
            }
        }
        Digest {
            count: self.count,
            ids: format!("{:016x}", ids.digest()),
            contents: format!("{:016x}", contents.digest()),
        }
    }

    /// Its members' ids and items, in order, where it keeps them.
    pub(super) fn texts(&self) -> Option<impl Iterator<Item = (&str, &str)>> {
        let texts = self.texts.as_ref()?.iter();
        Some(texts.map(|(id, item)| (id.as_str(), &**item)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_each_member_once_with_its_newest_content() {
        let mut list = List::new(true);
        let mut puts = [("a", "1"), ("b", "1"), ("a", "1"), ("a", "2")]
            .into_iter()
            .map(|(id, item)| list.put(id, item));
        let want = [Put::New, Put::New, Put::Same, Put::Changed];
        assert!(puts.by_ref().eq(want));
        drop(puts);
        assert!(list.drop("b") && !list.drop("b"));
        assert_eq!(list.count(), 1);
        let texts: Vec<_> = list.texts().unwrap().collect();
        assert_eq!(texts, [("a", "2")]);
        assert!(List::new(false).texts().is_none());
    }

    #[test]
    fn a_digest_depends_on_members_and_not_on_the_way_there() {
        let ids: Vec<String> = (0..1_000).map(|number| format!("u-{number}")).collect();
        let (mut one, mut two) = (List::new(false), List::new(false));
        for id in &ids {
            one.put(id, "x");
        }
        for id in ids.iter().rev() {
            two.put(id, "y");
            two.put(id, "x");
        }
        two.put("other", "x");
        assert_ne!(one.digest().ids, two.digest().ids);
        two.drop("other");
        assert_eq!(one.digest(), two.digest());
        two.put("u-7", "y");
        assert_eq!(one.digest().ids, two.digest().ids);
        assert_ne!(one.digest().contents, two.digest().contents);
        // As it is documented.
        let mut keys: Vec<Key> = ids
            .iter()
            .map(|id| xxh3_128(id.as_bytes()).to_be_bytes())
            .collect();
        keys.sort_unstable();
        let all = xxh3_64(&keys.concat());
        assert_eq!(one.digest().ids, format!("{all:016x}"));
    }
}
