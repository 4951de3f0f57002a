//! Owns the subscriptions that the text of one attribute decides about, or nothing but the type:
//! lists of places by that text, copied as they are.
//!
//! It must never list filters that ask for anything else, since nobody looks at them again. The
//! surprise: texts are kept here and compared, so that a shared hash names nobody wrongly.

use schemas::event::{AttributeName, Event};
use schemas::filter::Decisive;
use smallvec::SmallVec;

use super::entries::Place;
use super::lists::{List, Lists};
use super::texts::Texts;

/// Places of subscriptions, by what decides about them.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// Those who want every event that comes here.
    every: Vec<Place>,
    /// By attribute, in the order of their names.
    tables: SmallVec<[Table; 1]>,
}

/// Places by the text of one attribute.
#[derive(Debug)]
struct Table {
    attribute: AttributeName,
    texts: Texts<List>,
}

impl Decided {
    pub(super) fn is_empty(&self) -> bool {
        self.every.is_empty() && self.tables.is_empty()
    }

    /// Lists a place, once.
    pub(super) fn insert(&mut self, decisive: &Decisive<'_>, place: Place, lists: &mut Lists) {
        match decisive {
            Decisive::Nothing => self.every.push(place),
            Decisive::Text(attribute, texts) => {
                let at = self.find_table(attribute).unwrap_or_else(|at| {
                    let attribute = AttributeName::clone(attribute);
                    let texts = Texts::default();
                    self.tables.insert(at, Table { attribute, texts });
                    at
                });
                let Some(table) = self.tables.get_mut(at) else {
                    return;
                };
                for text in texts {
                    let list = table.texts.get_or_default(text);
                    list.add(place, lists);
                }
            }
        }
    }

    /// Takes a place back from where it is listed.
    pub(super) fn remove(&mut self, decisive: &Decisive<'_>, place: Place, lists: &mut Lists) {
        match decisive {
            Decisive::Nothing => {
                let at = self.every.iter().position(|other| *other == place);
                at.map(|at| self.every.swap_remove(at));
            }
            Decisive::Text(attribute, texts) => {
                let Ok(at) = self.find_table(attribute) else {
                    return;
                };
                let Some(Table { texts: table, .. }) = self.tables.get_mut(at) else {
                    return;
                };
                for text in texts {
                    let places = table.get_or_default(text);
                    places.remove(place, lists);
                    if places.is_empty() {
                        table.remove(text);
                    }
                }
                if table.is_empty() {
                    self.tables.remove(at);
                }
            }
        }
    }

    /// Adds the places of those who want `event`. Whoever is listed once is added once: an
    /// attribute has one text.
    #[inline]
    pub(super) fn find(&self, event: &Event, lists: &Lists, places: &mut Vec<Place>) {
        places.extend_from_slice(&self.every);
        for table in &self.tables {
            let text = event.get(&table.attribute);
            if let Some(wanting) = text.and_then(|text| table.texts.get(text.as_bytes())) {
                places.extend_from_slice(wanting.of(lists));
            }
        }
    }

    fn find_table(&self, attribute: &AttributeName) -> Result<usize, usize> {
        self.tables
            .binary_search_by(|table| table.attribute.cmp(attribute))
    }
}
