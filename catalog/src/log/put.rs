//! The act of committing: one put-if-absent, and the truth found out when its answer is unclear.

use std::time::Duration;

use bytes::Bytes;

use super::{Head, LOG_MAGIC, codec, log_path};
use crate::{Error, Result, Storage};

/// First and longest wait between two attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What one attempt came to.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The object at this commit is ours.
    Won,
    /// The object is another's; this is its head.
    Lost(Box<Head>),
    /// Not known, or not written: try again. Nothing may be deleted on doubt.
    Unclear(object_store::Error),
}

/// Tries once to create the log object of `head`.
///
/// # Errors
/// [`Error::Corrupt`] when something that is no log object has its name.
pub(crate) async fn attempt(storage: &Storage, head: &Head, content: &Bytes) -> Result<Attempt> {
    let path = log_path(head.seq);
    let Err(refused) = storage.create(&path, content.clone()).await else {
        return Ok(Attempt::Won);
    };
    // The object may exist all the same: an answer was lost, or a retry below us met the first try's success.
    match storage.read(&path).await {
        Ok(found) => {
            let (found, _) = codec::decode(LOG_MAGIC, path.as_ref(), found)?;
            Ok(if found.nonce == head.nonce { Attempt::Won } else { Attempt::Lost(Box::new(found)) })
        }
        Err(_) => Ok(Attempt::Unclear(refused)),
    }
}

/// Who another's object at our commit makes of us.
pub(crate) fn fenced_by(ours: &Head, found: &Head) -> Error {
    if found.generation > ours.generation {
        return Error::Fenced { newer: found.generation };
    }
    let reason = format!("it was written by generation {}, which {} has replaced", found.generation, ours.generation);
    Error::Corrupt { path: log_path(ours.seq).to_string(), reason }
}

/// How long to wait before attempt `attempt` (from 1): doubled each time, with `jitter` spread over its upper half.
pub(crate) fn backoff(attempt: u32, jitter: u64) -> Duration {
    let full = BACKOFF.0.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(BACKOFF.1);
    let half = full / 2;
    half + half.mul_f64((jitter % 1024) as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_within_its_bounds() {
        for attempt in 1..100 {
            for jitter in [0, 1, 1023, u64::MAX] {
                let wait = backoff(attempt, jitter);
                assert!(wait >= BACKOFF.0 / 2 && wait <= BACKOFF.1, "{wait:?}");
            }
        }
        assert!(backoff(3, 0) > backoff(1, 1023));
    }
}
