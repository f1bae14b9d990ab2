//! What is remembered of a channel, and what may be signed and told next. Pure: a change is kept by whoever asked for it.
//!
//! Commitments of both sides carry their number, hidden by a constant of the channel (BOLT 3, "Commitment Transaction
//! Construction"). The first one that is signed has number 0 and so tells the constant.

use std::collections::BTreeMap;

use bitcoin::hashes::ripemd160;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use serde::{Deserialize, Serialize};

use crate::facts::{Fact, Unit};
use crate::reasons::{Reason, Refusal};

/// The version of what is written; 1 had no HTLCs.
const VERSION: u8 = 2;

/// A channel: the entry `lightspark/channel/n`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Channel {
    version: u8,
    /// Lightspark's id.
    pub(super) entity: String,
    /// The index of our first commitment. Indices count down.
    first: u64,
    /// The last index whose point was told.
    told: u64,
    /// The last index whose secret was released.
    released: Option<u64>,
    funding: Option<Funding>,
    /// A mutual close, or one of our commitments, was signed: nothing new happens any more.
    closing: bool,
    /// Indices of our commitments that were signed to close the channel.
    closed: Vec<u64>,
}

/// The funding output and what spends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Funding {
    outpoint: OutPoint,
    amount_sat: u64,
    script: ScriptBuf,
    /// What hides the numbers.
    mask: u64,
    /// The counterparty's newest commitment.
    number: u64,
    txid: Txid,
    ours_sat: u64,
    /// Its outputs, which its HTLC transactions spend.
    outputs: Vec<(u64, ScriptBuf)>,
    /// Those of them that jobs showed to be HTLCs.
    #[serde(default)]
    htlcs: BTreeMap<u32, Htlc>,
}

/// An HTLC of the counterparty's commitment, as the job that signs for it shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Htlc {
    /// RIPEMD-160 of the payment hash: what its script has of it (BOLT 3).
    pub(super) payment_hash160: ripemd160::Hash,
    /// Whether we offered it.
    pub(super) outgoing: bool,
    /// What its output holds.
    pub(super) amount_sat: u64,
    /// The height at which it times out.
    pub(super) expiry_height: u32,
}

/// The counterparty's newest commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    /// Its id.
    pub(super) txid: Txid,
    /// What it pays us.
    pub(super) ours_sat: u64,
    /// HTLCs in it that jobs showed, sorted.
    pub(super) htlcs: Vec<Htlc>,
}

/// What is known of a channel with a funding output, to be shown.
pub(super) struct Known<'a> {
    /// The funding output.
    pub(super) funding: OutPoint,
    /// What it holds.
    pub(super) capacity_sat: u64,
    /// The number of the counterparty's newest commitment.
    pub(super) number: u64,
    /// What that pays us.
    pub(super) ours_sat: u64,
    /// Its outputs.
    pub(super) outputs: &'a [(u64, ScriptBuf)],
    /// Those of them that are shown HTLCs.
    pub(super) htlcs: &'a BTreeMap<u32, Htlc>,
    /// How many of our commitments are revoked, counted from number 0.
    pub(super) revoked: u64,
    /// The number of our newest commitment that the counterparty has a point for.
    pub(super) told: u64,
    /// Something that closes it was signed.
    pub(super) closing: bool,
}

/// A transaction that spends a funding output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spend {
    /// What it spends.
    pub(super) outpoint: OutPoint,
    /// What that holds.
    pub(super) amount_sat: u64,
    /// The 2-of-2.
    pub(super) script: ScriptBuf,
    /// Its id.
    pub(super) txid: Txid,
    /// What it pays us, as far as it can be told.
    pub(super) ours_sat: u64,
    /// All outputs.
    pub(super) outputs: Vec<(u64, ScriptBuf)>,
}

/// Our commitments that were signed to close are few: the one in force, and the next.
const MAX_CLOSED: usize = 2;

impl Channel {
    /// A channel whose first per-commitment point is asked for.
    pub(super) fn new(entity: &str, first: u64) -> Self {
        let entity = entity.to_owned();
        let version = VERSION;
        Self { version, entity, first, told: first, released: None, funding: None, closing: false, closed: vec![] }
    }

    /// Reads an entry.
    pub(super) fn read(entry: &[u8]) -> Option<Self> {
        let channel: Self = serde_json::from_slice(entry).ok()?;
        (1..=VERSION).contains(&channel.version).then_some(Self { version: VERSION, ..channel })
    }

    /// The entry.
    pub(super) fn entry(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and text always encode")
    }

    /// The point of `index` is told: one that was, or the next.
    pub(super) fn tell_point(&mut self, index: u64) -> Result<(), Refusal> {
        if index > self.first || index + 1 < self.told {
            let detail = format!("point {index}; the last one told is {}, the first was {}", self.told, self.first);
            return Err(Refusal::new(Reason::SecretOrder, detail));
        }
        self.told = self.told.min(index);
        Ok(())
    }

    /// The secret of `index` leaves: one that did, or the next, and only when its successor can be in force.
    pub(super) fn release_secret(&mut self, index: u64) -> Result<(), Refusal> {
        if self.released.is_some_and(|released| (released..=self.first).contains(&index)) {
            return Ok(());
        }
        let next = self.released.map_or(Some(self.first), |released| released.checked_sub(1));
        if next != Some(index) {
            let detail = format!("secret {index}; the next one is {next:?}");
            return Err(Refusal::new(Reason::SecretOrder, detail));
        }
        if self.told >= index {
            return Err(Refusal::new(Reason::SecretOrder, format!("the commitment after {index} has no point yet")));
        }
        if self.closing {
            return Err(Refusal::new(Reason::RevokeAfterClose, format!("secret {index} of a closing channel")));
        }
        self.released = Some(index);
        Ok(())
    }

    /// The counterparty's commitment is signed. Returns its number and by how much it pays us less than the one before.
    pub(super) fn counterparty_commitment(&mut self, spend: Spend, obscured: u64) -> Result<(u64, u64), Refusal> {
        let Spend { outpoint, amount_sat, script, txid, ours_sat, outputs } = spend;
        let Some(funding) = &mut self.funding else {
            if self.released.is_some() {
                let detail = "the channel has revoked commitments, and its first one was not signed here";
                return Err(Refusal::new(Reason::ChannelUnknown, detail));
            }
            let mask = obscured;
            let (number, htlcs) = (0, BTreeMap::new());
            self.funding = Some(Funding { outpoint, amount_sat, script, mask, number, txid, ours_sat, outputs, htlcs });
            return Ok((0, 0));
        };
        funding.require(outpoint, amount_sat, &script)?;
        let number = obscured ^ funding.mask;
        if txid == funding.txid {
            return Ok((number, 0));
        }
        if self.closing {
            return Err(Refusal::new(Reason::UpdateAfterClose, format!("commitment {number}")));
        }
        // The same number again: the peer lost the one before with its connection.
        if number != funding.number && number != funding.number + 1 {
            let fact = Fact::count("commitment_number", number).at_most(funding.number + 1);
            let detail = format!("commitment {number} after {}", funding.number);
            return Err(Refusal::new(Reason::CommitmentOrder, detail).with_fact(fact));
        }
        let less_sat = funding.ours_sat.saturating_sub(ours_sat);
        let htlcs = BTreeMap::new();
        *funding = Funding { number, txid, ours_sat, outputs, htlcs, script, ..*funding };
        Ok((number, less_sat))
    }

    /// A job shows what output `vout` of the counterparty's newest commitment is.
    pub(super) fn show(&mut self, vout: u32, htlc: Htlc) {
        if let Some(funding) = &mut self.funding {
            funding.htlcs.insert(vout, htlc);
        }
    }

    /// The counterparty's newest commitment.
    pub(super) fn newest(&self) -> Option<Newest> {
        let Funding { txid, ours_sat, htlcs, .. } = self.funding.as_ref()?;
        let mut htlcs: Vec<Htlc> = htlcs.values().copied().collect();
        htlcs.sort_unstable();
        Some(Newest { txid: *txid, ours_sat: *ours_sat, htlcs })
    }

    /// The funding output, once a commitment was signed that spends it.
    pub(super) fn outpoint(&self) -> Option<OutPoint> {
        self.funding.as_ref().map(|funding| funding.outpoint)
    }

    /// The number that hides behind `obscured`, of a commitment that follows the first one.
    pub(super) fn number(&self, obscured: u64) -> Option<u64> {
        self.funding.as_ref().map(|funding| obscured ^ funding.mask)
    }

    /// The number of our commitment whose secrets have this index.
    pub(super) fn number_of(&self, index: u64) -> Option<u64> {
        self.first.checked_sub(index)
    }

    /// All that can be shown of it; `None` before its first commitment.
    pub(super) fn known(&self) -> Option<Known<'_>> {
        let Funding { outpoint, amount_sat, number, ours_sat, outputs, htlcs, .. } = self.funding.as_ref()?;
        Some(Known {
            funding: *outpoint,
            capacity_sat: *amount_sat,
            number: *number,
            ours_sat: *ours_sat,
            outputs,
            htlcs,
            revoked: self.released.map_or(0, |released| self.first - released + 1),
            told: self.first - self.told,
            closing: self.closing,
        })
    }

    /// Our own commitment is signed, which closes the channel. Returns its number.
    pub(super) fn holder_commitment(&mut self, spend: &Spend, obscured: u64) -> Result<u64, Refusal> {
        let funding = self.funding()?;
        funding.require(spend.outpoint, spend.amount_sat, &spend.script)?;
        let number = obscured ^ funding.mask;
        let index = self.first.checked_sub(number).filter(|index| *index >= self.told);
        let Some(index) = index else {
            let last = self.first - self.told;
            let fact = Fact::count("commitment_number", number).at_most(last);
            return Err(
                Refusal::new(Reason::CommitmentOrder, format!("commitment {number} has no point yet")).with_fact(fact)
            );
        };
        if let Some(released) = self.released.filter(|released| *released <= index) {
            let fact = Fact::count("commitment_number", number).at_least(self.first - released + 1);
            return Err(Refusal::new(Reason::CommitmentRevoked, format!("commitment {number}")).with_fact(fact));
        }
        if !self.closed.contains(&index) {
            if self.closed.len() == MAX_CLOSED {
                return Err(Refusal::new(Reason::UpdateAfterClose, "other commitments close the channel"));
            }
            self.closed.push(index);
        }
        self.closing = true;
        Ok(number)
    }

    /// A mutual close is signed. It may pay us `fee_sat` less than the counterparty's last commitment.
    pub(super) fn mutual_close(&mut self, spend: &Spend, fee_sat: u64) -> Result<(), Refusal> {
        let funding = self.funding()?;
        funding.require(spend.outpoint, spend.amount_sat, &spend.script)?;
        let least_sat = funding.ours_sat.saturating_sub(fee_sat);
        if spend.ours_sat < least_sat {
            let detail =
                format!("the close pays us {} sat; the last commitment {} sat", spend.ours_sat, funding.ours_sat);
            let fact = Fact::number("ours", spend.ours_sat, Unit::Sat).at_least(least_sat);
            return Err(Refusal::new(Reason::CloseValue, detail).with_fact(fact));
        }
        self.closing = true;
        Ok(())
    }

    /// Whether the counterparty's newest commitment has this output.
    pub(super) fn has_output(&self, outpoint: &OutPoint, amount_sat: u64, script: &ScriptBuf) -> bool {
        self.funding.as_ref().filter(|funding| funding.txid == outpoint.txid).is_some_and(|funding| {
            let output = usize::try_from(outpoint.vout).ok().and_then(|at| funding.outputs.get(at));
            output.is_some_and(|(sat, known)| *sat == amount_sat && known == script)
        })
    }

    /// Whether the channel's commitments have paid us yet. The reserve (BOLT 2) keeps that from ending.
    pub(super) fn pays_us(&self) -> bool {
        self.funding.as_ref().is_some_and(|funding| funding.ours_sat > 0)
    }

    /// Indices of our commitments that were signed to close the channel.
    pub(super) fn closed(&self) -> &[u64] {
        &self.closed
    }

    fn funding(&self) -> Result<&Funding, Refusal> {
        let detail = "no commitment of the channel was signed here";
        self.funding.as_ref().ok_or_else(|| Refusal::new(Reason::ChannelUnknown, detail))
    }
}

impl Funding {
    fn require(&self, outpoint: OutPoint, amount_sat: u64, script: &ScriptBuf) -> Result<(), Refusal> {
        if (self.outpoint, self.amount_sat, &self.script) == (outpoint, amount_sat, script) {
            return Ok(());
        }
        let detail =
            format!("{outpoint} with {amount_sat} sat; the channel is {} with {} sat", self.outpoint, self.amount_sat);
        Err(Refusal::new(Reason::TransactionUnknown, detail))
    }
}
