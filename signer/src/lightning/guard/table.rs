//! THE table: the hsmd messages a node may send, and everything that has to be decided about a message before it exists
//! here (P4).
//!
//! What is not in the table is not decoded. The numbers are Core Lightning's (`hsmd/hsmd_wire.csv`) and, from 1000 on,
//! those the VLS protocol adds for LDK; 3000 what the LND door makes of lnd's calls, from 4000 on,
//! and what the Lightspark doors make of webhooks, from 5000 on, of operations, 5100, and of recovery kits, 5200, are our own. A row says who may send the message, what it is addressed to,
//! what answering it does, which judge it meets and how it is laid out on the wire; none of that has a default.

use vls_protocol::msgs;

use super::layout::Field::{self, Bool, Bytes, List, Octets, Optional, Psbt, Text, Tx};
use crate::facts::{Fact, Unit};
use crate::lightning::lightspark;
use crate::names::NodeKind;
use crate::reasons::{Reason, Refusal};

/// The largest message that is decoded, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;
/// The same for lnd, whose PSBTs carry the whole transactions that they spend.
pub const MAX_LND_MESSAGE_BYTES: usize = 2 << 20;

/// What a message is addressed to. The caller's capability must match: a client that was given one channel cannot speak
/// for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The node as a whole; the request must not name a channel.
    Node,
    /// One channel; the request must name it.
    Channel,
    /// The node as a whole, but a channel's client may ask too.
    Either,
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

/// Who looks at a message beyond its shape, before vls does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// The engine answers it, or vls and the validator around it judge all there is to judge.
    Vls,
    /// BOLT 7 messages: parsed, and about this node, this channel and this chain.
    Gossip,
    /// BOLT 11 and BOLT 12 invoices: parsed, in this node's name and on its chain.
    Invoice,
    /// Signatures under a tag, which must not be anything without the tag.
    Tag,
    /// Secrets and yes-or-no answers about secrets: for their purpose only.
    Oracle,
    /// Closing and revoking, which exclude each other.
    Closing,
    /// The channel book: it is no message of vls.
    Book,
    /// The room `lightning/lnd`, which reads lnd's calls: they are no messages of vls.
    Lnd,
    /// The room `lightning/lightspark`, which reads webhooks and operations: they are no messages of vls.
    Lightspark,
}

/// What else is true of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    Tip,
    Nonce,
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
    /// Who looks at it before vls does.
    pub judge: Judge,
    /// How it is laid out after its number.
    pub(super) layout: &'static [Field],
    senders: &'static [NodeKind],
    flags: &'static [Flag],
}

const LDK: &[NodeKind] = &[NodeKind::Ldk];
const CLN: &[NodeKind] = &[NodeKind::Cln];
const BOTH: &[NodeKind] = &[NodeKind::Ldk, NodeKind::Cln];
const LND: &[NodeKind] = &[NodeKind::Lnd];
const SPARK: &[NodeKind] = &[NodeKind::Lightspark];
const NONE: &[NodeKind] = &[];

const U8: Field = Bytes(1);
const U16: Field = Bytes(2);
const U32: Field = Bytes(4);
const U64: Field = Bytes(8);
const B32: Field = Bytes(32);
const KEY: Field = Bytes(33);
const DEV: Field = Optional(&[B32]); // for developers; refused if present
const SIG: Field = Bytes(64 + 1); // with its sighash type
const HTLC: Field = Bytes(1 + 8 + 32 + 4); // side, amount, hash, expiry
const CLOSE_INFO: Field = Optional(&[U64, KEY, Optional(&[KEY]), Bool, U32]);
const UTXOS: Field = List(&[B32, U32, U64, U32, Bool, Octets, CLOSE_INFO, Bool]);

/// Writes the rows: number, name, level, class, judge, who may send it, layout, and the flags `tip` (a stale view of the
/// chain refuses) and `nonce` (signatures in the answer take a fresh nonce, so the answer is kept).
macro_rules! rows {
    ($( $number:literal $name:ident $level:ident $class:ident $judge:ident $senders:ident
        [$($field:expr),*] $($flag:ident)*; )*) => {
        /// All messages, ordered by number. A number has one row per dialect at most.
        pub const TABLE: &[Row] = &[ $( Row {
            number: $number,
            name: stringify!($name),
            level: Level::$level,
            class: Class::$class,
            judge: Judge::$judge,
            layout: &[$($field),*],
            senders: $senders,
            flags: &[$(rows!(@flag $flag)),*],
        }, )* ];
    };
    (@flag tip) => { Flag::Tip };
    (@flag nonce) => { Flag::Nonce };
}

rows! {
    1    Ecdh                       Either  Secret Vls     BOTH [KEY];
    2    SignChannelAnnouncement    Channel Sign   Gossip  BOTH [Octets];
    3    SignChannelUpdate          Either  Sign   Gossip  BOTH [Octets];
    4    SignAnyChannelAnnouncement Node    Sign   Gossip  CLN  [Octets, KEY, U64];
    5    SignCommitmentTx           Node    Sign   Closing CLN  [KEY, U64, Tx, Psbt, KEY, U64] nonce;
    6    SignNodeAnnouncement       Node    Sign   Gossip  BOTH [Octets];
    7    SignWithdrawal             Node    Sign   Vls     BOTH [UTXOS, Psbt] tip nonce;
    8    SignInvoice                Node    Sign   Invoice BOTH [Octets, Octets];
    10   GetChannelBasepoints       Node    Info   Vls     BOTH [KEY, U64];
    11   HsmdInit                   Node    Info   Vls     CLN
        [U32, U32, B32, DEV, DEV, DEV, Optional(&[List(&[B32])]), DEV, U32, U32];
    12   SignDelayedPaymentToUs     Channel Sign   Vls     BOTH [U64, Tx, Psbt, Octets];
    13   SignRemoteHtlcToUs         Channel Sign   Vls     BOTH [KEY, Tx, Psbt, Octets, Bool];
    14   SignPenaltyToUs            Channel Sign   Vls     BOTH [B32, Tx, Psbt, Octets];
    16   SignLocalHtlcTx            Channel Sign   Vls     BOTH [U64, Tx, Psbt, Octets, Bool];
    18   GetPerCommitmentPoint      Channel Info   Vls     BOTH [U64];
    19   SignRemoteCommitmentTx     Channel Sign   Closing CLN  [Tx, Psbt, KEY, KEY, Bool, U64, List(&[HTLC]), U32] tip;
    20   SignLocalHtlcTx2           Channel Sign   Vls     LDK  [Tx, U32, U64, Bool, U32, U64, B32];
    20   SignRemoteHtlcTx           Channel Sign   Vls     CLN  [Tx, Psbt, Octets, KEY, Bool];
    21   SignMutualCloseTx          Channel Sign   Closing CLN  [Tx, Psbt, KEY];
    22   CheckFutureSecret          Channel Info   Oracle  BOTH [U64, B32];
    23   SignMessage                Node    Sign   Tag     BOTH [Octets];
    25   SignBolt12                 Node    Sign   Tag     CLN  [Text, Text, B32, Octets];
    27   DeriveSecret               Node    Secret Oracle  CLN  [Octets];
    28   CheckPubKey                Node    Info   Oracle  CLN  [U32, KEY];
    30   NewChannel                 Node    Change Vls     BOTH [KEY, U64];
    31   SetupChannel               Channel Change Vls     BOTH
        [Bool, U64, U64, B32, U16, U16, Octets, Optional(&[U32]), KEY, KEY, KEY, KEY, KEY, U16, Octets, Octets];
    32   CheckOutpoint              Channel Info   Vls     CLN  [B32, U16];
    33   Memleak                    Either  Info   Vls     CLN  [];
    34   ForgetChannel              Node    Change Vls     BOTH [KEY, U64];
    35   ValidateCommitmentTx       Channel Change Closing CLN  [Tx, Psbt, List(&[HTLC]), U64, U32, SIG, List(&[SIG])];
    36   ValidateRevocation         Channel Change Vls     BOTH [U64, B32];
    37   LockOutpoint               Channel Info   Vls     CLN  [B32, U16];
    38   PreapproveInvoice          Node    Change Vls     BOTH [Text];
    39   PreapproveKeysend          Node    Change Vls     BOTH [KEY, B32, U64];
    40   RevokeCommitmentTx         Channel Secret Closing BOTH [U64];
    41   SignBolt12V2               Node    Sign   Tag     CLN  [Text, Text, B32, Octets, Octets];
    142  SignAnyDelayedPaymentToUs  Node    Sign   Vls     BOTH [U64, Tx, Psbt, Octets, U32, KEY, U64];
    143  SignAnyRemoteHtlcToUs      Node    Sign   Vls     BOTH [KEY, Tx, Psbt, Octets, Bool, U32, KEY, U64];
    144  SignAnyPenaltyToUs         Node    Sign   Vls     BOTH [B32, Tx, Psbt, Octets, U32, KEY, U64];
    146  SignAnyLocalHtlcTx         Node    Sign   Vls     BOTH [U64, Tx, Psbt, Octets, Bool, U32, KEY, U64];
    147  SignAnchorspend            Node    Sign   Vls     BOTH [KEY, U64, UTXOS, Psbt] nonce;
    149  SignHtlcTxMingle           Node    Sign   Vls     BOTH [KEY, U64, UTXOS, Psbt] nonce;
    1000 Ping                       Node    Info   Vls     BOTH [U16, Text];
    1005 SignLocalCommitmentTx2     Channel Sign   Closing LDK  [U64] nonce;
    1006 SignGossipMessage          Node    Sign   Gossip  LDK  [Octets];
    1011 HsmdInit2                  Node    Secret Vls     LDK  [U8, Text, DEV, List(&[Text])];
    1012 NodeInfo                   Node    Info   Vls     BOTH [];
    1018 GetPerCommitmentPoint2     Channel Info   Vls     LDK  [U64];
    1019 SignRemoteCommitmentTx2    Channel Sign   Closing LDK  [KEY, U64, U32, U64, U64, List(&[HTLC])] tip;
    1021 SignMutualCloseTx2         Channel Sign   Closing LDK  [U64, U64, Octets, Octets, List(&[U32])];
    1035 ValidateCommitmentTx2      Channel Change Closing LDK  [U64, U32, U64, U64, List(&[HTLC]), SIG, List(&[SIG])];
    1036 GetSecureRandomBytes       Node    Info   Vls     LDK  [];
    1037 SignBolt12Invoice          Node    Sign   Invoice LDK  [Octets];
    2002 TipInfo                    Node    Info   Vls     BOTH [];
    2005 AddBlock                   Node    Change Vls     NONE [];
    2006 RemoveBlock                Node    Change Vls     NONE [];
    2009 BlockChunk                 Node    Change Vls     NONE [];
    3000 LearnPreimages             Channel Change Book    LDK  [List(&[B32])];
    4000 SignPsbt                   Node    Sign   Lnd     LND  [];
    4001 DeriveSharedKey            Node    Secret Lnd     LND  [];
    4002 SignMessage                Node    Sign   Lnd     LND  [];
    4003 MuSig2CreateSession        Node    Sign   Lnd     LND  [];
    4004 MuSig2RegisterNonces       Node    Sign   Lnd     LND  [];
    4005 MuSig2RegisterCombinedNonce Node   Sign   Lnd     LND  [];
    4006 MuSig2GetCombinedNonce     Node    Sign   Lnd     LND  [];
    4007 MuSig2Sign                 Node    Sign   Lnd     LND  [];
    4008 MuSig2CombineSig           Node    Sign   Lnd     LND  [];
    4009 MuSig2Cleanup              Node    Sign   Lnd     LND  [];
    5000 ECDH                       Node    Secret Lightspark SPARK [];
    5001 GET_PER_COMMITMENT_POINT   Node    Change Lightspark SPARK [];
    5002 RELEASE_PER_COMMITMENT_SECRET Node Secret Lightspark SPARK [];
    5003 REQUEST_INVOICE_PAYMENT_HASH Node  Change Lightspark SPARK [];
    5004 RELEASE_PAYMENT_PREIMAGE   Node    Secret Lightspark SPARK [];
    5005 SIGN_INVOICE               Node    Sign   Lightspark SPARK [];
    5006 DERIVE_KEY_AND_SIGN        Node    Sign   Lightspark SPARK [];
    5007 REVEAL_COUNTERPARTY_PER_COMMITMENT_SECRET Node Change Lightspark SPARK [];
    5100 SIGN_OPERATION             Node    Sign   Lightspark SPARK [];
    5200 RECOVER_CHANNEL            Node    Sign   Lightspark SPARK [];
}

impl Row {
    /// Whether answering it leaves a decision in the journal.
    pub fn is_recorded(&self) -> bool {
        self.class != Class::Info
    }

    /// Whether the answer depends on where the tip of the chain is now.
    pub fn needs_tip(&self) -> bool {
        self.flags.contains(&Flag::Tip)
    }

    /// Whether signatures in the answer take a fresh nonce, so that it could not be computed a second time.
    pub fn is_random(&self) -> bool {
        self.flags.contains(&Flag::Nonce)
    }
}

/// The row of an encoded message that a node of `kind` sent, before anything of its body is decoded.
///
/// Refuses with `malformed` (no number, too long), `message-unknown` or `message-not-allowed`.
pub fn row(kind: NodeKind, message: &[u8]) -> Result<&'static Row, Refusal> {
    let most = match kind {
        NodeKind::Lnd => MAX_LND_MESSAGE_BYTES,
        NodeKind::Lightspark => lightspark::MAX_REQUEST,
        NodeKind::Ldk | NodeKind::Cln => MAX_MESSAGE_BYTES,
    };
    if message.len() > most {
        let detail = format!("{} bytes; at most {most} are read", message.len());
        let fact = Fact::number("message", message.len() as u64, Unit::Bytes).at_most(most as u64);
        return Err(Refusal::new(Reason::Malformed, detail).with_fact(fact));
    }
    let Some((number, _)) = message.split_first_chunk::<2>() else {
        let fact = Fact::number("message", message.len() as u64, Unit::Bytes).at_least(2);
        return Err(Refusal::new(Reason::Malformed, "a message starts with two bytes of type").with_fact(fact));
    };
    let number = u16::from_be_bytes(*number);
    let rows = || TABLE.iter().filter(|row| row.number == number);
    if let Some(row) = rows().find(|row| row.senders.contains(&kind)) {
        return Ok(row);
    }
    Err(match rows().next() {
        None => {
            let name = msgs::message_name_from_vec(message); // of the protocol, which has more than is answered here
            Refusal::new(Reason::MessageUnknown, format!("message {number} ({name}) from a node of kind {kind}"))
        }
        Some(row) if row.senders.is_empty() => Refusal::new(
            Reason::NotAllowed,
            format!("{} ({number}): blocks come from the signer's own view of the chain only", row.name),
        ),
        Some(row) => Refusal::new(Reason::NotAllowed, format!("{} ({number}) from a node of kind {kind}", row.name)),
    }
    .with_fact(Fact::count("message_number", number.into()))
    .with_fact(Fact::text("node_kind", kind.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_ordered_and_unambiguous() {
        assert!(TABLE.is_sorted_by_key(|row| row.number));
        for kind in [NodeKind::Ldk, NodeKind::Cln, NodeKind::Lnd, NodeKind::Lightspark] {
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
    fn flags_stand_where_they_must() {
        let names = |holds: fn(&Row) -> bool| -> Vec<&str> {
            TABLE.iter().filter(|row| holds(row)).map(|row| row.name).collect()
        };
        // What spends or commits money by the height of the chain.
        assert_eq!(names(Row::needs_tip), ["SignWithdrawal", "SignRemoteCommitmentTx", "SignRemoteCommitmentTx2"]);
        // What vls signs with fresh randomness.
        let random =
            ["SignCommitmentTx", "SignWithdrawal", "SignAnchorspend", "SignHtlcTxMingle", "SignLocalCommitmentTx2"];
        assert_eq!(names(Row::is_random), random);
        assert_eq!(names(Row::is_recorded), names(|row| row.class != Class::Info));
    }

    /// A message that closes, revokes or updates a channel is judged as one, in either dialect.
    #[test]
    fn every_message_that_moves_a_channel_meets_the_judge_of_closing() {
        let moves = ["CommitmentTx", "MutualClose"];
        for row in TABLE.iter().filter(|row| moves.iter().any(|part| row.name.contains(part))) {
            assert_eq!(row.judge, Judge::Closing, "{}", row.name);
        }
    }

    #[test]
    fn hostile_unknown_foreign_and_oversized_messages_are_refused_by_name() {
        let refused = |kind, message: &[u8]| row(kind, message).expect_err("refused");
        assert_eq!(refused(NodeKind::Ldk, &[]).reason, Reason::Malformed);
        assert_eq!(refused(NodeKind::Ldk, &[0x7f, 0xff]).reason, Reason::MessageUnknown);
        let state = refused(NodeKind::Cln, &61u16.to_be_bytes());
        assert_eq!(state.reason, Reason::MessageUnknown);
        assert!(state.detail.contains("61 (CheckChannelStateSync) from a node of kind cln"), "{}", state.detail);
        for (kind, number) in [(NodeKind::Ldk, 27u16), (NodeKind::Cln, 1011), (NodeKind::Ldk, 2005)] {
            assert_eq!(refused(kind, &number.to_be_bytes()).reason, Reason::NotAllowed);
        }
        assert_eq!(refused(NodeKind::Ldk, &vec![0; MAX_MESSAGE_BYTES + 1]).reason, Reason::Malformed);
        let row = row(NodeKind::Cln, &27u16.to_be_bytes()).expect("Core Lightning derives secrets");
        assert_eq!(row.name, "DeriveSecret");
    }
}
