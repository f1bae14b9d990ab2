//! Whether what a node claims fits what the signer knows.

use super::claims::{Claim, Step};
use super::view::{ChannelView, State};
use crate::reasons::Reason;

/// How node and signer stand to each other, from harmless to not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The node has not asked about the channel since the signer started.
    Unknown,
    /// They agree.
    InStep,
    /// They agree, and the node waits for something that passes by itself.
    Waiting,
    /// The node asks for what is long past: it lost what the signer knows.
    NodeBehind,
    /// The node asks for what cannot come next: the signer lost what the node knows, or the node lies.
    NodeAhead,
    /// Same number, another state.
    Forked,
}

impl Standing {
    /// The stable id.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::InStep => "in-step",
            Self::Waiting => "waiting",
            Self::NodeBehind => "node-behind",
            Self::NodeAhead => "node-ahead",
            Self::Forked => "forked",
        }
    }

    /// Whether it passes by itself, or there is nothing to pass.
    pub const fn is_harmless(self) -> bool {
        matches!(self, Self::Unknown | Self::InStep | Self::Waiting)
    }

    /// The next step; empty if there is none.
    pub const fn fix(self) -> &'static str {
        match self {
            Self::Unknown | Self::InStep => "",
            Self::Waiting => "Nothing: the node repeats the request and is answered as it would have been.",
            Self::NodeBehind => {
                "Stop the node: its data is older than the signer's. Give it its latest data, or have the peer close the channel; its own old commitment would lose it."
            }
            Self::NodeAhead => {
                "If the signer was restored from an old copy, stop it and restore the latest one: it may sign what is revoked. If it was not, the node is lying: freeze it."
            }
            Self::Forked => {
                "Freeze the channel and close it: both states may be with the peer. The signer signs its own latest commitment, also when frozen."
            }
        }
    }
}

/// What the comparison of one channel came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The verdict.
    pub standing: Standing,
    /// The numbers compared, in words.
    pub detail: String,
}

/// Compares `view` with `claims`: the claim that fits least decides.
pub fn compare(view: &ChannelView, claims: &[Claim]) -> Finding {
    let findings = claims.iter().map(|claim| finding(view, claim));
    let none = || {
        let detail = "the node has not asked about it since the signer started".to_owned();
        Finding { standing: Standing::Unknown, detail }
    };
    findings.max_by_key(|finding| finding.standing).unwrap_or_else(none)
}

fn finding(view: &ChannelView, claim: &Claim) -> Finding {
    let Claim { step, number, refused, .. } = claim;
    let (lowest, highest) = expected(view, *step);
    let standing = match refused {
        // Nothing is older than an answer: the signer stands where it led.
        None => Standing::InStep,
        // Once something was signed that closes it, nothing else is, whatever its number.
        Some(_) if matches!(view.state, State::Closing | State::Closed) => Standing::InStep,
        Some(_) if *number < lowest => Standing::NodeBehind,
        Some(_) if *number > highest => Standing::NodeAhead,
        Some(reason) if reason.retry() => Standing::Waiting,
        Some(_) if is_another_state(view, claim) => Standing::Forked,
        Some(_) => Standing::InStep,
    };
    let asked = format!("last asked to {} {number}", step.text());
    let outcome = match refused.map(Reason::id) {
        None => "answered".to_owned(),
        Some(id) if lowest == highest => format!("refused ({id}); {lowest} would fit"),
        Some(id) => format!("refused ({id}); {lowest} to {highest} would fit"),
    };
    Finding { standing, detail: format!("{asked}, {outcome}") }
}

/// The numbers with which an honest node may come, all of which are answered or wait.
pub fn expected(view: &ChannelView, step: Step) -> (u64, u64) {
    let (ours, theirs) = (view.holder.as_ref(), view.counterparty.as_ref());
    match step {
        // The last one signed again, or the next.
        Step::SignTheirs => theirs.map_or((0, 0), |side| {
            let signed = side.next.unwrap_or(side.current);
            (signed, signed + 1)
        }),
        Step::ValidateOurs => ours.map_or((0, 0), |side| (side.current, side.current + 1)),
        // The last one again; the one in force once the next is validated.
        Step::RevokeOurs => ours.map_or((0, 0), |side| match (side.current.checked_sub(1), side.next) {
            (last, Some(_)) => (last.unwrap_or(side.current), side.current),
            (Some(last), None) => (last, last),
            (None, None) => (0, 0),
        }),
        Step::RevokeTheirs => theirs.map_or((0, 0), |side| (side.current.saturating_sub(1), side.current)),
        Step::Close => ours.map_or((0, 0), |side| (side.current, side.next.unwrap_or(side.current))),
    }
}

/// Whether a refused claim names the newest commitment with another state than the signer knows. Where the message does
/// not tell its state, it must be another: the same, while it can be asked again, would have been answered again.
fn is_another_state(view: &ChannelView, claim: &Claim) -> bool {
    let side = match claim.step {
        Step::SignTheirs => view.counterparty.as_ref(),
        Step::ValidateOurs => view.holder.as_ref(),
        Step::RevokeOurs | Step::RevokeTheirs | Step::Close => None,
    };
    let Some(side) = side.filter(|side| claim.number == side.next.unwrap_or(side.current)) else { return false };
    match (&claim.balance, &side.balance) {
        (Some(claimed), Some(known)) => !claimed.is_same(known),
        _ => side.next.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::{Balance, Side};
    use super::*;
    use crate::pipeline::ChannelRef;

    /// Ours: 7 in force. Theirs: 7 in force.
    fn view() -> ChannelView {
        let side = Side { current: 7, next: None, revoked: Some(6), balance: Some(Balance::default()) };
        let channel = ChannelRef { peer_id: [2; 33], dbid: 1 };
        let (holder, counterparty) = (Some(side.clone()), Some(side));
        ChannelView { holder, counterparty, ..ChannelView::new(channel.into(), State::Ready, None) }
    }

    fn claim(step: Step, number: u64, refused: Option<Reason>) -> Claim {
        let balance = Some(Balance { ours_sat: 1, ..Balance::default() });
        Claim { step, number, balance, at_ms: 1, refused }
    }

    fn standing(step: Step, number: u64, refused: Option<Reason>) -> Standing {
        compare(&view(), &[claim(step, number, refused)]).standing
    }

    const NO: Option<Reason> = Some(Reason::Validation);
    const LATER: Option<Reason> = Some(Reason::ChainPending);

    #[test]
    fn answered_requests_are_in_step_and_none_is_unknown() {
        assert_eq!(compare(&view(), &[]).standing, Standing::Unknown);
        assert_eq!(standing(Step::SignTheirs, 7, None), Standing::InStep);
        assert_eq!(standing(Step::RevokeOurs, 6, None), Standing::InStep);
    }

    #[test]
    fn what_passes_by_itself_waits_and_a_refused_next_state_is_no_fork() {
        assert_eq!(standing(Step::SignTheirs, 8, LATER), Standing::Waiting);
        assert_eq!(standing(Step::SignTheirs, 8, NO), Standing::InStep);
        assert_eq!(standing(Step::ValidateOurs, 8, NO), Standing::InStep);
    }

    #[test]
    fn an_old_number_is_behind_and_an_impossible_one_ahead() {
        for (step, low, high) in [
            (Step::SignTheirs, 6, 9),
            (Step::ValidateOurs, 6, 9),
            (Step::RevokeOurs, 5, 7),
            (Step::RevokeTheirs, 5, 8),
            (Step::Close, 6, 8),
        ] {
            assert_eq!(standing(step, low, NO), Standing::NodeBehind, "{step:?}");
            assert_eq!(standing(step, high, NO), Standing::NodeAhead, "{step:?}");
            assert_eq!(standing(step, high, LATER), Standing::NodeAhead, "{step:?}: no waiting brings it");
        }
    }

    #[test]
    fn another_state_under_a_number_that_was_answered_is_a_fork() {
        assert_eq!(standing(Step::SignTheirs, 7, NO), Standing::Forked);
        assert_eq!(standing(Step::ValidateOurs, 7, NO), Standing::Forked);
        let same = Claim { balance: Some(Balance::default()), ..claim(Step::SignTheirs, 7, NO) };
        assert_eq!(compare(&view(), &[same]).standing, Standing::InStep);
        let closing = ChannelView { state: State::Closing, ..view() };
        assert_eq!(compare(&closing, &[claim(Step::SignTheirs, 7, NO)]).standing, Standing::InStep);
    }

    #[test]
    fn the_claim_that_fits_least_decides() {
        let claims = [claim(Step::SignTheirs, 8, LATER), claim(Step::RevokeOurs, 9, NO), claim(Step::Close, 7, None)];
        let finding = compare(&view(), &claims);
        assert_eq!(finding.standing, Standing::NodeAhead);
        assert_eq!(finding.detail, "last asked to revoke our commitment 9, refused (validation); 6 would fit");
    }
}
