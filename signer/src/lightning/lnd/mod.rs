//! An lnd node: its calls are understood here, class by class, and answered or refused.
//!
//! ```text
//! mod.rs           the node: restored from its entries, one call at a time
//! keys.rs          keys by family and purpose          psbt.rs         PSBTs, read strictly
//! scripts.rs       the scripts of BOLT 3               transactions.rs what a transaction is
//! channels.rs      what is known of each channel       wallet.rs       amounts, limits, fundings
//! coins.rs         what coins were said to hold        signing.rs      signatures
//! windows.rs       which keys and outputs are ours
//! messages.rs      SignMessage                         shared_key.rs   DeriveSharedKey
//! ```
//!
//! lnd's calls are kinder than hsmd's messages: they do not tell when a commitment is revoked, nor what a peer has signed.
//! `docs/lnd.md` says what follows from that.

pub mod channels;
mod coins;
pub mod keys;
mod messages;
pub mod psbt;
pub mod scripts;
mod shared_key;
mod signing;
pub mod transactions;
mod wallet;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Network, OutPoint, TxOut};
use claviger_proto::signrpc::{
    MuSig2SessionRequest, SharedKeyRequest, SharedKeyResponse, SignMessageReq, SignMessageResp,
};
use claviger_proto::walletrpc::{SignPsbtRequest, SignPsbtResponse};
use prost::Message;
use serde::{Deserialize, Serialize};

use self::channels::{Channels, Side};
use self::coins::Coins;
use self::keys::{Family, KeyPath, Keys};
use self::psbt::{Packet, Signature};
use self::shared_key::Question;
use self::transactions::{Candidate, Class};
use self::wallet::Wallet;
use self::windows::Windows;
use super::clock::NodeClock;
use super::engine::{Handled, NodeSpec, RestoreError, Settings};
use super::guard::Row;
use super::limits::{self, Limits};
use super::orders::{Given, Order, OrderError, Orders};
use crate::config::LimitsConfig;
use crate::facts::{Fact, Unit};
use crate::journal::Put;
use crate::pipeline::Request;
use crate::reasons::{Reason, Refusal};

/// Declares lnd's calls: the name and the number that its request has in the pipeline.
macro_rules! methods {
    ($( $variant:ident $number:literal; )*) => {
        /// What a watch-only lnd may ask.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Method { $( #[doc = stringify!($variant)] $variant = $number, )* }

        impl Method {
            /// All of them.
            pub const ALL: &'static [Method] = &[ $( Method::$variant, )* ];

            /// The name, as in lnd's services.
            pub const fn name(self) -> &'static str { match self { $( Method::$variant => stringify!($variant), )* } }
        }
    };
}

methods! {
    SignPsbt 4000;
    DeriveSharedKey 4001;
    SignMessage 4002;
    MuSig2CreateSession 4003;
    MuSig2RegisterNonces 4004;
    MuSig2RegisterCombinedNonce 4005;
    MuSig2GetCombinedNonce 4006;
    MuSig2Sign 4007;
    MuSig2CombineSig 4008;
    MuSig2Cleanup 4009;
}

impl Method {
    /// The pipeline's form of a call: its number, then lnd's encoding.
    pub fn request(self, call: &impl Message) -> Vec<u8> {
        let mut message = (self as u16).to_be_bytes().to_vec();
        call.encode(&mut message).expect("a Vec grows");
        message
    }
}

/// HTLCs of a channel that are too small for an output, together: lnd allows no more.
const MAX_DUST_SAT: u64 = 500_000;

/// The entry that says whose the others are.
const IDENTITY: &str = "lnd/node";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    version: u8,
    node_id: PublicKey,
    network: Network,
}

/// One lnd node. After a panic inside, or a failed commit, it must be dropped (P6).
pub struct LndNode {
    keys: Keys,
    network: Network,
    channels: Channels,
    windows: Windows,
    wallet: Wallet,
    coins: Coins,
    limits: Limits,
    config: LimitsConfig,
    orders: Orders,
    clock: Arc<NodeClock>,
}

/// What a request came to, before it is encoded.
struct Answer {
    reply: Vec<u8>,
    puts: Vec<Put>,
    facts: Vec<Fact>,
}

/// The node's public key.
pub fn node_id(spec: &NodeSpec) -> PublicKey {
    keys::node_id(&spec.seed, chain_code(spec), spec.network)
}

/// The entries of a node that has not run yet.
pub fn first_entries(spec: &NodeSpec) -> Vec<Put> {
    let identity = Identity { version: 1, node_id: node_id(spec), network: spec.network };
    let value = serde_json::to_vec(&identity).expect("text always encodes");
    vec![Put { key: IDENTITY.to_owned(), value: Some(value) }]
}

fn chain_code(spec: &NodeSpec) -> &crate::keys::memory::Secret<32> {
    spec.chain_code.as_ref().expect("the registry gives every node of kind lnd its chain code")
}

impl LndNode {
    /// Builds the node from all live entries of its tenant.
    pub fn restore(
        spec: &NodeSpec,
        settings: &Settings,
        clock: Arc<NodeClock>,
        mut entries: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, RestoreError> {
        let unreadable = |error: &dyn std::fmt::Display| RestoreError::Entries(error.to_string());
        let keys = Keys::new(&spec.seed, chain_code(spec), spec.network);
        let identity = entries.remove(IDENTITY).and_then(|value| serde_json::from_slice::<Identity>(&value).ok());
        let identity = identity.filter(|identity| identity.version == 1).ok_or_else(|| unreadable(&IDENTITY))?;
        if identity.node_id != keys.node_id() {
            return Err(RestoreError::OtherNode("the seed does not match"));
        }
        if identity.network != spec.network {
            return Err(RestoreError::OtherNode("the network does not match"));
        }
        settings.desk.load(&spec.name, &mut entries, clock.now_ms()).map_err(|e| unreadable(&e))?;
        let orders = Orders::restore(&mut entries).map_err(|e| unreadable(&e))?;
        let channels = Channels::restore(&mut entries).map_err(|e| unreadable(&e))?;
        let coins = Coins::restore(&mut entries).map_err(|e| unreadable(&e))?;
        let spent = entries.remove(limits::KEY);
        let limits = Limits::restore(settings.limits.clone(), clock.clone(), spent.as_deref());
        let limits = limits.map_err(|e| unreadable(&e))?;
        let unproven = entries.remove(wallet::ENTRY);
        let wallet =
            Wallet::restore(&settings.limits, spec.network, unproven.as_deref()).map_err(|e| unreadable(&e))?;
        let seen = entries.remove(Windows::entry());
        let windows = Windows::restore(&keys, seen.as_deref()).ok_or_else(|| unreadable(&Windows::entry()))?;
        if let Some(key) = entries.into_keys().next() {
            return Err(unreadable(&format!("the entry {key} is not known")));
        }
        let (network, config) = (spec.network, settings.limits.clone());
        Ok(Self { keys, network, channels, windows, wallet, coins, limits, config, orders, clock })
    }

    /// How many channels the node has.
    pub fn channels(&self) -> usize {
        self.channels.count()
    }

    /// What is ordered about the node.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// The node's clock.
    pub fn clock(&self) -> &NodeClock {
        &self.clock
    }

    /// Carries out an operator's order. Channels cannot be named yet. Returns what must be durable before it counts.
    pub fn order(&mut self, order: &Order, given: Given) -> Result<Vec<Put>, OrderError> {
        match order.channel() {
            Some(channel) => Err(OrderError::NoChannel(channel)),
            None => self.orders.carry_out(order, given),
        }
    }

    /// Answers one call.
    pub fn handle(&mut self, row: &Row, request: &Request) -> Handled {
        self.limits.begin();
        let body = request.message.get(2..).unwrap_or_default();
        match self.answer(row, body) {
            Ok(mut answer) => {
                answer.puts.extend(self.limits.charge());
                answer.puts.extend(self.windows.take_put());
                Handled { puts: answer.puts, facts: answer.facts, ..Handled::plain(Ok(answer.reply)) }
            }
            Err(refusal) => Handled::plain(Err(refusal)),
        }
    }

    fn answer(&mut self, row: &Row, body: &[u8]) -> Result<Answer, Refusal> {
        let Some(method) = Method::ALL.iter().find(|method| **method as u16 == row.number) else {
            return Err(Refusal::new(Reason::MessageUnknown, row.name));
        };
        match method {
            Method::SignPsbt => self.sign_psbt(&decode(body)?),
            Method::DeriveSharedKey => self.derive_shared_key(&decode(body)?),
            Method::SignMessage => self.sign_message(&decode(body)?),
            Method::MuSig2CreateSession => {
                let request: MuSig2SessionRequest = decode(body)?;
                if !request.pregenerated_local_nonce.is_empty() {
                    return Err(Refusal::new(Reason::NonceForeign, "the session comes with its secret nonce"));
                }
                Err(Refusal::new(Reason::BlindDigest, "MuSig2 sessions sign digests"))
            }
            // Without a session there is nothing to go on with.
            _ => Err(Refusal::new(Reason::BlindDigest, "there is no such MuSig2 session")),
        }
    }

    fn derive_shared_key(&mut self, request: &SharedKeyRequest) -> Result<Answer, Refusal> {
        let question = Question::parse(request, &self.keys)?;
        let mut puts = Vec::new();
        if question.family == Family::RevocationRoot {
            let Some(our_index) = self.windows.funding(&self.keys, &question.point) else {
                let detail = "a revocation root is shared with a funding key of this node only";
                return Err(Refusal::new(Reason::SecretPurpose, detail));
            };
            puts = self.channels.reserve(our_index, question.index)?;
        }
        let shared_key = question.answer(&self.keys).to_vec();
        let facts = vec![Fact::text("key", KeyPath::Channel(question.family, question.index).to_string())];
        Ok(Answer { reply: SharedKeyResponse { shared_key }.encode_to_vec(), puts, facts })
    }

    fn sign_message(&mut self, request: &SignMessageReq) -> Result<Answer, Refusal> {
        let (kind, signature) = messages::sign(request, &self.keys, &mut self.windows, self.network)?;
        let facts = vec![Fact::text("message", format!("{kind:?}"))];
        Ok(Answer { reply: SignMessageResp { signature }.encode_to_vec(), puts: Vec::new(), facts })
    }

    fn sign_psbt(&mut self, request: &SignPsbtRequest) -> Result<Answer, Refusal> {
        let packet = Packet::parse(&request.funded_psbt)
            .map_err(|error| Refusal::new(Reason::Malformed, format!("the PSBT cannot be read: {error}")))?;
        let asked = self.asked(&packet);
        let all_wallet = asked.iter().all(|(_, path)| matches!(path, KeyPath::Wallet(..)));
        if asked.is_empty() || asked.len() > 1 && !all_wallet {
            let detail = format!("{} unsigned inputs name a key of this node; lnd asks for one at a time", asked.len());
            return Err(Refusal::new(Reason::KeyPurpose, detail));
        }
        // Signed first, which changes nothing; nothing leaves before it is judged.
        let mut signatures: Vec<Signature> = Vec::with_capacity(asked.len());
        let mut candidates = Vec::with_capacity(asked.len());
        for (index, path) in &asked {
            let Self { keys, windows, .. } = self;
            let candidate = transactions::classify(&packet, *index, *path, keys, |out| windows.payment(keys, out))?;
            let coin = transactions::spent(&packet, *index)?;
            let all = || (0..packet.inputs.len()).map(|at| transactions::spent(&packet, at)).collect();
            signatures.push(signing::sign(&packet, *index, *path, keys, &coin, all)?);
            candidates.push((*index, *path, coin, candidate));
        }
        let now_ms = self.clock.now_ms();
        let said = said(&packet, &candidates)?;
        self.coins.require_same(&said, now_ms)?;
        let (mut puts, mut facts) = (Vec::new(), Vec::new());
        let class = if all_wallet {
            if let Some(frozen) = self.frozen() {
                self.limits.only_fees(frozen);
            }
            let Self { keys, windows, wallet, coins, limits, .. } = self;
            let spends: Vec<_> = candidates.iter().map(|(index, path, coin, _)| (*index, *path, coin)).collect();
            let (seen, put) = wallet.judge(&packet, &spends, (&*keys, windows), coins, (&*limits, now_ms))?;
            facts.extend(seen);
            puts.extend(put);
            Class::WalletSpend
        } else {
            let judged = candidates.into_iter().map(|(index, _, _, candidate)| (index, candidate)).next();
            let (index, candidate) = judged.expect("one input was asked for");
            self.judge_channel(&packet, index, candidate, &mut puts, &mut facts)?
        };
        facts.push(Fact::text("class", class.name()));
        puts.extend(self.coins.remember(said, now_ms));
        let signed_psbt = packet.signed(&signatures);
        let signed_inputs = signatures.iter().map(|signature| signature.input as u32).collect();
        Ok(Answer { reply: SignPsbtResponse { signed_psbt, signed_inputs }.encode_to_vec(), puts, facts })
    }

    /// The unsigned inputs that name a key of this node, with where it stands.
    fn asked(&self, packet: &Packet<'_>) -> Vec<(usize, KeyPath)> {
        let unsigned = packet.inputs.iter().enumerate().filter(|(_, input)| !input.signed);
        let ours = unsigned.filter_map(|(index, input)| {
            let plain = input
                .derivations
                .iter()
                .find_map(|(key, path)| self.keys.path(path).filter(|path| self.keys.public(*path) == *key));
            let taproot = || {
                input.tap_derivations.iter().find_map(|(key, leaves, path)| {
                    let is_ours =
                        |path: &KeyPath| *leaves == 0 && self.keys.public(*path).x_only_public_key().0 == *key;
                    self.keys.path(path).filter(is_ours)
                })
            };
            Some((index, plain.or_else(taproot)?))
        });
        ours.collect()
    }

    fn judge_channel(
        &mut self,
        packet: &Packet<'_>,
        index: usize,
        candidate: Candidate,
        puts: &mut Vec<Put>,
        facts: &mut Vec<Fact>,
    ) -> Result<Class, Refusal> {
        match candidate {
            Candidate::Wallet => Err(Refusal::new(Reason::KeyPurpose, "a coin of the wallet is not the channel's")),
            Candidate::Commitment(asked) => {
                self.require_bounded_burn(packet, asked.capacity_sat)?;
                let frozen = self.frozen();
                let thawed = || frozen.clone().map_or(Ok(()), Err);
                let is_new = self.channels.get(&asked.funding).is_none();
                let (side, number, changed) = self.channels.commitment(&asked, thawed)?;
                puts.extend(changed);
                facts.push(Fact::text("channel", asked.funding.to_string()));
                facts.push(Fact::count("commitment_number", number));
                if side == Side::Holder {
                    return Ok(Class::HolderCommitment);
                }
                let ours_sat = self.channels.get(&asked.funding).map_or(0, |channel| channel.ours_sat());
                facts.push(Fact::number("ours", ours_sat, Unit::Sat));
                if is_new {
                    puts.extend(self.wallet.funded(&asked.funding, ours_sat));
                }
                Ok(Class::CounterpartyCommitment)
            }
            Candidate::MutualClose(funding) => {
                let fee_sat = self.bounded_fee(packet)?;
                let Self { keys, windows, wallet, .. } = self;
                let outputs = packet.tx.output.iter();
                let (ours, foreign): (Vec<_>, Vec<_>) =
                    outputs.partition(|out| wallet.is_ours(keys, windows, &out.script_pubkey));
                if foreign.len() > 1 {
                    let detail = "a mutual close pays more than one output that is not ours";
                    return Err(Refusal::new(Reason::CloseValue, detail));
                }
                let ours_sat = ours.iter().map(|out| out.value.to_sat()).sum();
                puts.extend(self.channels.mutual_close(&funding, ours_sat, fee_sat)?);
                facts.push(Fact::text("channel", funding.to_string()));
                facts.push(Fact::number("ours", ours_sat, Unit::Sat));
                Ok(Class::MutualClose)
            }
            Candidate::CounterpartyHtlc => match self.frozen() {
                Some(frozen) => Err(frozen),
                None => Ok(Class::CounterpartyHtlc),
            },
            Candidate::Claim(class) => {
                self.require_ours(packet, class, |_| false)?;
                facts.push(Fact::number("fee", self.bounded_fee(packet)?, Unit::Sat));
                Ok(class)
            }
            Candidate::OwnCommitment { class, basepoint, tweak } => {
                if !self.channels.signed_to_close(&self.keys, &basepoint, &tweak) {
                    let detail = "the key belongs to no commitment of ours that was signed to close a channel";
                    return Err(Refusal::new(Reason::TransactionUnknown, detail));
                }
                // The second level goes on at the same place, and lnd may claim several at once.
                let goes_on = |at: usize| {
                    class == Class::HolderHtlc && (at == index || packet.tx.output[at].script_pubkey.is_p2wsh())
                };
                self.require_ours(packet, class, goes_on)?;
                facts.push(Fact::number("fee", self.bounded_fee(packet)?, Unit::Sat));
                Ok(class)
            }
        }
    }

    /// All outputs but those that go on pay ourselves.
    fn require_ours(
        &mut self,
        packet: &Packet<'_>,
        class: Class,
        goes_on: impl Fn(usize) -> bool,
    ) -> Result<(), Refusal> {
        for (at, out) in packet.tx.output.iter().enumerate() {
            if !goes_on(at) && !self.wallet.is_ours(&self.keys, &mut self.windows, &out.script_pubkey) {
                let to = bitcoin::Address::from_script(&out.script_pubkey, self.network)
                    .map_or_else(|_| format!("{:x}", out.script_pubkey), |address| address.to_string());
                let detail = format!("{}: output {at} pays {} sat to {to}", class.name(), out.value.to_sat());
                return Err(Refusal::new(Reason::OutputForeign, detail).with_fact(Fact::text("pays", to)));
            }
        }
        Ok(())
    }

    /// The fee, as far as inputs are what they are said to be.
    fn bounded_fee(&self, packet: &Packet<'_>) -> Result<u64, Refusal> {
        let (fee_sat, limit_sat) = (transactions::fee_sat(packet)?, self.config.max_onchain_fee_sat);
        if fee_sat <= limit_sat {
            return Ok(fee_sat);
        }
        let detail = format!("fee {fee_sat} sat > limits.max_onchain_fee_sat = {limit_sat} sat");
        Err(Refusal::new(Reason::SweepFee, detail)
            .with_fact(Fact::number("fee", fee_sat, Unit::Sat).at_most(limit_sat)))
    }

    /// What a commitment leaves to miners: its fee, and HTLCs that are too small for an output.
    fn require_bounded_burn(&self, packet: &Packet<'_>, capacity_sat: u64) -> Result<(), Refusal> {
        let out_sat = transactions::sum_sat(&packet.tx.output).unwrap_or_default();
        let burnt_sat = capacity_sat.saturating_sub(out_sat);
        let limit_sat = self.config.max_onchain_fee_sat.saturating_add(MAX_DUST_SAT);
        if burnt_sat <= limit_sat {
            return Ok(());
        }
        let detail =
            format!("{burnt_sat} sat go to nobody; limits.max_onchain_fee_sat + {MAX_DUST_SAT} = {limit_sat} sat");
        let fact = Fact::number("commitment_fee", burnt_sat, Unit::Sat).at_most(limit_sat);
        Err(Refusal::new(Reason::CommitmentFee, detail).with_fact(fact))
    }

    fn frozen(&self) -> Option<Refusal> {
        let given = self.orders.frozen_node()?;
        Some(Refusal::new(Reason::Frozen, format!("the node was frozen by {}", given.by)))
    }
}

/// What the question says of coins that its signature does not commit to, or that another transaction may spend beside it.
fn said(packet: &Packet<'_>, asked: &[(usize, KeyPath, TxOut, Candidate)]) -> Result<Vec<(OutPoint, TxOut)>, Refusal> {
    let stands_alone = |(index, _, _, candidate): &(usize, KeyPath, TxOut, Candidate)| {
        let combines = packet.inputs[*index].sighash == transactions::SINGLE_ANYONECANPAY;
        *candidate == Candidate::CounterpartyHtlc || packet.inputs.len() == 1 && !combines
    };
    if asked.iter().all(stands_alone) {
        return Ok(Vec::new());
    }
    let coin = |at: usize| Ok((packet.tx.input[at].previous_output, transactions::spent(packet, at)?));
    (0..packet.inputs.len()).map(coin).collect()
}

fn decode<T: Message + Default>(body: &[u8]) -> Result<T, Refusal> {
    T::decode(body).map_err(|error| Refusal::new(Reason::Malformed, format!("the call cannot be read: {error}")))
}

#[cfg(test)]
mod tests;
