//! An answer to `SignPsbt` as far as keys alone lead: the packet is read, and each input that it asks for has its class and, as
//! that changes nothing, its signature.

use std::sync::Arc;

use bitcoin::bip32::ChildNumber;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, TxOut};
use claviger_proto::walletrpc::{SignPsbtRequest, SignPsbtResponse};
use prost::Message;

use super::keys::{Family, KeyPath, Keys};
use super::method::Method;
use super::psbt::{Packet, Signature};
use super::transactions::{self, Candidate};
use super::{decode, signing};
use crate::reasons::{Reason, Refusal};

/// The largest call that is drafted before its turn; one on an HTLC has about 400 bytes.
const MAX_BYTES: usize = 4_096;

/// An answer that nobody has permitted: it leaves when it was judged, or never.
pub(in crate::lightning) struct Draft {
    pub(super) packet: Packet,
    /// The inputs that are asked for, in order; all of them are the wallet's, or there is one.
    pub(super) inputs: Vec<Drafted>,
    /// lnd's encoding of the answer.
    pub(super) reply: Vec<u8>,
}

/// An input that is asked for: its index, where its key stands, what it spends, and what the transaction is, seen from it.
pub(super) type Drafted = (usize, KeyPath, TxOut, Candidate);

/// An unsigned input that names a key of this node, with where that stands.
type Asked = (usize, (KeyPath, PublicKey));

impl Draft {
    /// Reads the question and signs all inputs that it asks for. `our_payment` as in [`transactions::classify`].
    pub(super) fn of(
        request: &SignPsbtRequest,
        keys: &Keys,
        our_payment: impl FnMut(&ScriptBuf) -> Option<u32>,
    ) -> Result<Self, Refusal> {
        let (packet, asked) = read(request, keys)?;
        Self::sign(request, packet, &asked, keys, our_payment)
    }

    fn sign(
        request: &SignPsbtRequest,
        packet: Packet,
        asked: &[Asked],
        keys: &Keys,
        mut our_payment: impl FnMut(&ScriptBuf) -> Option<u32>,
    ) -> Result<Self, Refusal> {
        let mut signatures: Vec<Signature> = Vec::with_capacity(asked.len());
        let mut inputs = Vec::with_capacity(asked.len());
        for (index, key) in asked {
            let candidate = transactions::classify(&packet, *index, *key, keys, &mut our_payment)?;
            let coin = transactions::spent(&packet, *index)?;
            let all = || (0..packet.inputs.len()).map(|at| transactions::spent(&packet, at)).collect();
            signatures.push(signing::sign(&packet, *index, *key, keys, &coin, all)?);
            inputs.push((*index, key.0, coin, candidate));
        }
        let signed_psbt = packet.signed(&request.funded_psbt, &signatures);
        let signed_inputs = signatures.iter().map(|signature| signature.input as u32).collect();
        Ok(Self { packet, inputs, reply: SignPsbtResponse { signed_psbt, signed_inputs }.encode_to_vec() })
    }

    /// Whether it spends coins of the wallet.
    pub(super) fn is_wallets(&self) -> bool {
        self.inputs.iter().all(|(_, path, _, _)| matches!(path, KeyPath::Wallet(..)))
    }
}

/// The packet, and what it asks for: inputs of the wallet, or one other.
fn read(request: &SignPsbtRequest, keys: &Keys) -> Result<(Packet, Vec<Asked>), Refusal> {
    let packet = Packet::parse(&request.funded_psbt)
        .map_err(|error| Refusal::new(Reason::Malformed, format!("the PSBT cannot be read: {error}")))?;
    let asked = asked(&packet, keys);
    let all_wallet = asked.iter().all(|(_, (path, _))| matches!(path, KeyPath::Wallet(..)));
    if asked.is_empty() || asked.len() > 1 && !all_wallet {
        let detail = format!("{} unsigned inputs name a key of this node; lnd asks for one at a time", asked.len());
        return Err(Refusal::new(Reason::KeyPurpose, detail));
    }
    Ok((packet, asked))
}

fn asked(packet: &Packet, keys: &Keys) -> Vec<Asked> {
    let at = |path: &[ChildNumber]| keys.path(path).map(|path| (path, keys.public(path)));
    let unsigned = packet.inputs.iter().enumerate().filter(|(_, input)| !input.signed);
    let ours = unsigned.filter_map(|(index, input)| {
        let mut plain = input.derivations.iter();
        let plain = plain.find_map(|(key, path)| at(path).filter(|(_, ours)| ours.serialize() == *key));
        let taproot = || {
            let mut keys = input.tap_derivations.iter().filter(|(_, leaves, _)| *leaves == 0);
            keys.find_map(|(key, _, path)| at(path).filter(|(_, ours)| ours.x_only_public_key().0.serialize() == *key))
        };
        Some((index, plain.or_else(taproot)?))
    });
    ours.collect()
}

/// Drafts answers whose turn has not come. lnd asks for the signatures on all HTLCs of a commitment at once: what these
/// transactions are needs no more than keys, so that one thread may draft while another one judges.
pub(in crate::lightning) struct Drafter(Arc<Keys>);

impl Drafter {
    pub(super) fn new(keys: Arc<Keys>) -> Self {
        Self(keys)
    }

    /// The answer to `message`, if it asks for the signature on an HTLC and no more. Whoever gets nothing asks [`Draft::of`],
    /// which says why.
    pub(in crate::lightning) fn draft(&self, message: &[u8]) -> Option<Draft> {
        let (number, body) = message.split_first_chunk::<2>()?;
        if u16::from_be_bytes(*number) != Method::SignPsbt as u16 || message.len() > MAX_BYTES {
            return None;
        }
        let request: SignPsbtRequest = decode(body).ok()?;
        let (packet, asked) = read(&request, &self.0).ok()?;
        // No commitment is signed with such a key.
        let our_payment = |_: &ScriptBuf| None;
        match asked[..] {
            [(_, (KeyPath::Channel(Family::HtlcBase, _), _))] => {
                Draft::sign(&request, packet, &asked, &self.0, our_payment).ok()
            }
            _ => None,
        }
    }
}
