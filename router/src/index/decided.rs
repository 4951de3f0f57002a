//! Owns the subscriptions that the text of one attribute decides about, or nothing but the type:
//! lists of places by that text, copied as they are.
//!
//! It must never list filters that ask for anything else, since nobody looks at them again. The
//! surprise: nothing is looked at again, so the texts themselves are compared, in `wanted`.

use schemas::event::{AttributeName, Event};
use schemas::filter::Decisive;
use smallvec::SmallVec;

use super::entries::Place;
use super::tenant::Shared;
use super::wanted::TableId;

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
    id: TableId,
    /// How many texts are listed.
    texts: usize,
}

impl Decided {
    pub(super) fn is_empty(&self) -> bool {
        self.every.is_empty() && self.tables.is_empty()
    }

    /// Lists a place, once.
    pub(super) fn insert(&mut self, decisive: &Decisive<'_>, place: Place, shared: &mut Shared) {
        let Shared { wanted, lists, .. } = shared;
        match decisive {
            Decisive::Nothing => self.every.push(place),
            Decisive::Text(attribute, texts) => {
                let at = self.find_table(attribute).unwrap_or_else(|at| {
                    let attribute = AttributeName::clone(attribute);
                    let (id, texts) = (wanted.take_table(), 0);
                    let table = Table {
                        attribute,
                        id,
                        texts,
                    };
                    self.tables.insert(at, table);
                    at
                });
                let Some(table) = self.tables.get_mut(at) else {
                    return;
                };
                for text in texts {
                    let is_new = wanted.add((table.id, text), place, lists);
                    table.texts += usize::from(is_new);
                }
            }
        }
    }

    /// Takes a place back from where it is listed.
    pub(super) fn remove(&mut self, decisive: &Decisive<'_>, place: Place, shared: &mut Shared) {
        let Shared { wanted, lists, .. } = shared;
        match decisive {
            Decisive::Nothing => {
                let at = self.every.iter().position(|other| *other == place);
                at.map(|at| self.every.swap_remove(at));
            }
            Decisive::Text(attribute, texts) => {
                let Ok(at) = self.find_table(attribute) else {
                    return;
                };
                let Some(table) = self.tables.get_mut(at) else {
                    return;
                };
                for text in texts {
                    let is_gone = wanted.remove((table.id, text), place, lists);
                    table.texts -= usize::from(is_gone);
                }
                if table.texts == 0 {
                    wanted.give_back(table.id);
                    self.tables.remove(at);
                }
            }
        }
    }

    /// Adds the places of those who want `event`. Whoever is listed once is added once: an
    /// attribute has one text.
    #[inline]
    pub(super) fn find(&self, event: &Event, shared: &Shared, places: &mut Vec<Place>) {
        places.extend_from_slice(&self.every);
        for table in &self.tables {
            let text = event.get(&table.attribute);
            let wanting = text.and_then(|text| shared.wanted.get(table.id, text));
            if let Some(wanting) = wanting {
                places.extend_from_slice(wanting.of(&shared.lists));
            }
        }
    }

    fn find_table(&self, attribute: &AttributeName) -> Result<usize, usize> {
        self.tables
            .binary_search_by(|table| table.attribute.cmp(attribute))
    }
}
