//! What vls says no with, in the words of our table of reasons.

use lightning_signer::util::status::{Code, Status};
use vls_protocol_signer::handler::Error;

use super::validator::Objection;
use crate::facts::Fact;
use crate::reasons::{Reason, Refusal};

/// The refusal for an error of vls's handler. `objection` is what the validator had against the request, where it was
/// the validator.
///
/// Statuses carry amounts, numbers and public keys; secrets are not formatted into them.
pub fn from_handler(error: Error, objection: Option<Objection>) -> Refusal {
    let tag = match objection {
        Some(Objection::House(refusal)) => return refusal,
        Some(Objection::Rule(tag)) => Some(tag),
        None => None,
    };
    match error {
        Error::Protocol(error) => Refusal::new(Reason::Malformed, error.to_string()),
        Error::Temporary(status) => worded(Reason::ChainPending, &status, tag),
        Error::Signing(status) => worded(reason(&status), &status, tag),
    }
}

fn worded(reason: Reason, status: &Status, tag: Option<String>) -> Refusal {
    let rule = tag.as_ref().map(|tag| Fact::text("rule", tag));
    rule.into_iter().fold(Refusal::new(reason, detail(status, tag)), Refusal::with_fact)
}

fn reason(status: &Status) -> Reason {
    let message = status.message();
    match status.code() {
        Code::Temporary => Reason::ChainPending,
        Code::Internal | Code::Ok => Reason::Fault,
        Code::InvalidArgument if is_missing(message) => Reason::ChannelUnknown,
        Code::InvalidArgument if message.starts_with("channel not ready") => Reason::ChannelNotReady,
        Code::InvalidArgument | Code::FailedPrecondition => Reason::Validation,
    }
}

fn is_missing(message: &str) -> bool {
    message.starts_with("no such channel") || message.starts_with("channel does not exist")
}

fn detail(status: &Status, tag: Option<String>) -> String {
    const MAX: usize = 400;
    let mut text = status.message().to_owned();
    if let Some((end, _)) = text.char_indices().nth(MAX) {
        text.truncate(end);
        text.push('…');
    }
    match tag {
        Some(tag) => format!("{text} [{tag}]"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_reasons() {
        let of = |status: Status| from_handler(status.into(), None).reason;
        assert_eq!(of(Status::temporary("funding is not buried")), Reason::ChainPending);
        assert_eq!(of(Status::invalid_argument("no such channel: 02ab")), Reason::ChannelUnknown);
        assert_eq!(of(Status::invalid_argument("channel not ready: 02ab")), Reason::ChannelNotReady);
        assert_eq!(of(Status::invalid_argument("bad public key")), Reason::Validation);
        assert_eq!(of(Status::failed_precondition("policy failure")), Reason::Validation);
        assert_eq!(of(Status::internal("persist failed")), Reason::Fault);
    }

    #[test]
    fn our_own_objections_keep_their_words() {
        let ours = Refusal::new(Reason::ChainPending, "wait");
        let status = Status::failed_precondition("policy failure");
        assert_eq!(from_handler(status.into(), Some(Objection::House(ours.clone()))), ours);
    }

    #[test]
    fn details_name_the_rule_and_stay_short() {
        let status = Status::failed_precondition("x".repeat(5_000));
        let refusal = from_handler(status.into(), Some(Objection::Rule("policy-other".to_owned())));
        assert!(refusal.detail.ends_with("… [policy-other]") && refusal.detail.len() < 500);
    }
}
