//! Owns what requests that a partner refuses as a whole say of the partner. Pure.
//!
//! Never lets ten million members be sent one by one to a partner that takes none of them: where
//! many requests in a row are refused, only pieces of those are sent, and where single members are
//! refused like them, the run ends. The surprise: until then such a member is refused for now: what
//! nobody gets past says nothing of him.

use schemas::records::ResultVerdict;

/// So many requests in a row are refused before only pieces of them are sent.
const WARY_AFTER: u32 = 20;
/// So many single members in a row are refused after that before the run ends.
const SINGLES_MAX: u32 = 20;
/// So many, where too few requests are to be sent to become wary, and nobody was confirmed.
const SINGLES_MAX_ANYWAY: u32 = 100;
/// Requests at once while only pieces are sent.
pub(super) const PIECES_AT_ONCE: usize = 8;

/// Requests that were refused since the last that was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    wholes: u32,
    singles: u32,
    words: Option<String>,
}

impl Refusals {
    /// A request was answered: of so many members, a piece of another or not.
    pub(super) fn hear(
        &mut self,
        (members, is_piece): (usize, bool),
        verdict: ResultVerdict,
        words: Option<&str>,
    ) {
        match verdict {
            ResultVerdict::Delivered => *self = Self::default(),
            ResultVerdict::Rejected | ResultVerdict::Dead => {
                self.wholes += u32::from(!is_piece);
                self.singles += u32::from(members == 1);
                self.words = words.map(str::to_owned).or(self.words.take());
            }
        }
    }

    /// Whether nothing but pieces of what was refused is to be sent.
    pub(super) fn are_many(&self) -> bool {
        self.wholes >= WARY_AFTER
    }

    /// Whether a member's refusal may be about anybody, in a run that has so many confirmed.
    pub(super) fn are_doubtful(&self, confirmed: u64) -> bool {
        self.are_many() || (confirmed == 0 && self.singles > SINGLES_MAX)
    }

    /// Why the run is to end.
    pub(super) fn verdict(&self, confirmed: u64) -> Option<String> {
        let is_over = (self.are_many() && self.singles >= SINGLES_MAX)
            || (confirmed == 0 && self.singles >= SINGLES_MAX_ANYWAY);
        is_over.then(|| {
            let words = self.words.as_deref().unwrap_or("no words of it are known");
            format!("the partner refuses every member: {words}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: (usize, bool) = (50, false);
    const HALF: (usize, bool) = (25, true);
    const SINGLE: (usize, bool) = (1, true);

    #[track_caller]
    fn check(heard: &[(u32, (usize, bool))], are_many: bool, is_over: bool) {
        let mut refusals = Refusals::default();
        for (times, request) in heard {
            for _ in 0..*times {
                refusals.hear(*request, ResultVerdict::Rejected, Some("403: no"));
            }
        }
        let found = (refusals.are_many(), refusals.verdict(0).is_some());
        assert_eq!(found, (are_many, is_over), "{heard:?}");
        assert_eq!(refusals.verdict(1).is_some(), is_over && are_many);
        refusals.hear(WHOLE, ResultVerdict::Delivered, None);
        assert_eq!(refusals, Refusals::default());
    }

    #[test]
    fn wholes_make_wary_and_singles_end_it() {
        check(&[(19, WHOLE), (99, SINGLE)], false, false);
        check(&[(20, WHOLE), (400, HALF)], true, false);
        check(&[(20, WHOLE), (30, HALF), (19, SINGLE)], true, false);
        check(&[(20, WHOLE), (20, SINGLE)], true, true);
        check(&[(3, WHOLE), (100, SINGLE)], false, true);
    }

    #[test]
    fn the_partners_last_words_are_told() {
        let mut refusals = Refusals::default();
        for number in 0..100 {
            let words = format!("400: {number}");
            let words = (number < 98).then_some(words.as_str());
            refusals.hear(SINGLE, ResultVerdict::Dead, words);
        }
        let told = refusals.verdict(0).unwrap();
        assert_eq!(told, "the partner refuses every member: 400: 97");
    }
}
