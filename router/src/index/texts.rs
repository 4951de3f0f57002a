//! Owns maps by text of which most have one entry, which lies in the map itself.
//!
//! The surprise: they are large where what they hold is; who has one holds what is in it.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use schemas::filter::Text;

/// Things by text.
#[derive(Debug)]
pub(super) enum Texts<T> {
    One(Text, T),
    Many(HashMap<Text, T, RandomState>),
}

impl<T> Default for Texts<T> {
    fn default() -> Self {
        Self::Many(HashMap::default())
    }
}

impl<T: Default> Texts<T> {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(many) => many.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn get(&self, text: &[u8]) -> Option<&T> {
        match self {
            Self::One(only, thing) => (only.as_bytes() == text).then_some(thing),
            Self::Many(many) => many.get(text),
        }
    }

    /// The thing of a text, which is made where there is none.
    pub(super) fn get_or_default(&mut self, text: &str) -> &mut T {
        if self.is_empty() {
            *self = Self::One(text.into(), T::default());
        }
        if let Self::One(only, _) = self
            && only.as_bytes() != text.as_bytes()
            && let Self::One(only, thing) = std::mem::take(self)
        {
            *self = Self::Many(HashMap::from_iter([(only, thing)]));
        }
        match self {
            Self::One(_, thing) => thing,
            Self::Many(many) => many.entry(text.into()).or_default(),
        }
    }

    pub(super) fn remove(&mut self, text: &str) {
        match self {
            Self::One(only, _) if only.as_bytes() == text.as_bytes() => *self = Self::default(),
            Self::One(..) => {}
            Self::Many(many) => {
                many.remove(text.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against another map.
        #[test]
        fn a_map_holds_what_was_put_there_last(
            steps in prop::collection::vec((0..4_u8, prop::option::of(0..100_u32)), 1..60),
        ) {
            let mut texts: Texts<u32> = Texts::default();
            let mut expected = BTreeMap::new();
            for (text, number) in steps {
                let text = text.to_string();
                match number {
                    Some(number) => {
                        *texts.get_or_default(&text) = number;
                        expected.insert(text, number);
                    }
                    None => {
                        texts.remove(&text);
                        expected.remove(&text);
                    }
                }
                prop_assert_eq!(texts.len(), expected.len());
                prop_assert_eq!(texts.is_empty(), expected.is_empty());
                for text in ["0", "1", "2", "3", "4"] {
                    prop_assert_eq!(texts.get(text.as_bytes()), expected.get(text));
                }
            }
        }
    }
}
