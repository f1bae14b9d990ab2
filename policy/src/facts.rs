//! What rules, budgets and grants may look at, in one table. The Cedar schema, the reference page and the words of
//! explanations are made from it.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::actions::Action::{self, *};
use crate::value::Value;

/// Declares the table: variant, id, kind, origin, which actions always carry it and which may, what it is, an example.
/// In the order of ids, which is the canonical order of a request's facts.
macro_rules! facts {
    ($( $variant:ident $id:literal $kind:ident $(($unit:ident))? $origin:ident
        always[$($always:ident)*] maybe[$($maybe:ident)*] claimed[$($claimed:ident)*] $doc:literal $example:literal; )*) => {
        /// A fact about a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum FactId { $( #[doc = $doc] #[serde(rename = $id)] $variant, )* }

        impl FactId {
            /// All facts, in the order of their ids.
            pub const ALL: &'static [FactId] = &[ $( FactId::$variant, )* ];

            /// Its name in rules, `context.…`. Forever.
            pub const fn id(self) -> &'static str { match self { $( FactId::$variant => $id, )* } }

            /// The fact with this id.
            pub fn by_id(id: &str) -> Option<Self> { Self::ALL.iter().copied().find(|known| known.id() == id) }

            /// What its values are.
            pub const fn kind(self) -> Kind { match self { $( FactId::$variant => Kind::$kind $((Unit::$unit))?, )* } }

            /// What it is.
            pub const fn doc(self) -> &'static str { match self { $( FactId::$variant => $doc, )* } }

            /// A value, as a rule writes it.
            pub const fn example(self) -> &'static str { match self { $( FactId::$variant => $example, )* } }

            /// Where it comes from when `action` carries it.
            pub fn source(self, action: Action) -> Source {
                match self { $( FactId::$variant => match &[$($claimed),*] as &[Action] {
                    claimed if claimed.contains(&action) => Source::Claimed,
                    _ => Source::$origin,
                }, )* }
            }

            /// Whether `action` always carries it; `None` if it never does.
            fn carried(self, action: Action) -> Option<bool> {
                let (always, maybe): (&[Action], &[Action]) =
                    match self { $( FactId::$variant => (&[$($always),*], &[$($maybe),*]), )* };
                let every = always.is_empty() && maybe.is_empty();
                match always.contains(&action) {
                    true => Some(true),
                    false if every => Some(self.origin() == Source::Derived),
                    false => maybe.contains(&action).then_some(false),
                }
            }

            const fn origin(self) -> Source { match self { $( FactId::$variant => Source::$origin, )* } }
        }
    };
}

// A row that names no action is for all of them.
facts! {
    AmountMsat "amount_msat" Number(Msat) Proved
        always[OpenChannel PayInvoice Keysend Forward CloseChannel Sweep Withdraw] maybe[] claimed[]
        "What leaves, without fees: to the payee, into the channel, out of the forward's channel, to addresses that are not the node's own." "250_000_000";
    Channel "channel" Text Proved
        always[UpdateChannel CloseChannel ForceClose] maybe[SignHtlc Forward Sweep BumpFee Gossip] claimed[]
        "The channel, as `claviger channel show` names it; of a forward, the outgoing one." "\"02ab…:1\"";
    Clearance "clearance" Text Proved always[] maybe[PayInvoice Withdraw] claimed[]
        "The id under which a screening service cleared this very payment; there is none where no such service is configured." "\"7f3a-2026-11-30\"";
    Client "client" Text Proved always[] maybe[] claimed[]
        "Who asked through the node, where the front door tells callers apart." "\"payroll\"";
    CltvDeltaBlocks "cltv_delta_blocks" Number(Blocks) Proved
        always[] maybe[Forward] claimed[]
        "How much later the incoming HTLC ends than the outgoing one." "40";
    DecreaseMsat "decrease_msat" Number(Msat) Proved always[] maybe[UpdateChannel] claimed[]
        "By how much the commitment pays us less than the one before: payments and forwards going out, and fees. Of lnd's and Lightspark's channels." "50_000_000";
    Description "description" Text Proved
        always[] maybe[PayInvoice IssueInvoice] claimed[]
        "What the invoice says it is for." "\"coffee\"";
    Destination "destination" Text Proved
        always[] maybe[CloseChannel Sweep Withdraw] claimed[]
        "The address that is paid, if there is exactly one that is not the node's own." "\"bc1q…\"";
    DestinationLists "destination_lists" Texts Derived
        always[CloseChannel Sweep Withdraw] maybe[] claimed[]
        "The allow-lists that hold every destination; none if nothing leaves." "[\"exchange\"]";
    Destinations "destinations" Texts Proved
        always[CloseChannel Sweep Withdraw] maybe[] claimed[]
        "The addresses that are paid and are not the node's own; `script:HEX` where there is no address." "[\"bc1q…\"]";
    DeviceKey "device_key" Text Proved always[UseDeviceKey] maybe[] claimed[]
        "The key's name." "\"operations\"";
    Direction "direction" Text Proved always[SignHtlc] maybe[] claimed[]
        "`outgoing` if the node offered the HTLC, `incoming` if its peer did." "\"outgoing\"";
    ExpiresInBlocks "expires_in_blocks" Number(Blocks) Proved always[] maybe[SignHtlc] claimed[]
        "In how many blocks the HTLC expires, where the signer sees the chain." "144";
    ExpiresInS "expires_in_s" Number(Seconds) Proved always[] maybe[PayInvoice IssueInvoice] claimed[]
        "How long the invoice is still valid." "3_600";
    ExpiryHeight "expiry_height" Number(Count) Proved always[SignHtlc] maybe[UpdateChannel] claimed[]
        "The height at which the HTLC expires; of a whole commitment, at which its last one does." "900_000";
    FeeMsat "fee_msat" Number(Msat) Proved
        always[Withdraw BumpFee] maybe[OpenChannel PayInvoice Keysend CloseChannel Sweep] claimed[]
        "What it costs beyond the amount: routing fees at most, or the transaction's fee as far as the node pays it." "5_000";
    FeerateSatPerKw "feerate_sat_per_kw" Number(SatPerKw) Proved
        always[] maybe[OpenChannel UpdateChannel CloseChannel Sweep Withdraw BumpFee] claimed[]
        "The transaction's feerate." "2_500";
    Gossip "gossip" Text Proved always[Gossip] maybe[] claimed[]
        "The BOLT 7 message." "\"channel_update\"";
    HourUtc "hour_utc" Number(Hour) Derived always[] maybe[] claimed[]
        "The hour of the day, 0 to 23, UTC." "22";
    HtlcMsat "htlc_msat" Number(Msat) Proved always[SignHtlc] maybe[UpdateChannel] claimed[]
        "What the HTLC holds; of a whole commitment, what its largest does. In whole satoshis, as on the chain." "100_000_000";
    Htlcs "htlcs" Number(Count) Proved always[] maybe[UpdateChannel] claimed[]
        "HTLCs in the commitment, both ways." "30";
    IncomingMsat "incoming_msat" Number(Msat) Proved always[Forward] maybe[IssueInvoice] claimed[]
        "What comes in: of a forward, before it goes out; of an invoice, if it names an amount." "250_001_000";
    MessageBytes "message_bytes" Number(Bytes) Proved always[SignMessage] maybe[] claimed[]
        "How long the text is." "80";
    MessageSha256 "message_sha256" Text Proved always[SignMessage] maybe[] claimed[]
        "The text's SHA-256, in lower-case hex." "\"9f86…\"";
    OutgoingMsat "outgoing_msat" Number(Msat) Proved always[] maybe[UpdateChannel] claimed[]
        "The sum of outgoing HTLCs in the commitment." "1_000_000_000";
    Payee "payee" Text Proved always[PayInvoice Keysend] maybe[] claimed[Keysend]
        "The node that is paid: the invoice's signer; for a keysend, as the node says." "\"03cd…\"";
    PayeeLists "payee_lists" Texts Derived always[PayInvoice Keysend] maybe[] claimed[Keysend]
        "The allow-lists that hold the payee." "[\"suppliers\"]";
    PaymentHash "payment_hash" Text Proved always[PayInvoice Keysend Forward] maybe[IssueInvoice] claimed[]
        "The payment hash, in lower-case hex." "\"e3b0…\"";
    PaymentHash160 "payment_hash160" Text Proved always[SignHtlc] maybe[] claimed[]
        "RIPEMD-160 of the payment hash, in lower-case hex: what the HTLC's script has of it." "\"9c11…\"";
    Peer "peer" Text Proved
        always[OpenChannel] maybe[UpdateChannel SignHtlc Forward CloseChannel ForceClose Ecdh]
        claimed[OpenChannel UpdateChannel SignHtlc Forward CloseChannel ForceClose]
        "The channel's peer, as the node says; `unknown` where an lnd has not said; of a shared secret, the key it is shared with." "\"02ab…\"";
    PeerLists "peer_lists" Texts Derived
        always[OpenChannel] maybe[UpdateChannel SignHtlc Forward CloseChannel ForceClose Ecdh]
        claimed[OpenChannel UpdateChannel SignHtlc Forward CloseChannel ForceClose]
        "The allow-lists that hold the peer." "[\"partners\"]";
    Purpose "purpose" Text Proved always[] maybe[Ecdh UseDeviceKey] claimed[Ecdh]
        "What the secret or the key is used for." "\"onion\"";
    PushMsat "push_msat" Number(Msat) Proved always[OpenChannel] maybe[] claimed[]
        "What the peer is given at once." "0";
    UnknownDestinations "unknown_destinations" Number(Count) Derived
        always[CloseChannel Sweep Withdraw] maybe[] claimed[]
        "How many destinations are on no allow-list." "0";
    UnprovenStates "unproven_states" Number(Count) Proved always[] maybe[UpdateChannel] claimed[]
        "States of the channel that were replaced, and for which lnd has asked for no penalty yet. Where lnd has a watchtower." "3";
    Unrequested "unrequested" Number(Count) Proved always[] maybe[Withdraw] claimed[]
        "Of a transaction that a Lightspark account is asked to sign: how many of its outputs no signed call requested. Absent elsewhere." "1";
    UnrequestedMsat "unrequested_msat" Number(Msat) Proved always[] maybe[UpdateChannel] claimed[]
        "Of a channel of a Lightspark account: how much leaves with this commitment, in HTLCs or otherwise, that belongs to no payment which a signed call requested. Absent elsewhere; unless a rule or a budget looks at it, an account's channels are updated without asking." "5_000_000";
    WeekdayUtc "weekday_utc" Number(Weekday) Derived always[] maybe[] claimed[]
        "The day of the week, UTC: 1 is Monday, 7 is Sunday." "5";
}

/// Where a fact comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Parsed from what is signed, or kept in the signer's own books.
    Proved,
    /// The node's word; nothing else is known. A node that was taken over can lie.
    Claimed,
    /// Made here from other facts, the clock and the lists. A front door cannot set it.
    Derived,
}

impl Source {
    /// As pages and explanations say it.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Claimed => "claimed",
            Self::Derived => "derived",
        }
    }
}

/// What a fact's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number of something; Cedar's `Long`.
    Number(Unit),
    /// Cedar's `String`.
    Text,
    /// Cedar's `Bool`.
    Flag,
    /// Cedar's `Set<String>`.
    Texts,
}

impl Kind {
    /// Cedar's type.
    pub const fn cedar(self) -> &'static str {
        match self {
            Self::Number(_) => "Long",
            Self::Text => "String",
            Self::Flag => "Bool",
            Self::Texts => "Set<String>",
        }
    }

    /// Whether a value is of this kind.
    pub const fn holds(self, value: &Value) -> bool {
        matches!(
            (self, value),
            (Self::Number(_), Value::Number(_))
                | (Self::Text, Value::Text(_))
                | (Self::Flag, Value::Flag(_))
                | (Self::Texts, Value::Texts(_))
        )
    }
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Thousandths of a satoshi.
    Msat,
    /// Satoshi per 1,000 weight units.
    SatPerKw,
    /// Blocks.
    Blocks,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Hours since midnight.
    Hour,
    /// Days, 1 is Monday.
    Weekday,
    /// Things.
    Count,
}

impl Unit {
    /// How it is written after a number; empty for plain numbers.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Msat => "msat",
            Self::SatPerKw => "sat/kw",
            Self::Blocks => "blocks",
            Self::Seconds => "s",
            Self::Bytes => "bytes",
            Self::Hour => "h",
            Self::Weekday | Self::Count => "",
        }
    }
}

impl FactId {
    /// The facts that requests for `action` carry, always or sometimes, in the order of their ids.
    pub fn of(action: Action) -> &'static [FactId] {
        &CARRIED[action as usize]
    }

    /// Whether every request for `action` carries it.
    pub fn always(self, action: Action) -> bool {
        self.carried(action) == Some(true)
    }

    /// Whether it is made here, never by a front door.
    pub const fn derived(self) -> bool {
        matches!(self.origin(), Source::Derived)
    }

    /// What its numbers count; `None` for texts and flags.
    pub const fn unit(self) -> Option<Unit> {
        match self.kind() {
            Kind::Number(unit) => Some(unit),
            _ => None,
        }
    }
}

static CARRIED: LazyLock<Vec<Vec<FactId>>> = LazyLock::new(|| {
    let of = |action: &Action| FactId::ALL.iter().copied().filter(|fact| fact.carried(*action).is_some()).collect();
    Action::ALL.iter().map(of).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_ids_which_are_unique() {
        for pair in FactId::ALL.windows(2) {
            assert!(pair[0].id() < pair[1].id(), "{} before {}", pair[0].id(), pair[1].id());
        }
        for fact in FactId::ALL {
            assert_eq!(FactId::by_id(fact.id()), Some(*fact));
            assert_eq!(serde_json_id(*fact), fact.id());
        }
    }

    fn serde_json_id(fact: FactId) -> String {
        toml::Value::try_from(fact).expect("a name").as_str().expect("a text").to_owned()
    }

    #[test]
    fn every_number_has_its_unit_in_its_name() {
        for fact in FactId::ALL {
            let suffix = match fact.unit() {
                Some(Unit::Msat) => "_msat",
                Some(Unit::SatPerKw) => "_sat_per_kw",
                Some(Unit::Blocks) => "_blocks",
                Some(Unit::Seconds) => "_s",
                Some(Unit::Bytes) => "_bytes",
                Some(Unit::Hour | Unit::Weekday) => "_utc",
                _ => "",
            };
            assert!(fact.id().ends_with(suffix), "{}", fact.id());
        }
    }

    #[test]
    fn what_leaves_always_has_its_amount_and_destinations_their_lists() {
        for action in [OpenChannel, PayInvoice, Keysend, Forward, Sweep, Withdraw] {
            assert!(FactId::AmountMsat.always(action), "{action}");
        }
        for action in Action::ALL {
            for (fact, lists) in [
                (FactId::Payee, FactId::PayeeLists),
                (FactId::Peer, FactId::PeerLists),
                (FactId::Destinations, FactId::DestinationLists),
            ] {
                assert_eq!(fact.carried(*action), lists.carried(*action), "{action}");
            }
            assert!(FactId::HourUtc.always(*action) && FactId::of(*action).contains(&FactId::Client));
            assert!(!FactId::Client.always(*action));
        }
    }

    #[test]
    fn a_keysends_payee_is_marked_as_the_nodes_word_and_an_invoices_is_not() {
        assert_eq!(FactId::Payee.source(Keysend), Source::Claimed);
        assert_eq!(FactId::Payee.source(PayInvoice), Source::Proved);
        assert_eq!(FactId::PayeeLists.source(PayInvoice), Source::Derived);
    }
}
