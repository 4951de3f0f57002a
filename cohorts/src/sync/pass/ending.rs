//! Owns the end of a pass that is to stop: how long it waits for what is on its way, and what
//! becomes of that afterwards.
//!
//! Never forgets who may be at the partner: whoever was in a chunk of which nothing was heard is
//! unknown. The surprise: a partner's own jobs are waited for to their end, as they change its list
//! whatever becomes of the run.

use std::collections::VecDeque;

use super::{Flying, Pass, Ready};
use crate::sync::Fault;

impl Pass<'_> {
    /// Nothing new is made, and what is on its way is waited for.
    pub(super) fn is_stopped(&self) -> bool {
        self.run.stop.is_some() && !self.is_resuming
    }

    /// Of a run that is stopped, what was never written is left out, and forgotten: nobody waits
    /// for a report of it. What may be in the log is seen through.
    pub(super) fn leave_out(&mut self) {
        if self.run.stop.is_none() || self.ready.iter().all(|ready| ready.is_tried) {
            return;
        }
        let all = std::mem::take(&mut self.ready).into_iter();
        let (tried, left): (VecDeque<Ready>, VecDeque<Ready>) =
            all.partition(|ready| ready.is_tried);
        for Ready { chunk, .. } in left {
            self.ledger.settle(&chunk);
            self.bytes = self.bytes.saturating_sub(chunk.held_bytes());
        }
        self.ready = tried;
        self.dirty = true;
    }

    /// What is on its way has been waited for long enough.
    pub(super) fn gives_up(&self) -> bool {
        let until = self.run.stop_until;
        until.is_some_and(|until| until <= self.runner.means.clock.now())
    }

    /// Until when it is waited for; none while the run goes on.
    pub(super) fn follow_stop(&mut self) {
        let means = &self.runner.means;
        if self
            .run
            .bound_stop(means.clock.now(), means.bounds.stop_wait)
        {
            self.dirty = true;
        }
    }

    /// Makes the chunks of which nothing was heard late ones.
    pub(super) fn give_up(&mut self) -> Result<(), Fault> {
        if !self.gives_up() {
            return Ok(());
        }
        let is_chunk = |flying: &Flying| flying.poll.is_none();
        let waiting = self.flying.iter().filter(|(_, flying)| is_chunk(flying));
        let waiting: Vec<u128> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            if let Some(flying) = self.flying.remove(&id) {
                self.leave(id, &flying);
            }
        }
        let life = self.runner.life_ms(&self.sync);
        while let Some(ready) = self.ready.pop_front() {
            if !ready.is_tried {
                continue;
            }
            let made = match ready.made {
                Some(made) => made,
                None => self.maker.chunk(&ready.chunk, self.at())?,
            };
            let flying = Flying {
                chunk: ready.chunk,
                refused: made.refused,
                expires_at: self.runner.means.clock.now().saturating_add(life),
                poll: None,
            };
            match self.ears.early.remove(&made.id) {
                Some(report) => self.conclude(flying, report),
                None => self.leave(made.id, &flying),
            }
        }
        Ok(())
    }

    fn leave(&mut self, id: u128, flying: &Flying) {
        // What is put into a job that was started is of no effect once that job has run.
        if self.run.jobs.is_empty() {
            self.runner.note.late.leave(id, flying.expires_at);
        }
        self.settle_unknown(flying, true);
    }
}
