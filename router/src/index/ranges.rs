//! Owns ranges of numbers: which of them hold a given one.
//!
//! It must never miss a range; ends belong to it. The surprise: ranges are sorted among those about
//! as wide as they are, so that a wide one is not in the way of finding many narrow ones.

use smallvec::SmallVec;

use super::keys::LineId;
use super::operands::Value;

/// Ranges of one piece of a sorted list.
const PIECE: usize = 64;
/// So many of all values together are one list.
const FEW: usize = 16;
/// So many lie beside what else is read of their bucket.
const NEAR: usize = 2;

/// Ranges of several values, each with its rule.
#[derive(Debug)]
pub(super) enum Spans {
    Few(SmallVec<[(Value, Range); NEAR]>),
    Many(Vec<(Value, Ranges)>),
}

/// Ranges of numbers, each with its rule.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// By kind and width.
    classes: Vec<(Class, Sorted)>,
    count: usize,
}

/// Which ranges are in one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Those without an end. What has no beginning is its mirror image.
    Above,
    Below,
    /// Those whose width has this binary exponent, biased.
    Wide(u64),
}

/// Ranges by where they begin, in pieces.
#[derive(Debug, Default)]
struct Sorted {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    /// The least beginning and the greatest end.
    low: f64,
    high: f64,
    ranges: Vec<Range>,
}

/// A range of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    low: f64,
    high: f64,
    rule: LineId,
}

impl Class {
    fn of(low: f64, high: f64) -> Self {
        if high.is_infinite() {
            Self::Above
        } else if low.is_infinite() {
            Self::Below
        } else {
            Self::Wide((high - low).max(0.0).to_bits() >> 52)
        }
    }

    /// More than the width of any of its ranges, rounding included.
    fn span(self) -> f64 {
        match self {
            Self::Above | Self::Below => f64::INFINITY,
            Self::Wide(exponent) if exponent + 2 < 0x7ff => f64::from_bits((exponent + 2) << 52),
            Self::Wide(_) => f64::INFINITY,
        }
    }

    fn range(self, low: f64, high: f64, rule: LineId) -> Range {
        match self {
            Self::Above | Self::Wide(_) => Range { low, high, rule },
            Self::Below => Range {
                low: -high,
                high: f64::INFINITY,
                rule,
            },
        }
    }

    fn point(self, number: f64) -> f64 {
        match self {
            Self::Above | Self::Wide(_) => number,
            Self::Below => -number,
        }
    }
}

impl Range {
    fn holds(&self, number: f64) -> bool {
        self.low <= number && number <= self.high
    }
}

impl Default for Spans {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Spans {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    /// Adds the range between two numbers, neither of which is NaN.
    pub(super) fn insert(&mut self, value: Value, (low, high): (f64, f64), rule: LineId) {
        if let Self::Few(few) = self
            && few.len() >= FEW
        {
            let mut many = Vec::new();
            for (value, range) in few.drain(..) {
                let Range { low, high, rule } = range;
                change(&mut many, value, |ranges| ranges.insert(low, high, rule));
            }
            *self = Self::Many(many);
        }
        match self {
            Self::Few(few) => few.push((value, Range { low, high, rule })),
            Self::Many(many) => change(many, value, |ranges| ranges.insert(low, high, rule)),
        }
    }

    pub(super) fn remove(&mut self, value: Value, (low, high): (f64, f64), rule: LineId) {
        match self {
            Self::Few(few) => {
                let item = (value, Range { low, high, rule });
                let place = few.iter().position(|other| *other == item);
                place.map(|place| few.swap_remove(place));
            }
            Self::Many(many) => {
                change(many, value, |ranges| ranges.remove(low, high, rule));
                if many.is_empty() {
                    *self = Self::default();
                }
            }
        }
    }

    /// How many ranges of a value there are.
    pub(super) fn count(&self, value: Value) -> usize {
        match self {
            Self::Few(few) => few.iter().filter(|(other, _)| *other == value).count(),
            Self::Many(many) => find(many, value).map_or(0, Ranges::len),
        }
    }

    /// Whether a value has any.
    #[inline]
    pub(super) fn has(&self, value: Value) -> bool {
        match self {
            Self::Few(few) => few.iter().any(|(other, _)| *other == value),
            Self::Many(many) => find(many, value).is_some(),
        }
    }

    /// Calls `visit` with the rule of each range of a value that holds `number`, which is not NaN.
    pub(super) fn each(&self, value: Value, number: f64, mut visit: impl FnMut(LineId)) {
        match self {
            Self::Few(few) => {
                for (other, range) in few {
                    if *other == value && range.holds(number) {
                        visit(range.rule);
                    }
                }
            }
            Self::Many(many) => {
                if let Some(ranges) = find(many, value) {
                    ranges.each(number, visit);
                }
            }
        }
    }
}

fn find(many: &[(Value, Ranges)], value: Value) -> Option<&Ranges> {
    let found = many.iter().find(|(other, _)| *other == value);
    found.map(|(_, ranges)| ranges)
}

/// Changes the ranges of a value, which are made where there are none, and dropped where none is
/// left.
fn change(many: &mut Vec<(Value, Ranges)>, value: Value, change: impl FnOnce(&mut Ranges)) {
    match many.iter_mut().find(|(other, _)| *other == value) {
        Some((_, ranges)) => change(ranges),
        None => {
            let mut ranges = Ranges::default();
            change(&mut ranges);
            many.push((value, ranges));
        }
    }
    many.retain(|(_, ranges)| ranges.len() > 0);
}

impl Ranges {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds the range from `low` to `high`, neither of which is NaN.
    pub(super) fn insert(&mut self, low: f64, high: f64, rule: LineId) {
        let class = Class::of(low, high);
        let known = self.classes.iter().position(|(other, _)| *other == class);
        let place = known.unwrap_or_else(|| {
            self.classes.push((class, Sorted::default()));
            self.classes.len() - 1
        });
        if let Some((_, sorted)) = self.classes.get_mut(place) {
            sorted.insert(class.range(low, high, rule));
            self.count += 1;
        }
    }

    pub(super) fn remove(&mut self, low: f64, high: f64, rule: LineId) {
        let class = Class::of(low, high);
        let Some(place) = self.classes.iter().position(|(other, _)| *other == class) else {
            return;
        };
        let Some((_, sorted)) = self.classes.get_mut(place) else {
            return;
        };
        if sorted.remove(class.range(low, high, rule)) {
            self.count -= 1;
        }
        if sorted.pieces.is_empty() {
            self.classes.swap_remove(place);
        }
    }

    /// Calls `visit` with the rule of each range that holds `number`, which is not NaN.
    pub(super) fn each(&self, number: f64, mut visit: impl FnMut(LineId)) {
        for (class, sorted) in &self.classes {
            sorted.each(class.point(number), class.span(), &mut visit);
        }
    }
}

impl Sorted {
    /// The piece in which a range that begins at `low` may first be.
    fn first(&self, low: f64) -> usize {
        let before = self.pieces.partition_point(|piece| piece.low < low);
        before.saturating_sub(1)
    }

    fn insert(&mut self, range: Range) {
        let after = self.pieces.partition_point(|piece| piece.low <= range.low);
        let place = after.saturating_sub(1);
        let Some(piece) = self.pieces.get_mut(place) else {
            self.pieces.push(Piece::of(vec![range]));
            return;
        };
        let at = piece.ranges.partition_point(|other| other.low <= range.low);
        piece.ranges.insert(at, range);
        piece.low = piece.low.min(range.low);
        piece.high = piece.high.max(range.high);
        if piece.ranges.len() > PIECE {
            let behind = piece.ranges.split_off(PIECE / 2);
            let before = std::mem::take(&mut piece.ranges);
            *piece = Piece::of(before);
            self.pieces.insert(place + 1, Piece::of(behind));
        }
    }

    fn remove(&mut self, range: Range) -> bool {
        for place in self.first(range.low)..self.pieces.len() {
            let Some(piece) = self.pieces.get_mut(place) else {
                break;
            };
            if piece.low > range.low {
                break;
            }
            if let Some(at) = piece.ranges.iter().position(|other| *other == range) {
                piece.ranges.remove(at);
                if piece.ranges.is_empty() {
                    self.pieces.remove(place);
                } else {
                    let ranges = std::mem::take(&mut piece.ranges);
                    *piece = Piece::of(ranges);
                }
                return true;
            }
        }
        false
    }

    fn each(&self, number: f64, span: f64, visit: &mut impl FnMut(LineId)) {
        let from = self.first(number - span);
        for piece in self.pieces.iter().skip(from) {
            if piece.low > number {
                break;
            }
            if piece.high < number {
                continue;
            }
            for range in &piece.ranges {
                if range.holds(number) {
                    visit(range.rule);
                }
            }
        }
    }
}

impl Piece {
    fn of(ranges: Vec<Range>) -> Self {
        let low = ranges.iter().map(|range| range.low);
        let high = ranges.iter().map(|range| range.high);
        Self {
            low: low.fold(f64::INFINITY, f64::min),
            high: high.fold(f64::NEG_INFINITY, f64::max),
            ranges,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn end() -> impl Strategy<Value = f64> {
        let small = (-40_i32..40).prop_map(|number| f64::from(number) / 4.0);
        let edge = prop::sample::select(vec![-0.0, 0.0, 1e300, -1e300, f64::MAX, f64::MIN, 1e-300]);
        prop_oneof![6 => small, 1 => edge]
    }

    fn range() -> impl Strategy<Value = (f64, f64)> {
        (end(), end(), 0..6).prop_map(|(low, high, kind)| match kind {
            0 => (low, f64::INFINITY),
            1 => (f64::NEG_INFINITY, high),
            // An empty range is one too.
            _ => (low, high),
        })
    }

    proptest! {
        #[test]
        fn ranges_hold_what_looking_at_each_finds(
            ranges in prop::collection::vec(range(), 0..300),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
            numbers in prop::collection::vec(end(), 1..20),
        ) {
            let mut indexed = Ranges::default();
            let mut naive: Vec<(f64, f64, LineId)> = Vec::new();
            for (rule, (low, high)) in (0..).zip(ranges) {
                indexed.insert(low, high, rule);
                naive.push((low, high, rule));
            }
            for index in removed {
                if !naive.is_empty() {
                    let (low, high, rule) = naive.swap_remove(index.index(naive.len()));
                    indexed.remove(low, high, rule);
                }
            }
            prop_assert_eq!(indexed.len(), naive.len());
            for number in numbers.into_iter().chain([f64::INFINITY, f64::NEG_INFINITY]) {
                let mut found = Vec::new();
                indexed.each(number, |rule| found.push(rule));
                let holds = |(low, high, _): &&(f64, f64, LineId)| *low <= number && number <= *high;
                let expected: BTreeSet<_> = naive.iter().filter(holds).map(|range| range.2).collect();
                prop_assert_eq!(found.len(), expected.len());
                prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
            }
        }
    }
}
