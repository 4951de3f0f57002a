//! Owns jobs: members that a partner takes now and puts into a list later.
//!
//! Pure: the time is told. It must never touch a list. The surprise: a job runs from the moment it
//! is let run, and what it holds is handed out once, when somebody looks after its end.

use std::collections::HashMap;

/// All jobs, ended ones too.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: HashMap<String, Job>,
    /// Those that run, by when they end.
    running: Vec<(u64, String)>,
    made: u64,
}

#[derive(Debug)]
struct Job {
    list: String,
    changes: Vec<Change>,
    state: JobIs,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobIs {
    /// Takes members.
    Filling,
    /// Runs.
    Running,
    /// Ended.
    Done,
}

/// What a job does to a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// This member is to be there, with this item.
    Put(String, Box<str>),
    /// This one is not.
    Drop(String),
}

impl Jobs {
    /// Makes a job for a list; gives its id.
    pub(super) fn start(&mut self, list: &str) -> String {
        self.made += 1;
        let id = format!("job-{}", self.made);
        let job = Job {
            list: list.to_owned(),
            changes: Vec::new(),
            state: JobIs::Filling,
        };
        self.jobs.insert(id.clone(), job);
        id
    }

    /// How far a job is, where it is one.
    pub(super) fn state(&self, id: &str) -> Option<JobIs> {
        self.jobs.get(id).map(|job| job.state)
    }

    /// A job's list.
    pub(super) fn list(&self, id: &str) -> Option<&str> {
        self.jobs.get(id).map(|job| job.list.as_str())
    }

    /// Gives a job more to do; says whether it takes it.
    pub(super) fn fill(&mut self, id: &str, changes: impl Iterator<Item = Change>) -> bool {
        let job = self.jobs.get_mut(id);
        let Some(job) = job.filter(|job| job.state == JobIs::Filling) else {
            return false;
        };
        job.changes.extend(changes);
        true
    }

    /// Lets a job run until `end_us`; one that was let run already goes on as it does.
    pub(super) fn run(&mut self, id: &str, end_us: u64) {
        let job = self.jobs.get_mut(id);
        if let Some(job) = job.filter(|job| job.state == JobIs::Filling) {
            job.state = JobIs::Running;
            self.running.push((end_us, id.to_owned()));
        }
    }

    /// What jobs that have ended by now do to their lists, in the order in which they ended.
    pub(super) fn ended(&mut self, now_us: u64) -> Vec<(String, Vec<Change>)> {
        if self.running.iter().all(|(end, _)| *end > now_us) {
            return Vec::new();
        }
        self.running.sort_by_key(|(end, _)| *end);
        let ended = self.running.partition_point(|(end, _)| *end <= now_us);
        let ended = self.running.drain(..ended);
        let jobs = &mut self.jobs;
        let done = ended.filter_map(|(_, id)| {
            let job = jobs.get_mut(&id)?;
            job.state = JobIs::Done;
            Some((job.list.clone(), std::mem::take(&mut job.changes)))
        });
        done.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_does_once_what_it_was_given_before_it_ran() {
        let mut jobs = Jobs::default();
        let (one, two) = (jobs.start("a"), jobs.start("b"));
        let put = |id: &str| std::iter::once(Change::Put(id.to_owned(), "{}".into()));
        assert!(jobs.fill(&one, put("x")) && jobs.fill(&two, put("y")));
        jobs.run(&one, 200);
        jobs.run(&one, 100);
        jobs.run(&two, 100);
        assert!(!jobs.fill(&one, put("z")) && !jobs.fill("job-9", put("z")));
        assert_eq!(jobs.ended(99), []);
        assert_eq!(jobs.state(&two), Some(JobIs::Running));
        assert_eq!(
            jobs.ended(250),
            [
                ("b".to_owned(), put("y").collect()),
                ("a".to_owned(), put("x").collect())
            ]
        );
        assert_eq!(
            (jobs.ended(300), jobs.state(&one)),
            (Vec::new(), Some(JobIs::Done))
        );
        assert_eq!((jobs.list(&two), jobs.state("job-9")), (Some("b"), None));
    }
}
