//! No request of any kind signs with a nonce the caller knows, a digest the caller chose, or a key outside its purpose:
//! honest requests of all ten calls, changed at random, and every answer held against an oracle of its own.

mod oracle;
mod requests;

use bitcoin::XOnlyPublicKey;
use bitcoin::psbt::PsbtSighashType;
use bitcoin::secp256k1::Parity;
use bitcoin::sighash::{Prevouts, TapSighashType};
use claviger_proto::signrpc::{
    MuSig2CleanupRequest, MuSig2CombineSigRequest, MuSig2GetCombinedNonceRequest, MuSig2RegisterCombinedNonceRequest,
    MuSig2RegisterNoncesRequest,
};
use fastrand::Rng;

use self::oracle::Oracle;
use self::requests::{channel_request, honest_request, message_request, musig_request, mutate, taproot_request};
use super::*;

const REQUESTS: u64 = 3_000;

/// The same requests in every run.
struct Dice(Rng);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill(&mut bytes);
        bytes
    }
}

#[test]
fn no_request_signs_with_a_known_nonce_a_chosen_digest_or_a_key_outside_its_purpose() {
    let (mut lnd, mut dice, mut oracle) =
        (Lnd::with_channel(0, 0), Dice(Rng::with_seed(20_261_123)), Oracle::default());
    lnd.reserve(1, 2).expect("ours");
    assert!(lnd.class(&lnd.commitment(1, 0, Some(600_000))).is_ok());
    let mut number = 0;
    for _ in 0..REQUESTS {
        match dice.below(10) {
            0 => musig_request(&mut lnd, &mut dice, &mut oracle),
            1 => {
                let call = message_request(&lnd, &mut dice);
                if let Ok((reply, facts)) = lnd.ask(Method::SignMessage, &call) {
                    let reply = SignMessageResp::decode(&reply[..]).expect("a reply");
                    oracle.message(&lnd, &call, &reply.signature);
                    *oracle.classes.entry(facts[0].value.to_string()).or_default() += 1;
                }
            }
            2 => {
                let (family, index) = (dice.below(12) as i32 - 1, dice.below(3) as i32);
                let point = dice.one_of(&[peer_key(4), lnd.key(Family::Multisig, 7), lnd.key(Family::PaymentBase, 0)]);
                if lnd.share(family, index, &point).is_ok() {
                    oracle.secret(&lnd, family, index, &point);
                    *oracle.classes.entry(format!("secret {family}")).or_default() += 1;
                }
            }
            kind => {
                let before = number;
                let mut psbt = match kind {
                    3 => taproot_request(&lnd, &mut dice),
                    4..=7 => channel_request(&lnd, &mut dice),
                    _ => honest_request(&lnd, &mut dice, &mut number),
                };
                for _ in 0..dice.one_of(&[0, 0, 1, 1, 2]) {
                    mutate(&lnd, &mut dice, &mut psbt);
                }
                match lnd.sign(&psbt) {
                    Ok((signed, class)) => {
                        oracle.psbt(&lnd, &psbt, &signed);
                        *oracle.classes.entry(class).or_default() += 1;
                    }
                    Err(_) => number = before,
                }
            }
        }
    }
    // The dice reach what is honest, too: a test that sees refusals only shows nothing.
    for class in [
        "counterparty-commitment",
        "mutual-close",
        "anchor-spend",
        "counterparty-htlc",
        "htlc-claim",
        "to-remote-sweep",
        "justice",
        "wallet-spend",
        "text",
        "channel_announcement",
        "secret 5",
        "secret 6",
        "secret 8",
    ] {
        assert!(oracle.classes.contains_key(class), "{class} is not among {:?}", oracle.classes);
    }
}
