//! One channel of a recovery kit, as Lightspark writes it: transactions that close the channel and collect what it pays, each
//! with the witness that its spender's signature is missing from.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Network, OutPoint, ScriptBuf, Transaction, TxOut};

use super::super::event::{EventError, Job};
use super::super::fields::Fields;
use super::super::json::{self, Json, JsonError};
use super::super::paths::{ChannelKey, KeyPath};
use super::super::transactions;
use crate::reasons::{Reason, Refusal};

/// A channel has at most 483 HTLCs in each direction (BOLT 2), and each has a transaction and what collects it.
const MAX_HTLCS: usize = 966;

/// What a transaction of the kit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Our commitment.
    Commitment,
    /// Collects what it pays us.
    Sweep,
    /// An HTLC of it.
    Htlc,
    /// Collects what that pays.
    HtlcSweep,
    /// Collects what the counterparty's commitment pays us, if that is the one that closes the channel.
    CounterpartySweep,
    /// Collects an HTLC of that.
    CounterpartyHtlc,
}

impl What {
    /// As the report has it.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Commitment => "commitment",
            Self::Sweep => "sweep",
            Self::Htlc => "htlc",
            Self::HtlcSweep => "htlc-sweep",
            Self::CounterpartySweep => "counterparty-sweep",
            Self::CounterpartyHtlc => "counterparty-htlc",
        }
    }

    /// Where our signature goes in its witness.
    pub(super) const fn signature_at(self) -> usize {
        match self {
            Self::Htlc => 2,
            _ => 0,
        }
    }

    /// Where the preimage goes, of an HTLC that is paid to us.
    pub(super) const fn preimage_at(self) -> usize {
        match self {
            Self::Htlc => 3,
            _ => 1,
        }
    }
}

/// One transaction, and the job of signing it.
pub(super) struct Part {
    pub(super) what: What,
    pub(super) tx: Transaction,
    pub(super) job: Job,
    /// Of the HTLC's preimage, if it is one of an invoice of ours.
    pub(super) nonce: Option<[u8; 32]>,
}

/// A channel's transactions: the commitment first.
pub(super) struct Kit {
    pub(super) channel: u32,
    pub(super) parts: Vec<Part>,
}

fn malformed(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Malformed, format!("the kit cannot be read: {error}"))
}

fn field(error: &EventError) -> Refusal {
    malformed(error)
}

impl Kit {
    /// Reads one channel of a kit. `key` derives the public key at a path.
    pub(super) fn parse(text: &[u8], network: Network, key: impl Fn(KeyPath) -> PublicKey) -> Result<Self, Refusal> {
        let Json::Object(kit) = json::parse(text).map_err(|error| malformed(&error))? else {
            return Err(malformed(&JsonError::Syntax));
        };
        let kit = Reader { kit: Fields(&kit), network };
        let commitment = kit.transaction("commitment_tx")?;
        let (channel, _) = kit.path("funding_private_key_derivation_path", ChannelKey::Funding)?;
        let of = |purpose| KeyPath::ChannelKey(channel, purpose);
        for (name, purpose) in [
            ("delayed_payment_base_key_derivation_path", ChannelKey::DelayedBase),
            ("htlc_base_key_derivation_path", ChannelKey::HtlcBase),
        ] {
            if kit.path(name, purpose)?.0 != channel {
                return Err(malformed(&EventError::Field(name)));
            }
        }
        let missing = |name| malformed(&EventError::Field(name));
        let capacity_sat = kit.kit.number("channel_capacity").ok_or_else(|| missing("channel_capacity"))?;
        let delayed = Some(kit.tweak("sweep_tx_add_tweak")?);
        let htlc = Some(kit.tweak("htlc_tx_add_tweak")?);
        let (path, script) = (of(ChannelKey::Funding), last(&commitment)?);
        let mut parts = vec![part(What::Commitment, commitment.clone(), path, None, script, capacity_sat)?];
        let sweep = kit.transaction("sweep_tx")?;
        parts.push(spending(What::Sweep, sweep, &commitment, of(ChannelKey::DelayedBase), delayed)?);
        let htlcs = kit.transactions("htlc_tx")?;
        let (sweeps, nonces) = (kit.transactions("serialized_htlc_sweep_tx")?, kit.nonces("nonces")?);
        if (sweeps.len(), nonces.len()) != (htlcs.len(), htlcs.len()) {
            return Err(malformed(&"its HTLCs, what collects them and their nonces are not as many"));
        }
        for ((tx, sweep), nonce) in htlcs.into_iter().zip(sweeps).zip(nonces) {
            let collecting = spending(What::HtlcSweep, sweep, &tx, of(ChannelKey::DelayedBase), delayed)?;
            let claim = spending(What::Htlc, tx, &commitment, of(ChannelKey::HtlcBase), htlc)?;
            parts.extend([Part { nonce, ..claim }, collecting]);
        }
        parts.extend(kit.counterparty(channel, &key)?);
        Ok(Self { channel, parts })
    }
}

struct Reader<'a> {
    kit: Fields<'a>,
    network: Network,
}

impl Reader<'_> {
    /// What is collected if the counterparty's commitment closes the channel. Kits need not have it.
    fn counterparty(&self, channel: u32, key: &impl Fn(KeyPath) -> PublicKey) -> Result<Vec<Part>, Refusal> {
        const COMMITMENT: &str = "counterparty_serialized_commitment_tx";
        if self.kit.maybe_text(COMMITMENT).map_err(|error| field(&error))?.is_none() {
            return Ok(Vec::new());
        }
        let commitment = self.transaction(COMMITMENT)?;
        if self.path("payment_key_derivation_path", ChannelKey::Payment)?.0 != channel {
            return Err(malformed(&EventError::Field("payment_key_derivation_path")));
        }
        let path = KeyPath::ChannelKey(channel, ChannelKey::Payment);
        let sweep = self.transaction("counterparty_sweep_tx")?;
        let spent = spent(&sweep, &commitment)?;
        let script = transactions::p2wpkh(&key(path));
        if spent.script_pubkey != script {
            return Err(malformed(&"counterparty_sweep_tx spends no output to the channel's payment key"));
        }
        let amount_sat = spent.value.to_sat();
        let mut parts = vec![part(What::CounterpartySweep, sweep, path, None, script.into_bytes(), amount_sat)?];
        let (claims, nonces) =
            (self.transactions("counterparty_serialized_htlc_sweep_tx")?, self.nonces("counterparty_nonces")?);
        if claims.len() != nonces.len() {
            return Err(malformed(&"the counterparty's HTLCs and their nonces are not as many"));
        }
        if !claims.is_empty() {
            let path = KeyPath::ChannelKey(channel, ChannelKey::HtlcBase);
            let tweak = Some(self.tweak("counterparty_htlc_tx_add_tweak")?);
            for (claim, nonce) in claims.into_iter().zip(nonces) {
                parts.push(Part { nonce, ..spending(What::CounterpartyHtlc, claim, &commitment, path, tweak)? });
            }
        }
        Ok(parts)
    }

    fn transaction(&self, name: &'static str) -> Result<Transaction, Refusal> {
        transactions::read(&self.kit.bytes(name).map_err(|error| field(&error))?)
    }

    fn list(&self, name: &'static str) -> Result<Vec<&str>, Refusal> {
        let texts = match self.kit.0.get(name) {
            None | Some(Json::Null) => Some(Vec::new()),
            Some(Json::List(items)) if items.len() <= MAX_HTLCS => items
                .iter()
                .map(|item| match item {
                    Json::Text(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
            Some(_) => None,
        };
        texts.ok_or_else(|| malformed(&EventError::Field(name)))
    }

    fn transactions(&self, name: &'static str) -> Result<Vec<Transaction>, Refusal> {
        let bytes = |text: &str| hex::decode(text).map_err(|_| malformed(&EventError::Field(name)));
        self.list(name)?.into_iter().map(|text| transactions::read(&bytes(text)?)).collect()
    }

    /// An HTLC that we offered has none.
    fn nonces(&self, name: &'static str) -> Result<Vec<Option<[u8; 32]>>, Refusal> {
        let nonce = |text: &str| {
            let mut nonce = [0; 32];
            match text {
                "" => Ok(None),
                text => hex::decode_to_slice(text, &mut nonce).map(|()| Some(nonce)),
            }
        };
        let all = self.list(name)?.into_iter().map(nonce).collect::<Result<_, _>>();
        all.map_err(|_| malformed(&EventError::Field(name)))
    }

    fn tweak(&self, name: &'static str) -> Result<[u8; 32], Refusal> {
        let tweak = self.kit.bytes32(name).map_err(|error| field(&error))?;
        tweak.ok_or_else(|| malformed(&EventError::Field(name)))
    }

    fn path(&self, name: &'static str, purpose: ChannelKey) -> Result<(u32, ChannelKey), Refusal> {
        let text = self.kit.text(name).map_err(|error| field(&error))?;
        match KeyPath::parse(text, self.network) {
            Ok(KeyPath::ChannelKey(channel, found)) if found == purpose => Ok((channel, found)),
            Ok(_) => Err(malformed(&EventError::Field(name))),
            Err(error) => Err(super::super::refusal(&EventError::Path(error))),
        }
    }
}

/// The script that stands last in the witness.
fn last(tx: &Transaction) -> Result<Vec<u8>, Refusal> {
    let script = tx.input[0].witness.last().filter(|script| !script.is_empty());
    script.map(<[u8]>::to_vec).ok_or_else(|| malformed(&"a transaction shows no script in its witness"))
}

/// The output of `parent` that `tx` spends first.
fn spent<'a>(tx: &Transaction, parent: &'a Transaction) -> Result<&'a TxOut, Refusal> {
    let OutPoint { txid, vout } = tx.input[0].previous_output;
    let output = usize::try_from(vout).ok().and_then(|at| parent.output.get(at));
    output
        .filter(|_| txid == parent.compute_txid())
        .ok_or_else(|| malformed(&format!("nothing of it spends {txid}:{vout}")))
}

/// A transaction that spends an output of `parent`, by the script that it shows.
fn spending(
    what: What,
    tx: Transaction,
    parent: &Transaction,
    path: KeyPath,
    add_tweak: Option<[u8; 32]>,
) -> Result<Part, Refusal> {
    let (output, script) = (spent(&tx, parent)?, last(&tx)?);
    if output.script_pubkey != ScriptBuf::from_bytes(script.clone()).to_p2wsh() {
        return Err(malformed(&format!("{}: its script is not that of the output that it spends", what.text())));
    }
    let amount_sat = output.value.to_sat();
    part(what, tx, path, add_tweak, script, amount_sat)
}

fn part(
    what: What,
    tx: Transaction,
    path: KeyPath,
    add_tweak: Option<[u8; 32]>,
    script: Vec<u8>,
    amount_sat: u64,
) -> Result<Part, Refusal> {
    let message = transactions::digest(&tx, &script, amount_sat).ok_or_else(|| malformed(&"it has no digest"))?;
    let transaction = bitcoin::consensus::encode::serialize(&tx);
    let id = format!("{} {}", what.text(), tx.compute_txid());
    let (mul_tweak, destination) = (None, None);
    let job = Job { id, path, message, add_tweak, mul_tweak, script, transaction, amount_sat, destination };
    Ok(Part { what, tx, job, nonce: None })
}
