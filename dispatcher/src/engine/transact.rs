//! Owns one transaction from its records to a known outcome.
//!
//! It must never guess: an outcome that the log did not tell is read from what is committed.

use runtime::log::{
    Class, Committed, NotCommitted, Partition, Position, Record, Transaction, TransactionOptions,
    Transactions,
};
use tracing::{error, warn};

use super::TransactionContext;
use super::moves::{Outcome, REJOIN_WAIT, RETRY_WAIT, TransactionDone};

/// So often committed positions are asked for after a transaction whose outcome is unknown.
const READS_MAX: u32 = 25;

pub(super) async fn transact(
    context: TransactionContext,
    mut transactions: Box<dyn Transactions>,
    records: Vec<Record>,
    mut done: TransactionDone,
) -> TransactionDone {
    let positions: Vec<Position> = done
        .touched
        .iter()
        .map(|(_, _, position)| position.clone())
        .collect();
    let transaction = Transaction {
        records,
        positions: positions.clone(),
        group: Some(context.group.clone()),
    };
    match transactions.commit(transaction).await {
        Ok(()) => done.outcome = Outcome::Committed,
        Err(NotCommitted::Aborted { cause, refused }) => {
            warn!(%cause, refused = refused.len(), "transaction aborted");
            done.outcome = Outcome::Aborted {
                refused,
                wait: RETRY_WAIT,
            };
        }
        Err(NotCommitted::NotMember(cause)) => {
            warn!(%cause, "transaction aborted for a rebalance");
            done.outcome = Outcome::Aborted {
                refused: Vec::new(),
                wait: REJOIN_WAIT,
            };
        }
        Err(NotCommitted::Unknown(cause)) => {
            warn!(%cause, "outcome of a transaction is unknown");
            return resolve(context, &positions, done).await;
        }
        Err(NotCommitted::Fenced(cause)) => {
            // The log ends one that outlives its time, and fences its producer: then nobody else has
            // the name for that.
            done.fenced = done.sent_at.elapsed() < context.timeout;
            warn!(%cause, namesake = done.fenced, "transactional producer was fenced");
            if done.fenced && context.gives_way {
                // Opening another would fence the one that goes on.
                return done;
            }
            return resolve(context, &positions, done).await;
        }
    }
    done.transactions = Some(transactions);
    done
}

/// Opens a new producer, which ends what the old one left open, and reads what is committed: it is
/// what was sent, or the transaction was aborted.
async fn resolve(
    context: TransactionContext,
    sent: &[Position],
    mut done: TransactionDone,
) -> TransactionDone {
    loop {
        let options = TransactionOptions {
            id: context.id.clone(),
            timeout: context.timeout,
        };
        match context.log.transactions(options).await {
            Ok(transactions) => {
                done.transactions = Some(transactions);
                break;
            }
            Err(cause) => warn!(%cause, "transactional producer cannot be opened now"),
        }
        tokio::time::sleep(RETRY_WAIT).await;
    }
    done.outcome = outcome(&context, sent).await;
    done
}

/// What became of a transaction that is over.
async fn outcome(context: &TransactionContext, sent: &[Position]) -> Outcome {
    for _ in 0..READS_MAX {
        match context.member.committed(&context.partitions).await {
            Ok(committed) if is_what_was_sent(sent, &committed) => return Outcome::Committed,
            Ok(_) => {
                return Outcome::Aborted {
                    refused: Vec::new(),
                    wait: RETRY_WAIT,
                };
            }
            Err(cause) => {
                error!(%cause, "committed positions cannot be read after a transaction");
                match cause.class() {
                    Class::Retry | Class::Unknown => tokio::time::sleep(RETRY_WAIT).await,
                    Class::Never | Class::Fenced => return Outcome::NotKnown,
                }
            }
        }
    }
    Outcome::NotKnown
}

fn is_what_was_sent(sent: &[Position], committed: &[(Partition, Option<Committed>)]) -> bool {
    // All or nothing: one position decides for all.
    let Some(first) = sent.first() else {
        return false;
    };
    committed.iter().any(|(partition, position)| {
        *partition == first.partition
            && position.as_ref().is_some_and(|position| {
                position.offset == first.offset && position.metadata == first.metadata
            })
    })
}
