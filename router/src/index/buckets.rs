//! Owns a tenant's buckets: which of them an event's type leads to, and which one filters belong to.
//!
//! It must never lead an event to a bucket of other types, nor to two that list the same filters.
//! The surprise: what begins alike is told apart by the lengths of the prefixes in use, and so
//! looked up as the type itself is.

use schemas::filter::Filters;

use super::bucket::Bucket;
use super::texts::Texts;

/// Types are told apart by so many bytes of what they begin with.
const PREFIX_BYTES_MAX: usize = 64;

/// The buckets that are not empty.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    by_type: Texts<Bucket>,
    /// Few tenants have any.
    wider: Option<Box<Wider>>,
}

/// Those of more than one type.
#[derive(Debug, Default)]
struct Wider {
    by_prefix: Texts<Bucket>,
    /// How long the prefixes are, each with how many there are of it.
    prefix_lengths: Vec<(usize, usize)>,
    any_type: Bucket,
}

/// Where filters are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Home {
    Type(Box<str>),
    Prefix(Box<str>),
    Any,
}

/// Where these filters are listed: no event comes to two of their homes.
pub(super) fn homes(filters: &Filters) -> Vec<Home> {
    if let Some(types) = filters.required_types() {
        return types.into_iter().map(|ty| Home::Type(ty.into())).collect();
    }
    let cut = |prefix: &str| {
        let end = prefix.floor_char_boundary(PREFIX_BYTES_MAX);
        prefix.get(..end).unwrap_or_default().into()
    };
    let prefix = filters.required_type_prefix();
    vec![prefix.map_or(Home::Any, |prefix| Home::Prefix(cut(prefix)))]
}

impl Buckets {
    /// Those that events of this type come to.
    #[inline]
    pub(super) fn of<'a>(&'a self, ty: &'a str) -> impl Iterator<Item = &'a Bucket> {
        let wider = self.wider.iter().flat_map(|wider| wider.of(ty));
        self.by_type.get(ty.as_bytes()).into_iter().chain(wider)
    }

    /// Changes the bucket of a home, which is made where there is none, and dropped where nothing
    /// is left in it.
    pub(super) fn change<T>(&mut self, home: &Home, change: impl FnOnce(&mut Bucket) -> T) -> T {
        if let Home::Type(ty) = home {
            return change_in(&mut self.by_type, ty, change).0;
        }
        let wider = self.wider.get_or_insert_default();
        let answer = wider.change(home, change);
        if wider.by_prefix.is_empty() && wider.any_type.is_empty() {
            self.wider = None;
        }
        answer
    }
}

impl Wider {
    fn of<'a>(&'a self, ty: &'a str) -> impl Iterator<Item = &'a Bucket> {
        let prefix = |(length, _): &(usize, usize)| ty.as_bytes().get(..*length);
        let prefixes = self.prefix_lengths.iter().filter_map(prefix);
        let prefixes = prefixes.filter_map(|prefix| self.by_prefix.get(prefix));
        let any = (!self.any_type.is_empty()).then_some(&self.any_type);
        prefixes.chain(any)
    }

    fn change<T>(&mut self, home: &Home, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let (Home::Prefix(prefix) | Home::Type(prefix)) = home else {
            return change(&mut self.any_type);
        };
        let before = self.by_prefix.len();
        let (answer, after) = change_in(&mut self.by_prefix, prefix, change);
        if after > before {
            count_up(&mut self.prefix_lengths, prefix.len());
        }
        if after < before {
            count_down(&mut self.prefix_lengths, prefix.len());
        }
        answer
    }
}

/// Changes a bucket; says how many there are then.
fn change_in<T>(
    buckets: &mut Texts<Bucket>,
    name: &str,
    change: impl FnOnce(&mut Bucket) -> T,
) -> (T, usize) {
    let bucket = buckets.get_or_default(name);
    let answer = change(bucket);
    if bucket.is_empty() {
        buckets.remove(name);
    }
    (answer, buckets.len())
}

fn count_up(lengths: &mut Vec<(usize, usize)>, length: usize) {
    match lengths.iter_mut().find(|(known, _)| *known == length) {
        Some((_, count)) => *count += 1,
        None => lengths.push((length, 1)),
    }
}

fn count_down(lengths: &mut Vec<(usize, usize)>, length: usize) {
    if let Some((_, count)) = lengths.iter_mut().find(|(known, _)| *known == length) {
        *count -= 1;
    }
    lengths.retain(|(_, count)| *count > 0);
}
