//! The hsmd messages a node may send, in one table, and their decoding.
//!
//! What is not in the table is not decoded (P4). The numbers are Core Lightning's (`hsmd/hsmd_wire.csv`) and, from 1000
//! on, those the VLS protocol adds for LDK.

use vls_protocol::msgs::{self, DeBolt, Message};

use crate::names::NodeKind;
use crate::reasons::{Reason, Refusal};

/// The largest message that is decoded, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// What a message is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The node as a whole; a channel in the request is ignored.
    Node,
    /// One channel; the request must name it.
    Channel,
}

/// What answering a message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Tells public facts. Leaves no decision in the journal.
    Info,
    /// Produces a signature.
    Sign,
    /// Reveals a secret of the node or of a channel.
    Secret,
    /// Changes what may be signed later.
    Change,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// The number on the wire.
    pub number: u16,
    /// The name in decisions, logs and refusals.
    pub name: &'static str,
    /// What it is addressed to.
    pub level: Level,
    /// What answering it does.
    pub class: Class,
    /// Whether the answer depends on where the tip of the chain is now.
    pub needs_tip: bool,
    senders: &'static [NodeKind],
}

const LDK: &[NodeKind] = &[NodeKind::Ldk];
const CLN: &[NodeKind] = &[NodeKind::Cln];
const BOTH: &[NodeKind] = &[NodeKind::Ldk, NodeKind::Cln];
const NONE: &[NodeKind] = &[];

/// Writes the rows: number, name, level, class, who may send it, and `tip` where a stale view of the chain refuses.
macro_rules! rows {
    ($( $number:literal $name:ident $level:ident $class:ident $senders:ident $($tip:ident)?; )*) => {
        /// All messages, ordered by number. A number has one row per dialect at most.
        pub const TABLE: &[Row] = &[ $( Row {
            number: $number,
            name: stringify!($name),
            level: Level::$level,
            class: Class::$class,
            needs_tip: rows!(@tip $($tip)?),
            senders: $senders,
        }, )* ];
    };
    (@tip tip) => { true };
    (@tip) => { false };
}

rows! {
    1    Ecdh                       Node    Secret BOTH;
    2    SignChannelAnnouncement    Channel Sign   BOTH;
    3    SignChannelUpdate          Node    Sign   BOTH;
    4    SignAnyChannelAnnouncement Node    Sign   CLN;
    5    SignCommitmentTx           Node    Sign   CLN;
    6    SignNodeAnnouncement       Node    Sign   BOTH;
    7    SignWithdrawal             Node    Sign   BOTH tip;
    8    SignInvoice                Node    Sign   BOTH;
    10   GetChannelBasepoints       Node    Info   BOTH;
    11   HsmdInit                   Node    Info   CLN;
    12   SignDelayedPaymentToUs     Channel Sign   BOTH;
    13   SignRemoteHtlcToUs         Channel Sign   BOTH;
    14   SignPenaltyToUs            Channel Sign   BOTH;
    16   SignLocalHtlcTx            Channel Sign   BOTH;
    18   GetPerCommitmentPoint      Channel Info   BOTH;
    19   SignRemoteCommitmentTx     Channel Sign   CLN tip;
    20   SignLocalHtlcTx2           Channel Sign   LDK;
    20   SignRemoteHtlcTx           Channel Sign   CLN;
    21   SignMutualCloseTx          Channel Sign   CLN;
    22   CheckFutureSecret          Channel Info   BOTH;
    23   SignMessage                Node    Sign   BOTH;
    25   SignBolt12                 Node    Sign   CLN;
    27   DeriveSecret               Node    Secret CLN;
    28   CheckPubKey                Node    Info   CLN;
    30   NewChannel                 Node    Change BOTH;
    31   SetupChannel               Channel Change BOTH;
    32   CheckOutpoint              Channel Info   CLN;
    33   Memleak                    Node    Info   CLN;
    34   ForgetChannel              Node    Change BOTH;
    35   ValidateCommitmentTx       Channel Change CLN;
    36   ValidateRevocation         Channel Change BOTH;
    37   LockOutpoint               Channel Info   CLN;
    38   PreapproveInvoice          Node    Change BOTH;
    39   PreapproveKeysend          Node    Change BOTH;
    40   RevokeCommitmentTx         Channel Secret BOTH;
    41   SignBolt12V2               Node    Sign   CLN;
    142  SignAnyDelayedPaymentToUs  Node    Sign   BOTH;
    143  SignAnyRemoteHtlcToUs      Node    Sign   BOTH;
    144  SignAnyPenaltyToUs         Node    Sign   BOTH;
    146  SignAnyLocalHtlcTx         Node    Sign   BOTH;
    147  SignAnchorspend            Node    Sign   BOTH;
    149  SignHtlcTxMingle           Node    Sign   BOTH;
    1000 Ping                       Node    Info   BOTH;
    1005 SignLocalCommitmentTx2     Channel Sign   LDK;
    1006 SignGossipMessage          Node    Sign   LDK;
    1011 HsmdInit2                  Node    Secret LDK;
    1012 NodeInfo                   Node    Info   BOTH;
    1018 GetPerCommitmentPoint2     Channel Info   LDK;
    1019 SignRemoteCommitmentTx2    Channel Sign   LDK tip;
    1021 SignMutualCloseTx2         Channel Sign   LDK;
    1035 ValidateCommitmentTx2      Channel Change LDK;
    1036 GetSecureRandomBytes       Node    Info   LDK;
    1037 SignBolt12Invoice          Node    Sign   LDK;
    2002 TipInfo                    Node    Info   BOTH;
    2005 AddBlock                   Node    Change NONE;
    2006 RemoveBlock                Node    Change NONE;
    2009 BlockChunk                 Node    Change NONE;
    3000 LearnPreimages             Channel Change LDK; // ours: `preimages.rs`
}

impl Row {
    /// Whether answering it leaves a decision in the journal.
    pub fn is_recorded(&self) -> bool {
        self.class != Class::Info
    }
}

/// The row of an encoded message that a node of `kind` sent, before anything of its body is decoded.
///
/// Refuses with `malformed` (no number, too long), `message-unknown` or `message-not-allowed`.
pub fn row(kind: NodeKind, message: &[u8]) -> Result<&'static Row, Refusal> {
    if message.len() > MAX_MESSAGE_BYTES {
        let detail = format!("{} bytes; at most {MAX_MESSAGE_BYTES} are read", message.len());
        return Err(Refusal::new(Reason::Malformed, detail));
    }
    let Some((number, _)) = message.split_first_chunk::<2>() else {
        return Err(Refusal::new(Reason::Malformed, "a message starts with two bytes of type"));
    };
    let number = u16::from_be_bytes(*number);
    let rows = || TABLE.iter().filter(|row| row.number == number);
    if let Some(row) = rows().find(|row| row.senders.contains(&kind)) {
        return Ok(row);
    }
    Err(match rows().next() {
        None => Refusal::new(Reason::MessageUnknown, format!("message {number} from a node of kind {kind}")),
        Some(row) if row.senders.is_empty() => Refusal::new(
            Reason::NotAllowed,
            format!("{} ({number}): blocks come from the signer's own view of the chain only", row.name),
        ),
        Some(row) => Refusal::new(Reason::NotAllowed, format!("{} ({number}) from a node of kind {kind}", row.name)),
    })
}

/// Decodes a message whose row is known. Number 20 means two things; the row, that is the dialect, decides.
///
/// Refuses with `malformed`.
pub fn decode(row: &Row, message: &[u8]) -> Result<Message, Refusal> {
    let decoded = match row.name {
        "SignLocalHtlcTx2" => msgs::SignLocalHtlcTx2::from_vec(message.to_vec()).map(Message::SignLocalHtlcTx2),
        _ => msgs::from_vec(message.to_vec()),
    };
    decoded.map_err(|error| Refusal::new(Reason::Malformed, format!("{} ({}): {error:?}", row.name, row.number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vls_protocol::msgs::SerBolt;

    #[test]
    fn rows_are_ordered_and_unambiguous() {
        assert!(TABLE.is_sorted_by_key(|row| row.number));
        for kind in [NodeKind::Ldk, NodeKind::Cln] {
            let numbers: Vec<u16> = TABLE.iter().filter(|r| r.senders.contains(&kind)).map(|r| r.number).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{kind} has one meaning per number");
        }
    }

    #[test]
    fn names_are_those_of_the_protocol() {
        for row in TABLE.iter().filter(|row| row.name != "SignLocalHtlcTx2" && row.number < 3000) {
            assert_eq!(msgs::message_name_from_vec(&row.number.to_be_bytes()), row.name);
        }
    }

    #[test]
    fn number_twenty_follows_the_dialect() {
        let message = msgs::SignLocalHtlcTx2 {
            tx: vls_protocol::serde_bolt::WithSize(bitcoin::Transaction {
                version: bitcoin::transaction::Version::TWO,
                lock_time: bitcoin::absolute::LockTime::ZERO,
                input: vec![bitcoin::TxIn::default()],
                output: vec![],
            }),
            input: 0,
            per_commitment_number: 7,
            offered: true,
            cltv_expiry: 100,
            htlc_amount_msat: 1_000,
            payment_hash: vls_protocol::model::Sha256([3; 32]),
        }
        .as_vec();
        let ldk = row(NodeKind::Ldk, &message).expect("known");
        assert!(matches!(decode(ldk, &message), Ok(Message::SignLocalHtlcTx2(m)) if m.per_commitment_number == 7));
        let cln = row(NodeKind::Cln, &message).expect("known");
        assert_eq!(cln.name, "SignRemoteHtlcTx");
        assert_eq!(decode(cln, &message).expect_err("the other shape").reason, Reason::Malformed);
    }

    #[test]
    fn unknown_foreign_and_oversized_messages_are_refused_by_name() {
        let refused = |kind, message: &[u8]| row(kind, message).expect_err("refused").reason;
        assert_eq!(refused(NodeKind::Ldk, &[]), Reason::Malformed);
        assert_eq!(refused(NodeKind::Ldk, &[0x7f, 0xff]), Reason::MessageUnknown);
        assert_eq!(refused(NodeKind::Ldk, &27u16.to_be_bytes()), Reason::NotAllowed);
        assert_eq!(refused(NodeKind::Cln, &1011u16.to_be_bytes()), Reason::NotAllowed);
        assert_eq!(refused(NodeKind::Ldk, &2005u16.to_be_bytes()), Reason::NotAllowed);
        assert_eq!(refused(NodeKind::Ldk, &vec![0; MAX_MESSAGE_BYTES + 1]), Reason::Malformed);
        assert_eq!(
            row(NodeKind::Cln, &27u16.to_be_bytes()).expect("Core Lightning derives secrets").name,
            "DeriveSecret"
        );
    }
}
