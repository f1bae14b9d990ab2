//! Opening a driver's channel: keys, terms and the transaction that funds it.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use lightning::chain::transaction::OutPoint as FundingOutpoint;
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, CounterpartyChannelTransactionParameters,
};
use lightning::types::features::ChannelTypeFeatures;
use lightning_signer::channel::CommitmentType;
use vls_protocol::model::PubKey;
use vls_protocol::msgs;
use vls_protocol_signer::util::commitment_type_to_channel_type;

use super::{CHANNEL_SAT, CONTEST_DELAY, DriverError, Funder, public_key};

pub(super) fn channel_public_keys(reply: &msgs::GetChannelBasepointsReply) -> Result<ChannelPublicKeys, DriverError> {
    Ok(ChannelPublicKeys {
        funding_pubkey: public_key(&reply.funding)?,
        revocation_basepoint: public_key(&reply.basepoints.revocation)?.into(),
        payment_point: public_key(&reply.basepoints.payment)?,
        delayed_payment_basepoint: public_key(&reply.basepoints.delayed_payment)?.into(),
        htlc_basepoint: public_key(&reply.basepoints.htlc)?.into(),
    })
}

pub(super) fn setup_message(theirs: &ChannelPublicKeys, outpoint: OutPoint, funder: Funder) -> msgs::SetupChannel {
    let (is_outbound, push_sat) = match funder {
        Funder::Us => (true, 0),
        Funder::Peer { to_us_sat } => (false, to_us_sat),
    };
    msgs::SetupChannel {
        is_outbound,
        channel_value: CHANNEL_SAT,
        push_value: push_sat * 1_000,
        funding_txid: outpoint.txid,
        funding_txout: outpoint.vout as u16,
        to_self_delay: CONTEST_DELAY,
        local_shutdown_script: Vec::new().into(),
        local_shutdown_wallet_index: None,
        remote_basepoints: vls_protocol::model::Basepoints {
            revocation: PubKey(theirs.revocation_basepoint.0.serialize()),
            payment: PubKey(theirs.payment_point.serialize()),
            htlc: PubKey(theirs.htlc_basepoint.0.serialize()),
            delayed_payment: PubKey(theirs.delayed_payment_basepoint.0.serialize()),
        },
        remote_funding_pubkey: PubKey(theirs.funding_pubkey.serialize()),
        remote_to_self_delay: CONTEST_DELAY,
        remote_shutdown_script: Vec::new().into(),
        channel_type: commitment_type_to_channel_type(CommitmentType::AnchorsZeroFeeHtlc).into(),
    }
}

/// As the peer sees them.
pub(super) fn parameters(
    theirs: ChannelPublicKeys,
    ours: ChannelPublicKeys,
    outpoint: OutPoint,
    funder: Funder,
) -> ChannelTransactionParameters {
    let mut features = ChannelTypeFeatures::empty();
    features.set_static_remote_key_required();
    features.set_anchors_zero_fee_htlc_tx_required();
    ChannelTransactionParameters {
        holder_pubkeys: theirs,
        holder_selected_contest_delay: CONTEST_DELAY,
        is_outbound_from_holder: funder != Funder::Us,
        counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
            pubkeys: ours,
            selected_contest_delay: CONTEST_DELAY,
        }),
        funding_outpoint: Some(FundingOutpoint { txid: outpoint.txid, index: outpoint.vout as u16 }),
        splice_parent_funding_txid: None,
        channel_type_features: features,
        channel_value_satoshis: CHANNEL_SAT,
    }
}

/// Spends a coin that no chain has.
pub(super) fn funding_transaction(script: &bitcoin::Script, amount: Amount, dbid: u64) -> Transaction {
    let mut coin = [0x11; 32];
    coin[..8].copy_from_slice(&dbid.to_be_bytes());
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array(coin), vout: 0 },
            script_sig: Default::default(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: amount, script_pubkey: script.to_owned() }],
    }
}
