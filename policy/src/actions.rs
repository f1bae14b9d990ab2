//! What a node may ask for, in one table. Cedar rules, the reference page and metrics name actions by these ids.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares the table: variant and id, its group, what it is.
macro_rules! actions {
    ($( $variant:ident $group:ident $doc:literal; )*) => {
        /// What a node asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Action { $( #[doc = $doc] $variant, )* }

        impl Action {
            /// All actions, in the order of the table.
            pub const ALL: &'static [Action] = &[ $( Action::$variant, )* ];

            /// The id of the Cedar action, `Action::"…"`, and the metrics label. Forever.
            pub const fn id(self) -> &'static str { match self { $( Action::$variant => stringify!($variant), )* } }

            /// The action with this id.
            pub fn by_id(id: &str) -> Option<Self> { Self::ALL.iter().copied().find(|known| known.id() == id) }

            /// The Cedar group it is in.
            pub const fn group(self) -> Group { match self { $( Action::$variant => Group::$group, )* } }

            /// What it is.
            pub const fn doc(self) -> &'static str { match self { $( Action::$variant => $doc, )* } }
        }
    };
}

actions! {
    OpenChannel Spend "Fund a channel to a peer.";
    UpdateChannel Route "Sign or revoke a commitment of a channel.";
    SignHtlc Route "Let the peer claim an HTLC of its commitment, where that is asked for by itself: of lnd's channels.";
    PayInvoice Spend "Pay an invoice that the payee signed.";
    Keysend Spend "Pay a node without an invoice.";
    Forward Route "Pass a payment on for others.";
    CloseChannel Settle "Close a channel together with its peer.";
    ForceClose Settle "Close a channel without its peer.";
    Sweep Settle "Collect what a closed channel left on the chain.";
    Withdraw Spend "Pay from the on-chain wallet.";
    BumpFee Settle "Raise the fee of a transaction that waits.";
    IssueInvoice Speak "Sign an invoice or an offer to be paid.";
    SignMessage Speak "Sign a text as the node.";
    Gossip Speak "Announce the node or one of its channels.";
    Ecdh Speak "Derive a secret shared with another key.";
    UseDeviceKey Speak "Use a key that rests in a device.";
}

/// Actions that a rule may name together, `action in Action::"…"`. Each action is in one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Money leaves the node.
    Spend,
    /// Money moves within channels, for others.
    Route,
    /// Money comes home from channels.
    Settle,
    /// Words are signed, or secrets shared.
    Speak,
}

impl Group {
    /// All groups.
    pub const ALL: &'static [Group] = &[Group::Spend, Group::Route, Group::Settle, Group::Speak];

    /// The id of the Cedar action group.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Spend => "Spend",
            Self::Route => "Route",
            Self::Settle => "Settle",
            Self::Speak => "Speak",
        }
    }

    /// The group with this id.
    pub fn by_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.id() == id)
    }

    /// Its actions.
    pub fn actions(self) -> impl Iterator<Item = Action> {
        Action::ALL.iter().copied().filter(move |action| action.group() == self)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_one_action_or_one_group_and_never_both() {
        for action in Action::ALL {
            assert_eq!(Action::by_id(action.id()), Some(*action));
            assert_eq!(Group::by_id(action.id()), None);
        }
        for group in Group::ALL {
            assert_eq!(Group::by_id(group.id()), Some(*group));
            assert!(group.actions().count() > 1);
        }
        assert_eq!(Action::by_id("payinvoice"), None);
    }
}
