//! The values of a node's entries: one version byte, then CBOR (RFC 8949) with named fields.

use bitcoin::consensus;
use bitcoin::secp256k1::PublicKey;
use ciborium::Value;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lightning_signer::chain::tracker::{ChainTracker, Headers, ListenSlot};
use lightning_signer::channel::{Channel, ChannelId, ChannelStub};
use lightning_signer::monitor::{ChainMonitor, State};
use lightning_signer::node::{NodeState, RoutedPayment};
use lightning_signer::persist::Error;
use lightning_signer::persist::model::ChannelEntry;
use lightning_signer::policy::validator::EnforcementState;
use lightning_signer::util::velocity::VelocityControl;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

/// The version this build writes, and the only one it reads.
pub(super) const VERSION: u8 = 1;

/// Why a value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    Version(u8),
    Damaged(String),
}

/// Encodes a record.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, Error> {
    let mut value = vec![VERSION];
    ciborium::into_writer(record, &mut value).map_err(|e| Error::SerdeError(e.to_string()))?;
    Ok(value)
}

/// Decodes a record.
pub(super) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, Unreadable> {
    match value.split_first() {
        Some((&VERSION, cbor)) => ciborium::from_reader(cbor).map_err(|e| Unreadable::Damaged(e.to_string())),
        Some((&version, _)) => Err(Unreadable::Version(version)),
        None => Err(Unreadable::Damaged("empty value".to_owned())),
    }
}

/// Which node this is: fixed when it is created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) node_id: PublicKey,
    pub(super) network: String,
    pub(super) key_derivation_style: u8,
}

/// Entry `node`: the small part of a node's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct NodeRecord {
    pub(super) identity: Identity,
    pub(super) excess_amount_sat: u64,
    pub(super) dbid_high_water_mark: u64,
    /// Absent until the node has run once.
    pub(super) velocity: Option<Velocities>,
}

/// What was spent in which interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Velocities {
    pub(super) payments: VelocityRecord,
    pub(super) fees: VelocityRecord,
}

impl Velocities {
    /// When the newest slice of either begins.
    pub(super) fn latest_time_s(&self) -> u64 {
        self.payments.start_sec.max(self.fees.start_sec)
    }
}

/// A `VelocityControl`; amounts in millisatoshi.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct VelocityRecord {
    start_sec: u64,
    bucket_interval: u32,
    buckets_msat: Vec<u64>,
    limit_msat: u64,
}

impl NodeRecord {
    pub(super) fn new(identity: Identity, state: &NodeState) -> Self {
        Self {
            identity,
            excess_amount_sat: state.excess_amount,
            dbid_high_water_mark: state.dbid_high_water_mark,
            velocity: Some(Velocities {
                payments: (&state.velocity_control).into(),
                fees: (&state.fee_velocity_control).into(),
            }),
        }
    }
}

impl From<&VelocityControl> for VelocityRecord {
    fn from(control: &VelocityControl) -> Self {
        Self {
            start_sec: control.start_sec,
            bucket_interval: control.bucket_interval,
            buckets_msat: control.buckets.clone(),
            limit_msat: control.limit,
        }
    }
}

impl From<VelocityRecord> for VelocityControl {
    fn from(record: VelocityRecord) -> Self {
        Self {
            start_sec: record.start_sec,
            bucket_interval: record.bucket_interval,
            buckets: record.buckets_msat,
            limit: record.limit_msat,
        }
    }
}

/// Entry `payment/<hash>`: what flows in and out for one payment hash.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PaymentRecord {
    incoming_sat: Vec<(ChannelId, u64)>,
    outgoing_sat: Vec<(ChannelId, u64)>,
    incoming_cltv_min: Option<u32>,
    outgoing_cltv_max: Option<u32>,
    preimage: Option<ByteArray<32>>,
}

impl From<&RoutedPayment> for PaymentRecord {
    fn from(payment: &RoutedPayment) -> Self {
        Self {
            incoming_sat: payment.incoming.clone().into_iter().collect(),
            outgoing_sat: payment.outgoing.clone().into_iter().collect(),
            incoming_cltv_min: payment.incoming_cltv_min,
            outgoing_cltv_max: payment.outgoing_cltv_max,
            preimage: payment.preimage.map(|preimage| ByteArray::new(preimage.0)),
        }
    }
}

impl From<PaymentRecord> for RoutedPayment {
    fn from(record: PaymentRecord) -> Self {
        Self {
            incoming: record.incoming_sat.into_iter().collect(),
            outgoing: record.outgoing_sat.into_iter().collect(),
            incoming_cltv_min: record.incoming_cltv_min,
            outgoing_cltv_max: record.outgoing_cltv_max,
            preimage: record.preimage.map(|preimage| PaymentPreimage(preimage.into_array())),
        }
    }
}

/// Entry `channel/<id0>`: what vls keeps of a channel, and whether the node forgot it.
#[derive(Serialize, Deserialize)]
pub(super) struct ChannelRecord {
    pub(super) entry: ChannelEntry,
    /// vls keeps this flag in the chain monitor, but tells the persister only about the channel when it is set.
    pub(super) forgotten: bool,
}

impl ChannelRecord {
    pub(super) fn stub(stub: &ChannelStub) -> Self {
        let entry = ChannelEntry {
            channel_value_satoshis: 0,
            channel_setup: None,
            id: None,
            enforcement_state: EnforcementState::new(0),
            blockheight: Some(stub.blockheight),
        };
        Self { entry, forgotten: false }
    }

    pub(super) fn ready(channel: &Channel) -> Self {
        let entry = ChannelEntry {
            channel_value_satoshis: channel.setup.channel_value_sat,
            channel_setup: Some(channel.setup.clone()),
            id: channel.id.clone(),
            enforcement_state: channel.enforcement_state.clone(),
            blockheight: None,
        };
        Self { entry, forgotten: channel.monitor.forget_seen() }
    }
}

/// The payment hashes of all HTLCs that a channel's state mentions.
pub(super) fn payment_hashes(state: &EnforcementState) -> Vec<PaymentHash> {
    let commitments = [
        state.current_holder_commit_info.as_ref(),
        state.next_holder_commit_info.as_ref().map(|(info, _)| info),
        state.current_counterparty_commit_info.as_ref(),
        state.previous_counterparty_commit_info.as_ref(),
    ];
    let mut hashes: Vec<PaymentHash> = commitments
        .into_iter()
        .flatten()
        .flat_map(|info| info.offered_htlcs.iter().chain(&info.received_htlcs))
        .map(|htlc| htlc.payment_hash)
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// Entries `tracker` (the tip) and `header/<height>` (the remembered ones before it).
#[derive(Serialize, Deserialize)]
pub(super) struct HeaderRecord {
    pub(super) height: u32,
    /// Block header and BIP157 filter header, consensus encoded.
    headers: ByteBuf,
}

impl HeaderRecord {
    pub(super) fn new(height: u32, headers: &Headers) -> Self {
        Self { height, headers: ByteBuf::from(consensus::serialize(headers)) }
    }

    pub(super) fn headers(&self) -> Result<Headers, Unreadable> {
        consensus::deserialize(&self.headers).map_err(|e| Unreadable::Damaged(e.to_string()))
    }
}

/// Entry `listener/<funding outpoint>`: what the chain did to a channel, written so that it does not change when a
/// block passes that does not concern the channel.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ListenerRecord {
    /// Tracker height minus monitor height: zero, unless the monitor joined in the middle of a streamed block.
    lag: i64,
    /// The monitor's state without the fields of [`VOLATILE`].
    state: Value,
    slot: ListenSlot,
}

const HEIGHT: &str = "height";
const SAW_FORGET_CHANNEL: &str = "saw_forget_channel";

/// - `height` follows the tracker, see `lag`;
/// - `saw_block` only tells whether a block that is being streamed was seen from its start; nobody is in the middle of a
///   block after a restart, and the next block sets it;
/// - `saw_forget_channel` is kept with the channel.
const VOLATILE: [&str; 3] = [HEIGHT, "saw_block", SAW_FORGET_CHANNEL];

impl ListenerRecord {
    pub(super) fn new(
        monitor: &ChainMonitor,
        slot: &ListenSlot,
        tracker: &ChainTracker<ChainMonitor>,
    ) -> Result<Self, Error> {
        let height = monitor.as_base().as_chain_state().current_height;
        let mut state = Value::serialized(&*monitor.get_state()).map_err(|e| Error::SerdeError(e.to_string()))?;
        fields(&mut state)
            .ok_or_else(|| Error::SerdeError("a monitor's state is not a map".to_owned()))?
            .retain(|(name, _)| !VOLATILE.iter().any(|volatile| name.as_text() == Some(volatile)));
        Ok(Self { lag: i64::from(tracker.height()) - i64::from(height), state, slot: slot.clone() })
    }

    /// The monitor's state at the tracker's `height`.
    pub(super) fn restore(mut self, height: u32, forgotten: bool) -> Result<(State, ListenSlot), Unreadable> {
        let height = i64::from(height) - self.lag;
        fields(&mut self.state)
            .ok_or_else(|| Unreadable::Damaged("not a map".to_owned()))?
            .extend([(HEIGHT.into(), height.into()), (SAW_FORGET_CHANNEL.into(), forgotten.into())]);
        let state = self.state.deserialized().map_err(|e| Unreadable::Damaged(e.to_string()))?;
        Ok((state, self.slot))
    }
}

fn fields(state: &mut Value) -> Option<&mut Vec<(Value, Value)>> {
    match state {
        Value::Map(fields) => Some(fields),
        _ => None,
    }
}
