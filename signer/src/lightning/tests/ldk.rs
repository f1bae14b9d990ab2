//! What an LDK node asks beyond what vls answers, and what it must not get that way.

use vls_protocol::msgs::{self, DeBolt, Message, SerBolt};

use super::*;
use crate::reasons::Reason;

fn point(signer: &Signer, node: &NodeName, channel: ChannelRef, commitment_number: u64) -> Outcome {
    signer.ask(node, Some(channel), msgs::GetPerCommitmentPoint2 { commitment_number }.as_vec())
}

#[test]
fn points_are_given_two_ahead_of_what_is_in_force_and_no_further() {
    let mut signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut driver = signer.channel(&alice, 7);
    let channel = driver.channel();
    for in_force in 0..3 {
        let ahead = replied(point(&signer, &alice, channel, in_force + 3));
        let (_, refusal) = refused(point(&signer, &alice, channel, in_force + 4));
        assert_eq!(refusal.reason, Reason::Validation);
        driver.advance(&mut signer.asking(&alice), 0).expect("advances");
        let later = replied(point(&signer, &alice, channel, in_force + 3));
        assert_eq!(ahead, later, "the point that comes up later");
    }
}

#[test]
fn the_first_commitment_may_be_validated_again_but_no_other_in_its_place() {
    let signer = Signer::start();
    let alice = signer.add("alice", NodeKind::Ldk);
    let mut validation = None;
    let mut ask = |channel: Option<ChannelRef>, message: Vec<u8>| {
        if let Ok(Message::ValidateCommitmentTx2(_)) = msgs::from_vec(message.clone()) {
            validation = Some((channel, message.clone()));
        }
        signer.ask(&alice, channel, message)
    };
    Driver::open(&mut ask, 7).expect("opens");
    let (channel, message) = validation.expect("it was validated");
    let reply = replied(signer.ask(&alice, channel, message.clone()));
    assert_eq!(replied(signer.ask(&alice, channel, message.clone())), reply);

    let mut other = msgs::ValidateCommitmentTx2::from_vec(message).expect("decodes");
    other.to_remote_value_sat -= 1;
    let (_, refusal) = refused(signer.ask(&alice, channel, other.as_vec()));
    assert_eq!(refusal.reason, Reason::Validation);
}
