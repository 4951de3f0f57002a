//! The ledger against a naive model: a list of records and a set of completed places. What the
//! model knows and the text does not is a duplicate; what the text knows and the model does not is
//! a loss (rule 6).

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const fn place(offset: i64, index: u16) -> Place {
    Place { offset, index }
}

/// The log, and what is completed of it.
#[derive(Debug, Clone, Default)]
struct Model {
    /// Offset and targets of every record that the log delivers.
    log: Vec<(i64, u16)>,
    completed: BTreeSet<Place>,
    /// What is behind the reader.
    next: i64,
    /// What an open transaction completed.
    moving: Vec<Place>,
}

impl Model {
    fn new(shape: &[(u8, u16)]) -> Self {
        let mut offset = 0;
        let mut log = Vec::new();
        for (gap, targets) in shape {
            offset += i64::from(*gap);
            log.push((offset, *targets));
            offset += 1;
        }
        Self {
            log,
            ..Self::default()
        }
    }

    fn ahead(&self) -> Option<(i64, u16)> {
        self.log
            .iter()
            .copied()
            .find(|(offset, _)| *offset >= self.next)
    }

    fn open_of(&self, offset: i64, targets: u16) -> Vec<u16> {
        let is_open = |index: &u16| !self.completed.contains(&place(offset, *index));
        (0..targets).filter(is_open).collect()
    }

    /// Open places of what has been read.
    fn open(&self) -> Vec<Place> {
        let read = self.log.iter().filter(|(offset, _)| *offset < self.next);
        read.flat_map(|(offset, targets)| {
            let open = self.open_of(*offset, *targets);
            open.into_iter().map(|index| place(*offset, index))
        })
        .collect()
    }

    fn position(&self) -> i64 {
        self.open().first().map_or(self.next, |first| first.offset)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Admit,
    AdmitAgain(Index),
    Complete(Index),
    CompleteAnything(i64, u16),
    Skip(Index),
    Commit,
    Freeze(Vec<Index>),
    Thaw {
        committed: bool,
    },
    /// The owner dies; a transaction on its way may have been committed all the same.
    Crash {
        landed: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>();
    prop_oneof![
        8 => Just(Step::Admit),
        1 => index.prop_map(Step::AdmitAgain),
        10 => any::<Index>().prop_map(Step::Complete),
        1 => (-1_i64..50, 0_u16..5).prop_map(|(offset, index)| Step::CompleteAnything(offset, index)),
        1 => any::<Index>().prop_map(Step::Skip),
        3 => Just(Step::Commit),
        2 => vec(any::<Index>(), 0..4).prop_map(Step::Freeze),
        3 => any::<bool>().prop_map(|committed| Step::Thaw { committed }),
        1 => any::<bool>().prop_map(|landed| Step::Crash { landed }),
    ]
}

/// Records behind gaps; some with more targets than a word has bits.
fn shape() -> impl Strategy<Value = Vec<(u8, u16)>> {
    let gap = prop_oneof![4 => Just(0_u8), 1 => 1_u8..4];
    let targets = prop_oneof![8 => 0_u16..4, 1 => 62_u16..67, 1 => 127_u16..132];
    vec((gap, targets), 1..30)
}

/// What the log keeps with a group: a position, its text, and what was completed then.
#[derive(Debug, Clone)]
struct Saved {
    position: i64,
    text: String,
    completed: BTreeSet<Place>,
}

impl Saved {
    fn of(ledger: &Ledger, model: &Model) -> Self {
        let (position, text) = (ledger.position(), ledger.metadata(None));
        Self {
            position,
            text,
            completed: model.completed.clone(),
        }
    }

    fn resume(&self) -> Ledger {
        Ledger::resume(
            self.position,
            Inherited::decode(self.position, &self.text).unwrap(),
        )
    }
}

struct Run {
    ledger: Ledger,
    model: Model,
    saved: Saved,
    /// What the open transaction commits.
    sent: Option<Saved>,
}

impl Run {
    fn new(shape: &[(u8, u16)]) -> Self {
        let (ledger, model) = (Ledger::resume(0, Inherited::default()), Model::new(shape));
        let saved = Saved::of(&ledger, &model);
        Self {
            ledger,
            model,
            saved,
            sent: None,
        }
    }

    fn step(&mut self, step: &Step) {
        let open = self.model.open();
        let pick = |at: &Index| (!open.is_empty()).then(|| open[at.index(open.len())]);
        match step {
            Step::Admit => self.admit(),
            Step::AdmitAgain(at) if self.model.next > 0 => {
                let below = i64::try_from(at.index(usize::try_from(self.model.next).unwrap()));
                assert!(self.ledger.admit(below.unwrap(), 3).is_empty());
            }
            Step::AdmitAgain(_) => {}
            Step::Complete(at) => {
                if let Some(place) = pick(at) {
                    self.complete(place);
                }
            }
            Step::CompleteAnything(offset, index) => self.complete(place(*offset, *index)),
            Step::Skip(at) => self.skip(*at),
            Step::Commit if self.sent.is_none() => {
                self.saved = Saved::of(&self.ledger, &self.model);
            }
            Step::Freeze(picks) if self.sent.is_none() => {
                self.ledger.freeze();
                let places: BTreeSet<Place> = picks.iter().filter_map(pick).collect();
                for place in &places {
                    self.complete(*place);
                }
                self.model.moving = places.into_iter().collect();
                self.sent = Some(Saved::of(&self.ledger, &self.model));
            }
            Step::Commit | Step::Freeze(_) => {}
            Step::Thaw { committed } => self.thaw(*committed),
            Step::Crash { landed } => self.crash(*landed),
        }
        self.check();
    }

    fn admit(&mut self) {
        let Some((offset, targets)) = self.model.ahead() else {
            return;
        };
        let expected = self.model.open_of(offset, targets);
        assert_eq!(self.ledger.admit(offset, targets), expected, "at {offset}");
        self.model.next = offset + 1;
    }

    fn complete(&mut self, place: Place) {
        let was_open = self.model.open().contains(&place);
        assert_eq!(self.ledger.complete(place), was_open, "{place:?}");
        if was_open {
            self.model.completed.insert(place);
        }
    }

    /// The log loses up to three records ahead, as by retention.
    fn skip(&mut self, at: Index) {
        let until = self.model.next + i64::try_from(at.index(4)).unwrap();
        let next = self.model.next;
        self.model
            .log
            .retain(|(offset, _)| !(next..until).contains(offset));
        self.model.next = until;
        self.ledger.skip_to(until);
    }

    fn thaw(&mut self, committed: bool) {
        let Some(sent) = self.sent.take() else { return };
        let moving = std::mem::take(&mut self.model.moving);
        if committed {
            self.saved = sent;
        } else {
            for place in moving {
                self.ledger.reopen(place);
                self.model.completed.remove(&place);
            }
        }
        self.ledger.thaw();
    }

    fn crash(&mut self, landed: bool) {
        if let Some(sent) = self.sent.take().filter(|_| landed) {
            self.saved = sent;
        }
        self.ledger = self.saved.resume();
        self.model.completed = self.saved.completed.clone();
        self.model.next = self.saved.position;
        self.model.moving.clear();
    }

    fn check(&self) {
        let (ledger, model) = (&self.ledger, &self.model);
        let open = model.open();
        assert_eq!(ledger.position(), model.position());
        assert_eq!(ledger.next(), model.next);
        assert_eq!(ledger.is_empty(), open.is_empty());
        assert_eq!(ledger.is_frozen(), self.sent.is_some());
        assert!(ledger.open_places().eq(open));
        // Whatever is committed now, a new owner that reads on finds exactly what is open.
        let saved = Saved::of(ledger, model);
        let mut resumed = saved.resume();
        for (offset, targets) in model.log.iter().filter(|record| record.0 >= saved.position) {
            let found = resumed.admit(*offset, *targets);
            assert_eq!(
                found,
                model.open_of(*offset, *targets),
                "at {offset}: {saved:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_ledger_says_what_the_model_says(shape in shape(), steps in vec(step(), 1..80)) {
        let mut run = Run::new(&shape);
        for step in &steps {
            run.step(step);
        }
    }

    #[test]
    fn a_new_owner_may_commit_before_it_has_read_all_again(
        shape in shape(),
        done in vec(any::<Index>(), 0..60),
        read in vec(0_usize..30, 1..5),
    ) {
        let mut run = Run::new(&shape);
        for _ in &shape {
            run.step(&Step::Admit);
        }
        for at in &done {
            run.step(&Step::Complete(*at));
        }
        for count in read {
            run.step(&Step::Commit);
            run.step(&Step::Crash { landed: false });
            for _ in 0..count {
                run.step(&Step::Admit);
            }
        }
    }

    #[test]
    fn no_text_panics(text in "[A-Za-z0-9_-]{0,60}", garbage in ".{0,20}", position: i64) {
        for text in [&text, &format!("AQ{text}"), &format!("AQAB{text}"), &garbage] {
            use_it(position, text);
        }
    }

    #[test]
    fn a_changed_text_never_panics(
        shape in shape(),
        done in vec(any::<Index>(), 0..40),
        at in any::<Index>(),
        letter in "[A-Za-z0-9_-]",
        cut in any::<Index>(),
    ) {
        let mut run = Run::new(&shape);
        for _ in &shape {
            run.step(&Step::Admit);
        }
        for at in &done {
            run.step(&Step::Complete(*at));
        }
        let text = run.ledger.metadata(Some(-3));
        let (before, after) = text.split_at(at.index(text.len()));
        let after: String = after.chars().skip(1).collect();
        use_it(run.ledger.position(), &format!("{before}{letter}{after}"));
        use_it(run.ledger.position(), text.split_at(cut.index(text.len())).0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_text_is_never_longer_than_kafka_takes_and_never_loses(
        shape in vec((0_u8..2, prop_oneof![3 => 0_u16..3, 1 => 900_u16..=1_000]), 1..160),
        dense in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let model = Model::new(&shape);
        let mut ledger = Ledger::resume(0, Inherited::default());
        for (offset, targets) in &model.log {
            ledger.admit(*offset, *targets);
        }
        let all: Vec<Place> = ledger.open_places().skip(1).collect();
        let mut state = seed | 1;
        let mut completed = BTreeSet::new();
        for place in all {
            // xorshift
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state.is_multiple_of(2) || (dense && !state.is_multiple_of(5)) {
                ledger.complete(place);
                completed.insert(place);
            }
        }
        let text = ledger.metadata(Some(-1_000));
        prop_assert!(text.len() <= MAX_METADATA_BYTES);
        let position = ledger.position();
        let inherited = Inherited::decode(position, &text).unwrap();
        let mut resumed = Ledger::resume(position, inherited);
        let mut forgotten = 0;
        for (offset, targets) in model.log.iter().filter(|record| record.0 >= position) {
            let found = resumed.admit(*offset, *targets);
            for index in 0..*targets {
                let open = !completed.contains(&place(*offset, index));
                prop_assert!(!open || found.contains(&index), "{offset}/{index} is lost");
                forgotten += usize::from(!open && found.contains(&index));
            }
        }
        // A text that had to forget is still so long that its owner spills.
        prop_assert!(forgotten == 0 || text.len() > MAX_METADATA_BYTES / 4 * 3, "{}", text.len());
    }
}

/// Whatever a text says, an owner can live with it, and what it commits then can be read.
fn use_it(position: i64, text: &str) {
    let Ok(inherited) = Inherited::decode(position, text) else {
        return;
    };
    let mut ledger = Ledger::resume(position, inherited);
    for _ in 0..3 {
        let offset = ledger.next().saturating_add(1).min(i64::MAX - 1);
        for index in ledger.admit(offset, 9) {
            ledger.complete(place(offset, index));
        }
        let text = ledger.metadata(None);
        assert!(text.len() <= MAX_METADATA_BYTES);
        assert!(
            Inherited::decode(ledger.position(), &text).is_ok(),
            "{text}"
        );
    }
}

#[test]
fn a_text_of_version_1_is_read_and_written_for_ever() {
    let mut ledger = Ledger::resume(1_000, Inherited::default());
    for (offset, targets) in [(1_000, 1), (1_001, 1), (1_002, 10), (1_300, 1), (1_301, 2)] {
        ledger.admit(offset, targets);
    }
    for done in [(1_001, 0), (1_002, 0), (1_002, 9), (1_301, 0), (1_301, 1)] {
        ledger.complete(place(done.0, done.1));
    }
    // Version 1; marks 201 - 1 below; 3 stretches: 1001, 1003 to 1299, 1301; one bitmap at 1002.
    let text = "AckBAwEBAakCAQEBAgIBAg";
    assert_eq!(ledger.position(), 1_000);
    assert_eq!(ledger.metadata(Some(800)), text);
    let inherited = Inherited::decode(1_000, text).unwrap();
    assert_eq!(inherited.marks_from(), Some(800));
    let mut resumed = Ledger::resume(1_000, inherited);
    assert_eq!(resumed.admit(1_000, 1), [0]);
    assert_eq!(resumed.admit(1_001, 1), [] as [u16; 0]);
    assert_eq!(resumed.admit(1_002, 10), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(resumed.admit(1_300, 1), [0]);
    assert_eq!(resumed.admit(1_301, 2), [] as [u16; 0]);
}

#[test]
fn marks_begin_below_the_position_or_nowhere() {
    let check = |from: Option<i64>, expected: Option<i64>| {
        let text = Ledger::resume(10, Inherited::default()).metadata(from);
        let inherited = Inherited::decode(10, &text).unwrap();
        assert_eq!(inherited.marks_from(), expected, "{from:?}");
    };
    check(None, None);
    check(Some(0), Some(0));
    check(Some(9), Some(9));
    check(Some(10), None);
    check(Some(11), None);
}

#[test]
fn unusable_texts_are_named() {
    let check = |text: &str, expected: MetadataError| {
        assert_eq!(Inherited::decode(0, text), Err(expected), "{text}");
    };
    assert_eq!(Inherited::decode(0, ""), Ok(Inherited::default()));
    check("Ag", MetadataError::Version(2));
    check("AQ", MetadataError::Malformed);
    check("!", MetadataError::Malformed);
    check("AQAB", MetadataError::Malformed);
}

#[test]
fn what_a_transaction_completed_opens_again_when_it_is_aborted() {
    // rule 6
    let mut ledger = Ledger::resume(0, Inherited::default());
    ledger.admit(0, 1);
    ledger.admit(1, 2);
    ledger.freeze();
    for moved in [place(0, 0), place(1, 0)] {
        assert!(ledger.complete(moved));
    }
    assert_eq!(ledger.position(), 1, "what the transaction commits");
    ledger.reopen(place(0, 0));
    ledger.reopen(place(1, 0));
    ledger.thaw();
    assert_eq!(ledger.position(), 0);
    assert_eq!(ledger.open_places().count(), 3);
}

#[test]
fn a_stamp_tells_texts_apart_that_say_the_same_and_fits() {
    // Every other offset is completed: more than a text can hold.
    let mut ledger = Ledger::resume(0, Inherited::default());
    for offset in 0..20_000 {
        ledger.admit(offset, 1);
    }
    for offset in (1..20_000).step_by(2) {
        ledger.complete(Place { offset, index: 0 });
    }
    let text = ledger.metadata(None);
    ledger.complete(Place {
        offset: 19_998,
        index: 0,
    });
    assert_eq!(ledger.metadata(None), text, "cut before what changed");
    let (one, other) = (stamped(text.clone(), 1), stamped(text.clone(), u64::MAX));
    assert_ne!(one, other);
    assert!(one.len() <= MAX_METADATA_BYTES);
    assert_eq!(unstamped(&one), text);
    assert_eq!(Inherited::decode(0, &one), Inherited::decode(0, &text));
}
