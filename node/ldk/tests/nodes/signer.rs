//! The signer's state machine in this process, without link, journal or limits: what the traits rely on, and no more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bitcoin::Network;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use claviger::chain::{Attestor, ChainBlock, apply_block};
use claviger_demo::chain::Chain;
use claviger_ldk::{ChannelRef, LinkError, Refusal, RefusalReason, Transport};
use lightning_signer::channel::{Channel, ChannelId};
use lightning_signer::node::NodeServices;
use lightning_signer::policy::simple_validator::SimpleValidatorFactory;
use lightning_signer::signer::ClockStartingTimeFactory;
use lightning_signer::util::clock::StandardClock;
use vls_persist::kvv::memory::MemoryKVVStore;
use vls_persist::kvv::{JsonFormat, KVVPersister};
use vls_protocol::model::{PubKey, Secret};
use vls_protocol::msgs::{self, DeBolt, Message, SerBolt};
use vls_protocol_signer::approver::PositiveApprover;
use vls_protocol_signer::handler::{Error, Handler, HandlerBuilder, RootHandler};

type Question = (Option<ChannelRef>, Vec<u8>);

pub struct VlsSigner {
    root: Mutex<RootHandler>,
    chain: Arc<Chain>,
    attestor: Attestor,
    height: Mutex<u32>,
    pub away: AtomicBool,
    /// The same question gets the same answer (P5).
    last: Mutex<Option<(Question, Vec<u8>)>>,
    /// Answers to withhold, after the request was carried out.
    pub lose_replies: AtomicU64,
    pub refusals: Mutex<Vec<String>>,
    pub requests: AtomicU64,
}

impl VlsSigner {
    pub fn new(seed: [u8; 32], chain: Arc<Chain>) -> Arc<Self> {
        let attestor = Attestor::new(&SecretKey::from_slice(&[0x77; 32]).unwrap());
        let services = NodeServices {
            validator_factory: Arc::new(SimpleValidatorFactory::new()),
            starting_time_factory: ClockStartingTimeFactory::new(),
            persister: Arc::new(KVVPersister(MemoryKVVStore::new([0; 16]), JsonFormat)),
            clock: Arc::new(StandardClock()),
            trusted_oracle_pubkeys: vec![attestor.public_key()],
        };
        let mut init = HandlerBuilder::new(Network::Regtest, 0, services, seed)
            .approver(Arc::new(PositiveApprover()))
            .max_protocol_version(6)
            .build()
            .unwrap();
        // The version is negotiated in the dialect that has versions; an LDK node asks in the other one.
        let hello = msgs::HsmdInit {
            key_version: vls_protocol::model::Bip32KeyVersion { pubkey_version: 0, privkey_version: 0 },
            chain_params: bitcoin::constants::genesis_block(Network::Regtest).block_hash(),
            encryption_key: None,
            dev_privkey: None,
            dev_bip32_seed: None,
            dev_channel_secrets: None,
            dev_channel_secrets_shaseed: None,
            hsm_wire_min_version: 6,
            hsm_wire_max_version: 6,
        };
        init.handle(Message::HsmdInit(hello)).unwrap();
        let signer = Arc::new(Self {
            root: Mutex::new(init.into()),
            chain,
            attestor,
            height: Mutex::new(0),
            away: AtomicBool::new(false),
            last: Mutex::default(),
            lose_replies: AtomicU64::new(0),
            refusals: Mutex::default(),
            requests: AtomicU64::new(0),
        });
        signer.follow();
        signer
    }

    /// Shows the chain to the signer.
    pub fn follow(&self) {
        let root = self.root.lock().unwrap();
        let mut height = self.height.lock().unwrap();
        while let Some(block) = self.chain.block_at(*height + 1) {
            *height += 1;
            apply_block(root.node(), &ChainBlock::new(*height, (*block).clone()), &self.attestor).unwrap();
        }
    }

    fn handle(&self, channel: Option<ChannelRef>, message: Vec<u8>) -> Result<Vec<u8>, (String, bool)> {
        let number = u16::from_be_bytes([message[0], message[1]]);
        let message = match number {
            20 => msgs::SignLocalHtlcTx2::from_vec(message).map(Message::SignLocalHtlcTx2),
            _ => msgs::from_vec(message),
        }
        .map_err(|e| (format!("{e:?}"), false))?;
        let root = self.root.lock().unwrap();
        if let Message::HsmdInit2(_) = message {
            let node = root.node();
            let reply = msgs::HsmdInit2Reply {
                node_id: PubKey(node.get_id().serialize()),
                bip32: vls_protocol::model::ExtKey(node.get_account_extended_pubkey().encode()),
                bolt12: PubKey(node.get_bolt12_pubkey().serialize()),
                peer_storage_key: Secret(node.get_peer_storage_key_bytes()),
                inbound_payment_key: Secret(node.get_inbound_payment_key_bytes()),
            };
            return Ok(reply.as_vec());
        }
        if let (Message::GetPerCommitmentPoint2(asked), Some(channel)) = (&message, channel)
            && let Some(point) = look_ahead(&root, channel, asked.commitment_number)
        {
            return Ok(msgs::GetPerCommitmentPoint2Reply { point: PubKey(point.serialize()) }.as_vec());
        }
        let name = format!("{message:?}");
        let name = name.split([' ', '(']).nth(1).unwrap_or_default().to_string();
        let reply = catch_unwind(AssertUnwindSafe(|| match channel {
            Some(ChannelRef { peer_id, dbid }) => root.for_new_client(1, PubKey(peer_id), dbid).handle(message),
            None => root.handle(message),
        }));
        match reply {
            Ok(Ok(reply)) => Ok(reply.as_vec()),
            Ok(Err(Error::Temporary(status))) => Err((format!("{number} {name}: {}", status.message()), true)),
            Ok(Err(Error::Signing(status))) => Err((format!("{number} {name}: {}", status.message()), false)),
            Ok(Err(Error::Protocol(error))) => Err((format!("{number} {name}: {error:?}"), false)),
            Err(_) => Err((format!("{number} {name}: panicked"), false)),
        }
    }
}

impl Transport for VlsSigner {
    fn call(&self, channel: Option<ChannelRef>, message: Vec<u8>) -> Result<Vec<u8>, LinkError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(LinkError::Down("switched off".into()));
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let mut last = self.last.lock().unwrap();
        let reply = match &*last {
            Some((asked, reply)) if *asked == (channel, message.clone()) => Ok(reply.clone()),
            _ => self.handle(channel, message.clone()),
        };
        *last = reply.as_ref().ok().map(|reply| ((channel, message), reply.clone()));
        if self.lose_replies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(LinkError::Down("the reply was lost".into()));
        }
        reply.map_err(|(detail, retry)| {
            println!("refused: {detail}");
            self.refusals.lock().unwrap().push(detail.clone());
            let reason = RefusalReason { id: "validation".into(), detail, hint: String::new() };
            LinkError::Refused(Refusal { request: "test".into(), reasons: vec![reason], retry })
        })
    }
}

/// LDK wants the point after the next one before it revokes: one more than vls-core gives, which has revoked by then in
/// its own LDK dialect.
fn look_ahead(root: &RootHandler, channel: ChannelRef, commitment_number: u64) -> Option<PublicKey> {
    let id = ChannelId::new_from_peer_id_and_oid(&channel.peer_id, channel.dbid);
    let point = |channel: &mut Channel| {
        let allowed = commitment_number == channel.enforcement_state.next_holder_commit_num + 2;
        let index = (1 << 48) - 1 - commitment_number;
        Ok(if allowed { channel.keys.get_per_commitment_point(index, &Secp256k1::new()).ok() } else { None })
    };
    root.node().with_channel(&id, point).ok().flatten()
}
