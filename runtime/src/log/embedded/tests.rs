//! What the embedded log promises beyond the contract: what survives, what goes, and who may open.

use super::super::contract::Subject;
use super::*;

async fn subject() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = EmbeddedLog::open(EmbeddedOptions::in_dir(dir.path()))
        .await
        .unwrap();
    Subject::new(Arc::new(log), dir)
}

crate::log_contract!(subject);
