//! The locktime of a sweep, judged by a view of the chain that may lag behind the node's.

use crate::reasons::{Reason, Refusal};

/// Blocks that a node may be ahead of our view unnoticed, as in vls.
const UNNOTICED: u32 = 2;
/// Blocks that an honest node may be ahead of a view that follows the chain: a day of them, for chains mined by hand.
const LAG: u32 = 144;

/// Whether a sweep with `locktime` may be signed when the last block seen is at `height`. Both are block heights.
///
/// A locktime that was reached delays nothing. A later one comes from a node that saw blocks before we did, and the same
/// request succeeds once we see them too: the refusal is temporary, and nobody waits inside. No lag explains a locktime
/// that is further ahead of a fresh view: whoever asks wants our money to lie still.
pub(super) fn judge(
    locktime: u32,
    height: u32,
    require_fresh: impl FnOnce() -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let ahead = locktime.saturating_sub(height);
    if ahead <= UNNOTICED {
        return Ok(());
    }
    require_fresh()?;
    let detail = format!("the sweep's locktime {locktime} is {ahead} blocks above {height}, the last one seen");
    Err(if ahead <= LAG {
        Refusal::new(Reason::ChainPending, detail)
    } else {
        Refusal::new(Reason::Validation, format!("{detail}; a view that follows the chain lags {LAG} at most"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_waits_for_the_view_to_catch_up_but_not_for_a_far_future() {
        let fresh = |locktime| judge(locktime, 1_000, || Ok(())).map_err(|refusal| refusal.reason);
        assert_eq!(fresh(0), Ok(()));
        assert_eq!(fresh(1_002), Ok(()));
        assert_eq!(fresh(1_003), Err(Reason::ChainPending));
        assert_eq!(fresh(1_144), Err(Reason::ChainPending));
        assert_eq!(fresh(1_145), Err(Reason::Validation));
        assert_eq!(fresh(u32::MAX), Err(Reason::Validation));
    }

    #[test]
    fn nothing_is_final_while_the_view_is_stale() {
        let stale = || Err(Refusal::new(Reason::ChainStale, "catching up"));
        assert_eq!(judge(1_002, 1_000, stale), Ok(()), "what was reached needs no view");
        for locktime in [1_003, 1_500] {
            assert_eq!(judge(locktime, 1_000, stale).map_err(|refusal| refusal.reason), Err(Reason::ChainStale));
        }
    }
}
