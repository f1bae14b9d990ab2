//! Refusals as gRPC statuses that lnd survives: it shuts down on `Unavailable` and on `DeadlineExceeded`, so neither is
//! ever sent.

use tonic::{Code, Status};

use crate::reasons::{Reason, Refusal};

/// The status for a refusal, in words that end up in lnd's log: reason, detail, what to do, and what `claviger explain`
/// takes.
pub(super) fn status(request: &str, refusal: &Refusal) -> Status {
    let Refusal { reason, detail, .. } = refusal;
    let mut words = format!("claviger refused ({}): {}", reason.id(), reason.meaning());
    if !detail.is_empty() {
        words += &format!(" [{detail}]");
    }
    words += &format!(" {}", reason.hint());
    if !request.is_empty() {
        words += &format!(" claviger explain {request}");
    }
    Status::new(code(*reason), words)
}

/// Why nothing was even asked.
pub(super) fn unauthenticated(why: &dyn std::fmt::Display) -> Status {
    Status::new(Code::Unauthenticated, format!("claviger refused: {why}. Is remotesigner.macaroonpath the node's own?"))
}

/// What is decided by the operator is a denied permission, what safety decides a failed precondition.
fn code(reason: Reason) -> Code {
    match reason {
        Reason::Malformed | Reason::MessageUnknown | Reason::FrameTooLarge => Code::InvalidArgument,
        Reason::NodeBusy => Code::ResourceExhausted,
        Reason::Fault => Code::Internal,
        Reason::Limit | Reason::Frozen | Reason::Quarantined | Reason::OutputForeign => Code::PermissionDenied,
        _ if reason.retry() => Code::Aborted,
        _ => Code::FailedPrecondition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_refusal_makes_lnd_shut_down() {
        for reason in Reason::ALL {
            let status = status("alice-1", &Refusal::new(*reason, "why"));
            assert!(!matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Ok), "{reason:?}");
            assert!(status.message().contains(reason.id()) && status.message().contains("alice-1"));
        }
    }
}
