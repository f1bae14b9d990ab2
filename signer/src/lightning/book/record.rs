//! The book's entries in the journal: one version byte, then CBOR (RFC 8949).
//!
//! | entry | holds | changes with |
//! |---|---|---|
//! | `book/channel/<peer id>:<dbid>` | terms, standing, valid commitments | commitments, revocations, closes |
//! | `book/close/<peer id>:<dbid>` | what the chain shows of the channel's close | blocks that hold some of it |
//! | `book/batch/<peer id>:<dbid>/<ours or theirs>/<number>` | what that commitment removed, as far as it is not told apart | the same, and who relies on it |
//! | `book/payment/<hash>` | approval, preimage, what settled | those; not HTLCs in flight, which channels hold |
//! | `book/dust` | the balance of dust | commitments that move it, small approvals |

use std::collections::BTreeMap;

use bitcoin::Txid;
use bitcoin::hashes::Hash as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::batch::{Batch, Removed};
use super::channel::{Chain, Channel, Held, Settlement};
use super::close::{Close, CloseOutput, Spent};
use super::commitment::Span;
use super::facts::{Approval, ChannelKey, Commitment, Direction, Hash, Htlc, Side, Terms};
use super::payment::{Payment, Settled, Sums};
use super::view::Standing;
use super::{Book, PREFIX};
use crate::journal::Put;

const VERSION: u8 = 2;
const BATCH: &str = "batch/";
const CHANNEL: &str = "channel/";
const CLOSE: &str = "close/"; // read after the channels: entries come in the order of their keys
const PAYMENT: &str = "payment/";
const DUST: &str = "dust";

/// An entry of the book was not written by this version, or is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the channel book's entry {0} cannot be read")]
pub struct BookUnreadable(pub String);

#[derive(Serialize, Deserialize)]
struct ChannelRecord {
    terms: Terms,
    standing: u8,
    ours: (Option<HeldRecord>, Option<HeldRecord>),
    theirs: (Option<HeldRecord>, Option<HeldRecord>),
}

/// Number, feerate, to us, to them, HTLCs of [`HTLC_BYTES`] each, settled (lowest, highest), dust lost, settlements of
/// [`SETTLEMENT_BYTES`] each, batch.
#[derive(Serialize, Deserialize)]
struct HeldRecord(u64, u32, u64, u64, ByteBuf, u64, u64, i64, ByteBuf, Option<BatchRecord>);

/// HTLCs of [`REMOVED_BYTES`] each, failed, credited, blurred.
#[derive(Serialize, Deserialize)]
struct BatchRecord(ByteBuf, u64, u64, u64);

const HTLC_BYTES: usize = 32 + 1 + 8 + 4;
const SETTLEMENT_BYTES: usize = 32 + 8 + 8;
const REMOVED_BYTES: usize = 32 + 8 + 8;

/// Transaction id, height, outputs.
#[derive(Serialize, Deserialize)]
struct CloseRecord(ByteArray<32>, u32, Vec<CloseOutputRecord>);

/// Number, amount in sat; what spent it: height, payment hash, whether it showed the preimage.
#[derive(Serialize, Deserialize)]
struct CloseOutputRecord(u32, u64, Option<(u32, Option<ByteArray<32>>, bool)>);

#[derive(Serialize, Deserialize)]
struct PaymentRecord {
    /// Amount, end and the highest routing fee.
    approval: Option<(u64, u64, u64)>,
    small_msat: u64,
    lent_msat: u64,
    preimage: Option<ByteArray<32>>,
    /// Channel; out and in, by our commitments and by theirs.
    settled: Vec<(String, SumsRecord, SumsRecord)>,
}

type SumsRecord = (u64, u64);

/// The entries of what is dirty, which is then clean.
pub(super) fn changes(book: &mut Book) -> Vec<Put> {
    let dirty = std::mem::take(&mut book.dirty);
    let mut puts = Vec::with_capacity(dirty.channels.len() + dirty.payments.len() + 1);
    for key in dirty.channels {
        let value = book.channels.get(&key).map(|channel| encode(&ChannelRecord::from(channel)));
        puts.push(Put { key: format!("{PREFIX}{CHANNEL}{key}"), value });
    }
    for key in dirty.closes {
        let close = book.channels.get(&key).and_then(|channel| channel.close.as_ref());
        let value = close.map(|close| encode(&CloseRecord::from(close)));
        puts.push(Put { key: format!("{PREFIX}{CLOSE}{key}"), value });
    }
    for (key, is_ours, number) in dirty.batches {
        let side = if is_ours { Side::Ours } else { Side::Theirs };
        let known = book.batches.get(&key).into_iter().flatten();
        let batch = known.into_iter().find(|batch| batch.side == side && batch.number == number);
        let value = batch.map(|batch| encode(&BatchRecord::from(batch)));
        puts.push(Put { key: format!("{PREFIX}{BATCH}{key}/{}/{number:016x}", side_name(side)), value });
    }
    for hash in dirty.payments {
        let value = match book.payments.get_mut(&hash) {
            None => None,
            Some(payment) if payment.is_durable() => {
                payment.stored = true;
                Some(encode(&PaymentRecord::from(&*payment)))
            }
            Some(_) => continue, // follows from the channels
        };
        puts.push(Put { key: format!("{PREFIX}{PAYMENT}{hash}"), value });
    }
    if dirty.dust {
        puts.push(Put { key: format!("{PREFIX}{DUST}"), value: Some(encode(&book.dust)) });
    }
    puts
}

/// Fills an empty book.
pub(super) fn read(book: &mut Book, entries: &BTreeMap<String, Vec<u8>>) -> Result<(), BookUnreadable> {
    for (key, value) in entries {
        read_entry(book, key, value).ok_or_else(|| BookUnreadable(key.clone()))?;
    }
    for (key, channel) in &book.channels {
        for (_, held) in channel.valid() {
            let dust_below_msat = channel.terms.dust_below_msat(held.commitment.feerate_per_kw);
            book.dust_below_msat = book.dust_below_msat.max(dust_below_msat);
            for htlc in held.commitment.regular(&channel.terms) {
                let channels = &mut book.payments.entry(htlc.payment_hash).or_default().channels;
                if !channels.contains(key) {
                    channels.push(key.clone());
                }
            }
        }
    }
    Ok(())
}

fn read_entry(book: &mut Book, key: &str, value: &[u8]) -> Option<()> {
    let name = key.strip_prefix(PREFIX)?;
    if let Some(batch) = name.strip_prefix(BATCH) {
        let (rest, number) = batch.rsplit_once('/')?;
        let (channel, side) = rest.rsplit_once('/')?;
        let side = [Side::Ours, Side::Theirs].into_iter().find(|known| side_name(*known) == side)?;
        let record: BatchRecord = decode(value)?;
        let batch = record.into_batch(side, u64::from_str_radix(number, 16).ok()?)?;
        book.batches.entry(ChannelKey(channel.into())).or_default().push(batch);
    } else if let Some(channel) = name.strip_prefix(CHANNEL) {
        let record: ChannelRecord = decode(value)?;
        book.channels.insert(ChannelKey(channel.into()), record.into_channel()?);
    } else if let Some(channel) = name.strip_prefix(CLOSE) {
        let record: CloseRecord = decode(value)?;
        book.channels.get_mut(&ChannelKey(channel.into()))?.close = Some(record.into());
    } else if let Some(hash) = name.strip_prefix(PAYMENT) {
        let mut bytes = [0; 32];
        hex::decode_to_slice(hash, &mut bytes).ok()?;
        let record: PaymentRecord = decode(value)?;
        book.payments.insert(Hash(bytes), record.into());
    } else if name == DUST {
        book.dust = decode(value)?;
    } else {
        return None;
    }
    Some(())
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Ours => "ours",
        Side::Theirs => "theirs",
    }
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    let mut value = vec![VERSION];
    ciborium::into_writer(record, &mut value).expect("plain data always encodes, and a Vec takes all of it");
    value
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    match value.split_first() {
        Some((&VERSION, cbor)) => ciborium::from_reader(cbor).ok(),
        _ => None,
    }
}

impl From<&Channel> for ChannelRecord {
    fn from(channel: &Channel) -> Self {
        let chain = |side| {
            let Chain { current, next } = channel.chain(side);
            (current.as_ref().map(HeldRecord::from), next.as_ref().map(HeldRecord::from))
        };
        Self {
            terms: channel.terms.clone(),
            standing: channel.standing as u8,
            ours: chain(Side::Ours),
            theirs: chain(Side::Theirs),
        }
    }
}

impl ChannelRecord {
    fn into_channel(self) -> Option<Channel> {
        let chain = |side, (current, next): (Option<HeldRecord>, Option<HeldRecord>)| {
            let held = |record: Option<HeldRecord>| match record {
                Some(record) => record.into_held(side).map(Some),
                None => Some(None),
            };
            Some(Chain { current: held(current)?, next: held(next)? })
        };
        let standing = [Standing::Ready, Standing::Closing, Standing::Closed];
        let standing = standing.into_iter().find(|standing| *standing as u8 == self.standing)?;
        let (ours, theirs) = (chain(Side::Ours, self.ours)?, chain(Side::Theirs, self.theirs)?);
        Some(Channel { terms: self.terms, standing, ours, theirs, close: None })
    }
}

impl From<&Close> for CloseRecord {
    fn from(close: &Close) -> Self {
        let spent = |spent: Spent| {
            let payment_hash = spent.payment_hash.map(|hash| ByteArray::new(hash.0));
            (spent.height, payment_hash, spent.with_preimage)
        };
        let outputs = close.outputs.iter();
        let outputs = outputs.map(|output| CloseOutputRecord(output.vout, output.amount_sat, output.spent.map(spent)));
        Self(ByteArray::new(close.txid.to_byte_array()), close.height, outputs.collect())
    }
}

impl From<CloseRecord> for Close {
    fn from(CloseRecord(txid, height, outputs): CloseRecord) -> Self {
        let outputs = outputs.into_iter().map(|CloseOutputRecord(vout, amount_sat, spent)| CloseOutput {
            vout,
            amount_sat,
            spent: spent.map(|(height, hash, with_preimage)| Spent {
                height,
                payment_hash: hash.map(|hash| Hash(hash.into_array())),
                with_preimage,
            }),
        });
        Self { txid: Txid::from_byte_array(txid.into_array()), height, outputs: outputs.collect() }
    }
}

impl From<&Held> for HeldRecord {
    fn from(held: &Held) -> Self {
        let Commitment { number, feerate_per_kw, to_us_sat, to_them_sat, htlcs } = &held.commitment;
        let mut packed = Vec::with_capacity(htlcs.len() * HTLC_BYTES);
        for htlc in htlcs {
            packed.extend(htlc.payment_hash.0);
            packed.push((htlc.direction == Direction::In).into());
            packed.extend(htlc.amount_msat.to_be_bytes());
            packed.extend(htlc.cltv_expiry.to_be_bytes());
        }
        let mut settlements = Vec::with_capacity(held.settlements.len() * SETTLEMENT_BYTES);
        for settlement in &held.settlements {
            settlements.extend(settlement.payment_hash.0);
            settlements.extend(settlement.out_msat.to_be_bytes());
            settlements.extend(settlement.in_msat.to_be_bytes());
        }
        // A balance that was read from outputs is not negative.
        let msat = |msat: i128| u64::try_from(msat.max(0)).unwrap_or(u64::MAX);
        let (lo, hi) = (msat(held.settled.lo), msat(held.settled.hi));
        let (packed, settlements) = (ByteBuf::from(packed), ByteBuf::from(settlements));
        let batch = held.batch.as_ref().map(BatchRecord::from);
        Self(
            *number,
            *feerate_per_kw,
            *to_us_sat,
            *to_them_sat,
            packed,
            lo,
            hi,
            held.dust_lost_msat,
            settlements,
            batch,
        )
    }
}

impl HeldRecord {
    fn into_held(self, side: Side) -> Option<Held> {
        let Self(number, feerate_per_kw, to_us_sat, to_them_sat, htlcs, lo, hi, dust_lost_msat, settlements, batch) =
            self;
        let htlcs = unpack(&htlcs, HTLC_BYTES, |bytes| {
            let (direction, rest) = bytes.split_first()?;
            let direction = if *direction == 0 { Direction::Out } else { Direction::In };
            let (amount_msat, cltv_expiry) = rest.split_first_chunk::<8>()?;
            let cltv_expiry = u32::from_be_bytes(cltv_expiry.try_into().ok()?);
            Some((direction, u64::from_be_bytes(*amount_msat), cltv_expiry))
        })?;
        let htlcs = htlcs.into_iter().map(|(payment_hash, (direction, amount_msat, cltv_expiry))| Htlc {
            payment_hash,
            direction,
            amount_msat,
            cltv_expiry,
        });
        let settlements = unpack(&settlements, SETTLEMENT_BYTES, |bytes| {
            let (amounts, _) = bytes.as_chunks::<8>();
            let [out_msat, in_msat] = <[[u8; 8]; 2]>::try_from(amounts).ok()?.map(u64::from_be_bytes);
            Some((out_msat, in_msat))
        })?;
        let settlements = settlements.into_iter();
        let settlements =
            settlements.map(|(payment_hash, (out_msat, in_msat))| Settlement { payment_hash, out_msat, in_msat });
        let batch = match batch {
            Some(record) => Some(record.into_batch(side, number)?),
            None => None,
        };
        Some(Held {
            commitment: Commitment { number, feerate_per_kw, to_us_sat, to_them_sat, htlcs: htlcs.collect() },
            settled: Span { lo: lo.into(), hi: hi.into() },
            dust_lost_msat,
            settlements: settlements.collect(),
            batch,
        })
    }
}

impl From<&Batch> for BatchRecord {
    fn from(batch: &Batch) -> Self {
        let mut packed = Vec::with_capacity(batch.htlcs.len() * REMOVED_BYTES);
        for htlc in &batch.htlcs {
            packed.extend(htlc.payment_hash.0);
            packed.extend(htlc.out_msat.to_be_bytes());
            packed.extend(htlc.paid_msat.to_be_bytes());
        }
        Self(ByteBuf::from(packed), batch.failed_msat, batch.credited_msat, batch.blurred_msat)
    }
}

impl BatchRecord {
    fn into_batch(self, side: Side, number: u64) -> Option<Batch> {
        let Self(htlcs, failed_msat, credited_msat, blurred_msat) = self;
        let htlcs = unpack(&htlcs, REMOVED_BYTES, |bytes| {
            let (amounts, _) = bytes.as_chunks::<8>();
            Some(<[[u8; 8]; 2]>::try_from(amounts).ok()?.map(u64::from_be_bytes))
        })?;
        let htlcs = htlcs.into_iter();
        let htlcs = htlcs.map(|(payment_hash, [out_msat, paid_msat])| Removed { payment_hash, out_msat, paid_msat });
        Some(Batch { side, number, htlcs: htlcs.collect(), failed_msat, credited_msat, blurred_msat })
    }
}

/// Records of `size` bytes that begin with a hash.
fn unpack<T>(bytes: &[u8], size: usize, rest: impl Fn(&[u8]) -> Option<T>) -> Option<Vec<(Hash, T)>> {
    if !bytes.len().is_multiple_of(size) {
        return None;
    }
    let one = |record: &[u8]| {
        let (hash, tail) = record.split_first_chunk::<32>()?;
        Some((Hash(*hash), rest(tail)?))
    };
    bytes.chunks(size).map(one).collect()
}

impl From<&Payment> for PaymentRecord {
    fn from(payment: &Payment) -> Self {
        let sums = |sums: &Sums| (sums.out_msat, sums.in_msat);
        let settled = payment.settled.iter();
        let settled = settled.map(|settled| (settled.channel.to_string(), sums(&settled.ours), sums(&settled.theirs)));
        Self {
            approval: payment
                .approval
                .map(|approval| (approval.amount_msat, approval.expires_ms, approval.max_fee_msat)),
            small_msat: payment.small_msat,
            lent_msat: payment.lent_msat,
            preimage: payment.preimage.map(ByteArray::new),
            settled: settled.collect(),
        }
    }
}

impl From<PaymentRecord> for Payment {
    fn from(record: PaymentRecord) -> Self {
        let approval = record.approval.map(|(amount_msat, expires_ms, max_fee_msat)| Approval {
            amount_msat,
            expires_ms,
            max_fee_msat,
        });
        let sums = |(out_msat, in_msat): SumsRecord| Sums { out_msat, in_msat };
        let settled = record.settled.into_iter();
        let settled = settled.map(|(channel, ours, theirs)| Settled {
            channel: ChannelKey(channel.into()),
            ours: sums(ours),
            theirs: sums(theirs),
        });
        Self {
            approval,
            small_msat: record.small_msat,
            lent_msat: record.lent_msat,
            preimage: record.preimage.map(ByteArray::into_array),
            settled: settled.collect(),
            channels: Vec::new(),
            stored: true,
        }
    }
}
