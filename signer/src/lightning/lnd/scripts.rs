//! The scripts of BOLT 3 that lnd's channels have: recognised by their shape, byte for byte.

use bitcoin::hashes::{Hash, hash160, ripemd160};
use bitcoin::opcodes::all as op;
use bitcoin::script::{Builder, Instruction, PushBytes, Script, ScriptBuf};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{CompressedPublicKey, Opcode};

/// More than any script of a channel has.
const MAX_PARTS: usize = 48;

/// A script behind a P2WSH output of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelScript {
    /// The funding output: two keys in ascending order.
    Funding([PublicKey; 2]),
    /// An anchor, for the owner of this funding key.
    Anchor(PublicKey),
    /// To the owner of the commitment after a delay, or to who knows the revocation key. Also a second-level output.
    Delayed {
        /// Punishes a revoked commitment.
        revocation: PublicKey,
        /// The owner's.
        delayed: PublicKey,
        /// In blocks.
        delay: u32,
    },
    /// To the counterparty of the commitment's owner, one block later.
    ToRemote(PublicKey),
    /// An HTLC.
    Htlc(Htlc),
}

/// An HTLC's script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Htlc {
    /// Of the key that punishes a revoked commitment.
    pub revocation_hash: [u8; 20],
    /// The key of the commitment's owner. Nobody computes with either: they are ours, or they are not.
    pub owner: [u8; 33],
    /// The key of the other side.
    pub other: [u8; 33],
    /// RIPEMD-160 of the payment hash.
    pub payment_hash160: [u8; 20],
    /// The owner of the commitment received it, and it expires at this height; else the owner offered it.
    pub received_until: Option<u32>,
    /// Spending takes a confirmed commitment: the channel has anchors.
    pub anchors: bool,
}

/// An instruction of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    Op(Opcode),
    Push(&'a [u8]),
}

impl ChannelScript {
    /// What `script` is; `None` if it is none of these, written as BOLT 3 writes them.
    pub fn parse(script: &Script) -> Option<Self> {
        use Part::{Op, Push};
        let mut parts = Vec::with_capacity(MAX_PARTS);
        for instruction in script.instructions_minimal() {
            if parts.len() == MAX_PARTS {
                return None;
            }
            parts.push(match instruction.ok()? {
                Instruction::Op(op) => Op(op),
                Instruction::PushBytes(bytes) => Push(bytes.as_bytes()),
            });
        }
        let parsed = match parts[..] {
            [Op(two), Push(a), Push(b), Op(of), Op(check)]
                if (two, of, check) == (op::OP_PUSHNUM_2, op::OP_PUSHNUM_2, op::OP_CHECKMULTISIG) && a < b =>
            {
                Self::Funding([key(a)?, key(b)?])
            }
            [Push(owner), ..] if script == &*anchor(&key(owner)?) => Self::Anchor(key(owner)?),
            [Push(owner), ..] if script == &*to_remote(&key(owner)?) => Self::ToRemote(key(owner)?),
            [Op(op::OP_IF), Push(revocation), Op(op::OP_ELSE), delay, ..] => {
                let Some(Push(delayed)) = parts.get(6) else { return None };
                let (revocation, delay, delayed) = (key(revocation)?, number(delay)?, key(delayed)?);
                if script != &*delayed_script(&revocation, delay, &delayed) {
                    return None;
                }
                Self::Delayed { revocation, delayed, delay }
            }
            [Op(op::OP_DUP), ..] => Self::Htlc(Htlc::parse(&parts, script)?),
            _ => return None,
        };
        Some(parsed)
    }

    /// Whether it is that of a commitment's owner's balance, or of the second level.
    pub fn is_balance(&self) -> bool {
        matches!(self, Self::Delayed { .. })
    }
}

impl Htlc {
    /// The keys and hashes stand at places of their own; that everything else is right follows from writing it again.
    fn parse(parts: &[Part<'_>], script: &Script) -> Option<Self> {
        let push = |index: usize| match parts.get(index)? {
            Part::Push(bytes) => Some(*bytes),
            Part::Op(_) => None,
        };
        let hash = |index: usize| push(index)?.try_into().ok();
        let anchors = parts.iter().filter(|part| **part == Part::Op(op::OP_CSV)).count() == 1;
        let key = |index: usize| push(index)?.try_into().ok().filter(|key: &[u8; 33]| matches!(key[0], 2 | 3));
        let (revocation_hash, other) = (hash(2)?, key(7)?);
        let htlc = if parts.get(12) == Some(&Part::Op(op::OP_IF)) {
            let received_until = Some(number(*parts.get(23)?)?);
            let (payment_hash160, owner) = (hash(14)?, key(18)?);
            Self { revocation_hash, owner, other, payment_hash160, received_until, anchors }
        } else {
            let (owner, payment_hash160) = (key(16)?, hash(21)?);
            Self { revocation_hash, owner, other, payment_hash160, received_until: None, anchors }
        };
        (&*htlc.script() == script).then_some(htlc)
    }

    /// BOLT 3, "Offered HTLC Outputs" and "Received HTLC Outputs".
    pub fn script(&self) -> ScriptBuf {
        let push = |builder: Builder, bytes: &[u8]| {
            let bytes = <&PushBytes>::try_from(bytes).expect("keys and hashes are short");
            builder.push_slice(bytes)
        };
        let mut script = Builder::new().push_opcode(op::OP_DUP).push_opcode(op::OP_HASH160);
        script = push(script, &self.revocation_hash)
            .push_opcode(op::OP_EQUAL)
            .push_opcode(op::OP_IF)
            .push_opcode(op::OP_CHECKSIG)
            .push_opcode(op::OP_ELSE);
        script = push(script, &self.other).push_opcode(op::OP_SWAP).push_opcode(op::OP_SIZE);
        script = push(script, &[32]).push_opcode(op::OP_EQUAL);
        script = match self.received_until {
            None => {
                script = script.push_opcode(op::OP_NOTIF).push_opcode(op::OP_DROP).push_int(2).push_opcode(op::OP_SWAP);
                script = push(script, &self.owner).push_int(2).push_opcode(op::OP_CHECKMULTISIG);
                script = script.push_opcode(op::OP_ELSE).push_opcode(op::OP_HASH160);
                push(script, &self.payment_hash160).push_opcode(op::OP_EQUALVERIFY).push_opcode(op::OP_CHECKSIG)
            }
            Some(expiry) => {
                script = script.push_opcode(op::OP_IF).push_opcode(op::OP_HASH160);
                script = push(script, &self.payment_hash160).push_opcode(op::OP_EQUALVERIFY);
                script = script.push_int(2).push_opcode(op::OP_SWAP);
                script = push(script, &self.owner).push_int(2).push_opcode(op::OP_CHECKMULTISIG);
                script = script.push_opcode(op::OP_ELSE).push_opcode(op::OP_DROP).push_int(expiry.into());
                script.push_opcode(op::OP_CLTV).push_opcode(op::OP_DROP).push_opcode(op::OP_CHECKSIG)
            }
        };
        script = script.push_opcode(op::OP_ENDIF);
        if self.anchors {
            script = script.push_int(1).push_opcode(op::OP_CSV).push_opcode(op::OP_DROP);
        }
        script.push_opcode(op::OP_ENDIF).into_script()
    }

    /// Whether `revocation` punishes with this HTLC.
    pub fn is_revoked_by(&self, revocation: &PublicKey) -> bool {
        hash160::Hash::hash(&revocation.serialize()).to_byte_array() == self.revocation_hash
    }

    /// Whether `payment_hash` is the one that its script names.
    pub fn is_for(&self, payment_hash: &[u8; 32]) -> bool {
        ripemd160::Hash::hash(payment_hash).to_byte_array() == self.payment_hash160
    }
}

/// BOLT 3, "Funding Transaction Output".
pub fn funding_script(ours: &PublicKey, theirs: &PublicKey) -> ScriptBuf {
    let mut both = [ours.serialize(), theirs.serialize()];
    both.sort_unstable();
    Builder::new()
        .push_int(2)
        .push_slice(both[0])
        .push_slice(both[1])
        .push_int(2)
        .push_opcode(op::OP_CHECKMULTISIG)
        .into_script()
}

/// BOLT 3, "`to_remote` Output", with anchors.
pub fn to_remote(key: &PublicKey) -> ScriptBuf {
    Builder::new()
        .push_slice(key.serialize())
        .push_opcode(op::OP_CHECKSIGVERIFY)
        .push_int(1)
        .push_opcode(op::OP_CSV)
        .into_script()
}

/// The outputs by which a counterparty's commitment pays us with this key: with anchors, and without.
pub fn payment_outputs(key: &PublicKey) -> [ScriptBuf; 2] {
    [to_remote(key).to_p2wsh(), ScriptBuf::new_p2wpkh(&CompressedPublicKey(*key).wpubkey_hash())]
}

fn anchor(key: &PublicKey) -> ScriptBuf {
    Builder::new()
        .push_slice(key.serialize())
        .push_opcode(op::OP_CHECKSIG)
        .push_opcode(op::OP_IFDUP)
        .push_opcode(op::OP_NOTIF)
        .push_int(16)
        .push_opcode(op::OP_CSV)
        .push_opcode(op::OP_ENDIF)
        .into_script()
}

/// BOLT 3, "`to_local` Output", and that of second-level transactions. `delay` in blocks.
pub fn delayed_script(revocation: &PublicKey, delay: u32, delayed: &PublicKey) -> ScriptBuf {
    Builder::new()
        .push_opcode(op::OP_IF)
        .push_slice(revocation.serialize())
        .push_opcode(op::OP_ELSE)
        .push_int(delay.into())
        .push_opcode(op::OP_CSV)
        .push_opcode(op::OP_DROP)
        .push_slice(delayed.serialize())
        .push_opcode(op::OP_ENDIF)
        .push_opcode(op::OP_CHECKSIG)
        .into_script()
}

fn key(bytes: &[u8]) -> Option<PublicKey> {
    // Other lengths are keys too, but no channel's.
    (bytes.len() == 33).then(|| PublicKey::from_slice(bytes).ok()).flatten()
}

/// A number above zero as scripts push it.
fn number(part: Part<'_>) -> Option<u32> {
    match part {
        Part::Op(op) => {
            let number = op.to_u8().checked_sub(op::OP_PUSHNUM_1.to_u8())? + 1;
            (number <= 16).then_some(number.into())
        }
        Part::Push(bytes) if bytes.len() <= 5 && bytes.last().is_some_and(|top| top & 0x80 == 0) => {
            u32::try_from(bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))).ok()
        }
        Part::Push(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use lightning::ln::chan_utils as ldk;
    use lightning::ln::channel_keys::{DelayedPaymentKey, HtlcKey, RevocationKey};
    use lightning::types::features::ChannelTypeFeatures;
    use lightning::types::payment::PaymentHash;

    use super::*;

    fn keys() -> [PublicKey; 4] {
        let secp = Secp256k1::new();
        [1, 2, 3, 4].map(|byte| SecretKey::from_slice(&[byte; 32]).expect("a key").public_key(&secp))
    }

    /// Every script of a channel as LDK writes it, with what it is.
    fn scripts() -> Vec<(ScriptBuf, ChannelScript)> {
        let [a, b, c, d] = keys();
        let (delayed, revocation) = (DelayedPaymentKey(a), RevocationKey(b));
        let funding = if a.serialize() < b.serialize() { [a, b] } else { [b, a] };
        let mut scripts = vec![
            (ldk::make_funding_redeemscript(&a, &b), ChannelScript::Funding(funding)),
            (ldk::get_keyed_anchor_redeemscript(&a), ChannelScript::Anchor(a)),
            (ldk::get_to_countersigner_keyed_anchor_redeemscript(&a), ChannelScript::ToRemote(a)),
        ];
        for delay in [1u16, 16, 17, 144, 2016, 40_000] {
            let script = ldk::get_revokeable_redeemscript(&revocation, delay, &delayed);
            scripts.push((script, ChannelScript::Delayed { revocation: b, delayed: a, delay: delay.into() }));
        }
        let keys = ldk::TxCreationKeys {
            per_commitment_point: d,
            revocation_key: revocation,
            broadcaster_htlc_key: HtlcKey(a),
            countersignatory_htlc_key: HtlcKey(c),
            broadcaster_delayed_payment_key: delayed,
        };
        for (offered, anchors, expiry) in
            [(true, true, 9), (true, false, 9), (false, true, 7), (false, false, 500_000), (false, true, 840_000)]
        {
            let htlc = ldk::HTLCOutputInCommitment {
                offered,
                amount_msat: 1,
                cltv_expiry: expiry,
                payment_hash: PaymentHash([5; 32]),
                transaction_output_index: None,
            };
            let features = if anchors {
                ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()
            } else {
                ChannelTypeFeatures::only_static_remote_key()
            };
            let parsed = Htlc {
                revocation_hash: hash160::Hash::hash(&b.serialize()).to_byte_array(),
                owner: a.serialize(),
                other: c.serialize(),
                payment_hash160: ripemd160::Hash::hash(&[5; 32]).to_byte_array(),
                received_until: (!offered).then_some(expiry),
                anchors,
            };
            scripts.push((ldk::get_htlc_redeemscript(&htlc, &features, &keys), ChannelScript::Htlc(parsed)));
        }
        scripts
    }

    #[test]
    fn scripts_are_what_another_implementation_of_bolt_3_writes() {
        for (script, parsed) in scripts() {
            assert_eq!(ChannelScript::parse(&script), Some(parsed), "{script}");
        }
        let [a, b, ..] = keys();
        for [ours, theirs] in [[a, b], [b, a]] {
            assert_eq!(funding_script(&ours, &theirs), ldk::make_funding_redeemscript(&ours, &theirs));
        }
        let [_, revocation, ..] = keys();
        let Some((_, ChannelScript::Htlc(htlc))) = scripts().pop() else { panic!("the last is an HTLC") };
        assert!(htlc.is_revoked_by(&revocation) && htlc.is_for(&[5; 32]));
    }

    #[test]
    fn hostile_scripts_with_any_byte_changed_added_or_missing_are_no_other_template() {
        for (script, parsed) in scripts() {
            let bytes = script.to_bytes();
            let differs = |bytes: Vec<u8>| ChannelScript::parse(&ScriptBuf::from_bytes(bytes)) != Some(parsed.clone());
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert!(differs(changed), "{script} at {at}");
                assert!(differs(bytes[..at].to_vec()), "{script} up to {at}");
            }
            assert!(differs([&bytes[..], &[0x51]].concat()));
        }
    }
}
