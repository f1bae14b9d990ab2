//! Numbers of the channel rules beneath the policy, `[limits]` of `policy.toml`, in one table. A bundle makes them stricter
//! while it is in force, never looser: beside each stands what the signer holds anyway (P3).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Declares the table: variant, id with its unit, which way it binds, the range it is written in, what it is.
macro_rules! limits {
    ($( $variant:ident $id:literal $bound:ident $least:literal $most:literal $doc:literal; )*) => {
        /// A number of the channel rules.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Limit { $( #[doc = $doc] #[serde(rename = $id)] $variant, )* }

        impl Limit {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Limit] = &[ $( Limit::$variant, )* ];

            /// Its key in `[limits]`. Forever.
            pub const fn id(self) -> &'static str { match self { $( Limit::$variant => $id, )* } }

            /// Which way it binds.
            pub const fn bound(self) -> Bound { match self { $( Limit::$variant => Bound::$bound, )* } }

            /// What may be written, both included.
            pub const fn range(self) -> (u64, u64) { match self { $( Limit::$variant => ($least, $most), )* } }

            /// What it is.
            pub const fn doc(self) -> &'static str { match self { $( Limit::$variant => $doc, )* } }
        }
    };
}

limits! {
    MinDelayBlocks "min_delay_blocks" AtLeast 1 2_016 "What each side of a channel waits for its own money after a force close, at least: agreed on when the channel is opened.";
    MaxDelayBlocks "max_delay_blocks" AtMost 1 2_016 "The same, at most.";
    MaxChannelSat "max_channel_sat" AtMost 1 2_100_000_000_000_000 "A channel's size, whoever funds it.";
    MaxHtlcs "max_htlcs" AtMost 1 966 "HTLCs of a commitment, both ways together.";
    MaxHtlcValueSat "max_htlc_value_sat" AtMost 1 2_100_000_000_000_000 "The sum of a commitment's HTLCs.";
    MaxRoutingFeePercent "max_routing_fee_percent" AtMost 0 10 "The routing fee that an approved payment may cost on top, in parts of its amount; 50 sat may it always cost. Counts for what is approved from then on.";
    MinFeerateSatPerKw "min_feerate_sat_per_kw" AtLeast 253 333_333 "The feerate of commitments and of the wallet's transactions, at least. What ends a channel may pay less.";
    MaxFeerateSatPerKw "max_feerate_sat_per_kw" AtMost 253 333_333 "The same, at most. What ends a channel may pay more.";
}

/// Which way a limit binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// This or more passes: the higher of two is the stricter.
    AtLeast,
    /// This or less passes: the lower is the stricter.
    AtMost,
}

/// The limits that a bundle sets.
pub type Limits = BTreeMap<Limit, u64>;

impl Limit {
    /// The limit with this id.
    pub fn by_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.id() == id)
    }

    /// The stricter of what the signer holds anyway, `held`, and what `limits` say.
    pub fn stricter(self, held: u64, limits: &Limits) -> u64 {
        match (limits.get(&self), self.bound()) {
            (Some(set), Bound::AtLeast) => held.max(*set),
            (Some(set), Bound::AtMost) => held.min(*set),
            (None, _) => held,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_makes_stricter_and_never_looser() {
        let limits = Limits::from([(Limit::MinDelayBlocks, 200), (Limit::MaxHtlcs, 30)]);
        assert_eq!([144, 300].map(|held| Limit::MinDelayBlocks.stricter(held, &limits)), [200, 300]);
        assert_eq!([966, 20].map(|held| Limit::MaxHtlcs.stricter(held, &limits)), [30, 20]);
        assert_eq!(Limit::MaxChannelSat.stricter(7, &limits), 7);
    }
}
