//! The shares slot: a random key-encryption key, split so that any `threshold` of the shares give it back (Shamir).
//!
//! The record keeps a digest of each share, so that a wrong one is named when it is entered, not when all are there. A
//! share has 256 random bits: its digest tells nothing.

use std::fmt;
use std::str::FromStr;

use blahaj::Sharks;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::kek::{Sealed, random};
use crate::slot::{Binding, KeySlot, SlotError, SlotKind, Wrapped};

/// More people than a ceremony has.
pub const MAX_SHARES: u8 = 16;
const PREFIX: &str = "cs1";

/// What is stored for a shares slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    #[serde(with = "crate::hexed")]
    set: [u8; 4],
    threshold: u8,
    /// Of share 1, 2, 3 …
    digests: Vec<ShareDigest>,
    sealed: Sealed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct ShareDigest(#[serde(with = "crate::hexed")] [u8; 32]);

/// Why shares do not open a slot. Shares are named by their number, never by their content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ShareError {
    /// The text is no share, or was mistyped.
    #[error("this is not a share, or it was mistyped")]
    Unreadable,
    /// The share belongs to another slot or another installation.
    #[error("share {index} is of another set")]
    Foreign {
        /// The number it says it has.
        index: u8,
    },
    /// The share is of this set by its name, and not what was dealt.
    #[error("share {index} is not the one that was dealt")]
    Wrong {
        /// Its number.
        index: u8,
    },
    /// The share was entered before.
    #[error("share {index} was entered already")]
    Twice {
        /// Its number.
        index: u8,
    },
    /// Fewer shares than needed.
    #[error("{have} of {need} shares")]
    TooFew {
        /// How many there are.
        have: u8,
        /// How many are needed.
        need: u8,
    },
    /// Shares can be split among 2 to 16 people, 2 of whom at least are needed.
    #[error("{threshold} of {count} shares cannot be dealt")]
    Deal {
        /// How many would be needed.
        threshold: u8,
        /// How many there would be.
        count: u8,
    },
}

impl ShareError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable => "Enter the whole line of the share's file, beginning with cs1-.",
            Self::Foreign { .. } => {
                "Ask its holder for the share of this installation; the first group of digits names the set."
            }
            Self::Wrong { .. } => "Use another holder's share, and find out who changed this one.",
            Self::Twice { .. } => "Enter the share of somebody else.",
            Self::TooFew { .. } => "Enter the shares of more holders.",
            Self::Deal { .. } => "Choose 2 to 16 shares, and a threshold from 2 to their number.",
        }
    }
}

/// One person's share. Written as `cs1-SET-NUMBER-VALUE-CHECK`, everything but the number in hex.
#[derive(Clone)]
pub struct Share {
    set: [u8; 4],
    index: u8,
    value: Zeroizing<[u8; 32]>,
}

impl Share {
    /// Its number, from 1.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// The share as its holder keeps it. It is secret.
    pub fn reveal(&self) -> Zeroizing<String> {
        let value = Zeroizing::new(hex::encode(self.value.as_slice()));
        let (set, check) = (hex::encode(self.set), hex::encode(self.check()));
        Zeroizing::new(format!("{PREFIX}-{set}-{}-{}-{check}", self.index, *value))
    }

    /// Tells mistyping from a wrong share.
    fn check(&self) -> [u8; 4] {
        let digest = self.hash(b"claviger-share-check", &[]);
        [digest[0], digest[1], digest[2], digest[3]]
    }

    fn digest(&self, binding: &Binding) -> ShareDigest {
        ShareDigest(self.hash(b"claviger-share", &binding.associated_data()))
    }

    fn hash(&self, tag: &[u8], context: &[u8]) -> [u8; 32] {
        let hash = Sha256::new().chain_update(tag).chain_update(context).chain_update(self.set);
        hash.chain_update([self.index]).chain_update(self.value.as_slice()).finalize().into()
    }
}

impl FromStr for Share {
    type Err = ShareError;

    /// Reads what `reveal` wrote, in upper or lower case, with or without white space.
    fn from_str(text: &str) -> Result<Self, ShareError> {
        if text.len() > 256 {
            return Err(ShareError::Unreadable);
        }
        let mut letters = Zeroizing::new(String::with_capacity(text.len()));
        letters.extend(text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()));
        let mut share = Self { set: [0; 4], index: 0, value: Zeroizing::new([0; 32]) };
        let mut check = [0; 4];
        let parts: Vec<_> = letters.split('-').collect();
        let [PREFIX, set, index, value, said] = parts[..] else { return Err(ShareError::Unreadable) };
        let read = hex::decode_to_slice(set, &mut share.set)
            .and_then(|()| hex::decode_to_slice(value, &mut *share.value))
            .and_then(|()| hex::decode_to_slice(said, &mut check));
        share.index = index.parse().map_err(|_| ShareError::Unreadable)?;
        if read.is_err() || check != share.check() { Err(ShareError::Unreadable) } else { Ok(share) }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({})", self.index)
    }
}

impl Record {
    /// How many shares open the slot.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// How many shares were dealt.
    pub fn count(&self) -> u8 {
        self.digests.len() as u8 // `check` bounds it
    }

    /// Whether `share` was dealt for this slot and is not among the `entered`.
    pub fn judge(&self, binding: &Binding, share: &Share, entered: &[Share]) -> Result<(), ShareError> {
        let index = share.index;
        let dealt = index.checked_sub(1).and_then(|at| self.digests.get(usize::from(at)));
        match dealt.filter(|_| share.set == self.set) {
            None => Err(ShareError::Foreign { index }),
            Some(digest) if *digest != share.digest(binding) => Err(ShareError::Wrong { index }),
            Some(_) if entered.iter().any(|other| other.index == index) => Err(ShareError::Twice { index }),
            Some(_) => Ok(()),
        }
    }

    fn check(&self) -> Result<(), SlotError> {
        let count = u8::try_from(self.digests.len()).unwrap_or(u8::MAX);
        Ok(judge_deal(self.threshold, count)?)
    }
}

fn judge_deal(threshold: u8, count: u8) -> Result<(), ShareError> {
    let possible = (2..=MAX_SHARES).contains(&count) && (2..=count).contains(&threshold);
    if possible { Ok(()) } else { Err(ShareError::Deal { threshold, count }) }
}

/// Shares: dealt for a new slot, or collected to open one.
#[derive(Clone, Debug)]
pub struct SharesSlot {
    shares: Vec<Share>,
    /// Of a deal; collected shares do not know it.
    threshold: u8,
}

impl SharesSlot {
    /// New shares of a new random key for `count` people (2 to 16), any `threshold` (2 to `count`) of whom open the slot.
    pub fn deal(threshold: u8, count: u8) -> Result<Self, ShareError> {
        judge_deal(threshold, count)?;
        let (set, kek) = (random(), Zeroizing::new(random::<32>()));
        let shares = Sharks(threshold).dealer(&*kek).take(usize::from(count)).map(|dealt| {
            let bytes = Zeroizing::new(Vec::from(&dealt));
            let mut share = Share { set, index: bytes[0], value: Zeroizing::new([0; 32]) };
            share.value.copy_from_slice(&bytes[1..]);
            share
        });
        Ok(Self { shares: shares.collect(), threshold })
    }

    /// The shares that people entered.
    pub fn collected(shares: Vec<Share>) -> Self {
        Self { shares, threshold: 0 }
    }

    /// The shares, for their holders.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    fn kek(&self, threshold: u8) -> Result<Zeroizing<[u8; 32]>, ShareError> {
        let have = self.shares.len() as u8;
        let shares: Vec<_> = self.shares.iter().take(usize::from(threshold)).filter_map(Share::dealt).collect();
        let sharks = Sharks(threshold);
        let recovered = sharks.recover(&shares).map(Zeroizing::new);
        let recovered = recovered.map_err(|_| ShareError::TooFew { have, need: threshold })?;
        let mut kek = Zeroizing::new([0; 32]);
        kek.copy_from_slice(&recovered);
        Ok(kek)
    }
}

impl Share {
    fn dealt(&self) -> Option<blahaj::Share> {
        let mut bytes = Zeroizing::new([0; 33]);
        bytes[0] = self.index;
        bytes[1..].copy_from_slice(&*self.value);
        blahaj::Share::try_from(&bytes[..]).ok()
    }
}

impl KeySlot for SharesSlot {
    fn kind(&self) -> SlotKind {
        SlotKind::Shares
    }

    fn wrap(&self, binding: &Binding, data_key: &[u8; 32]) -> Result<Wrapped, SlotError> {
        judge_deal(self.threshold, u8::try_from(self.shares.len()).unwrap_or(u8::MAX))?;
        Ok(Wrapped::Shares(Record {
            set: self.shares[0].set,
            threshold: self.threshold,
            digests: self.shares.iter().map(|share| share.digest(binding)).collect(),
            sealed: Sealed::seal(&*self.kek(self.threshold)?, binding, data_key),
        }))
    }

    fn unwrap(&self, binding: &Binding, wrapped: &Wrapped, data_key: &mut [u8; 32]) -> Result<(), SlotError> {
        let Wrapped::Shares(record) = wrapped else { return Err(SlotError::OtherKind(wrapped.kind())) };
        record.check()?;
        for (at, share) in self.shares.iter().enumerate() {
            record.judge(binding, share, &self.shares[..at])?;
        }
        record.sealed.open(&*self.kek(record.threshold)?, binding, data_key)
    }

    fn health(&self, _wrapped: &Wrapped) -> Result<(), SlotError> {
        Ok(()) // people, who cannot be asked from here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: Binding = Binding { version: 2, installation: [5; 16], slot: 3, kind: SlotKind::Shares };

    fn dealt() -> (SharesSlot, Wrapped) {
        let slot = SharesSlot::deal(2, 3).expect("dealt");
        let wrapped = slot.wrap(&BINDING, &[9; 32]).expect("wraps");
        (slot, wrapped)
    }

    fn opened(wrapped: &Wrapped, shares: Vec<Share>) -> Result<[u8; 32], SlotError> {
        let mut key = [0; 32];
        SharesSlot::collected(shares).unwrap(&BINDING, wrapped, &mut key).map(|()| key)
    }

    #[test]
    fn any_two_of_three_open_it_and_one_does_not() {
        let (slot, wrapped) = dealt();
        let [one, two, three] = slot.shares() else { panic!("three shares") };
        for pair in [[one, two], [three, one], [two, three]] {
            assert_eq!(opened(&wrapped, pair.map(Clone::clone).to_vec()), Ok([9; 32]));
        }
        assert_eq!(opened(&wrapped, slot.shares().to_vec()), Ok([9; 32]));
        for (few, have) in [(vec![], 0), (vec![two.clone()], 1)] {
            assert_eq!(opened(&wrapped, few), Err(ShareError::TooFew { have, need: 2 }.into()));
        }
    }

    #[test]
    fn the_share_that_does_not_belong_is_named() {
        let (slot, wrapped) = dealt();
        let [one, two, _] = slot.shares() else { panic!("three shares") };
        let foreign = dealt().0.shares()[1].clone();
        let forged = Share { value: Zeroizing::new([7; 32]), ..two.clone() };
        let unknown = Share { index: 4, ..two.clone() };
        for (second, error) in [
            (foreign, ShareError::Foreign { index: 2 }),
            (forged, ShareError::Wrong { index: 2 }),
            (unknown, ShareError::Foreign { index: 4 }),
            (one.clone(), ShareError::Twice { index: 1 }),
        ] {
            assert_eq!(opened(&wrapped, vec![one.clone(), second]), Err(error.into()));
        }
    }

    #[test]
    fn a_share_survives_paper_and_a_mistyped_one_is_noticed() {
        let (slot, wrapped) = dealt();
        let text = slot.shares().iter().map(|share| share.reveal().to_string()).collect::<Vec<_>>();
        let typed = [text[0].to_uppercase(), format!(" {} {}\n", &text[2][..20], &text[2][20..])];
        let read = typed.iter().map(|text| text.parse()).collect::<Result<Vec<Share>, _>>().expect("reads");
        assert_eq!(opened(&wrapped, read), Ok([9; 32]));
        let last = text[0].len() - 1;
        let mistyped = format!("{}{}", &text[0][..last], if text[0].ends_with('0') { '1' } else { '0' });
        for text in ["", "cs1", "cs1-1-1-1-1", &text[0][..last], &mistyped, &"cs1-".repeat(100)] {
            assert_eq!(text.parse::<Share>().map(|_| ()), Err(ShareError::Unreadable));
        }
    }

    #[test]
    fn impossible_deals_are_refused() {
        for (threshold, count) in [(0, 0), (1, 1), (1, 3), (4, 3), (2, 17), (255, 255)] {
            let refused = SharesSlot::deal(threshold, count).map(|_| ());
            assert_eq!(refused, Err(ShareError::Deal { threshold, count }));
        }
        assert_eq!(SharesSlot::deal(16, 16).map(|slot| slot.shares().len()), Ok(16));
        assert_eq!(SharesSlot::collected(Vec::new()).wrap(&BINDING, &[9; 32]).map(|_| ()), {
            Err(ShareError::Deal { threshold: 0, count: 0 }.into())
        });
    }
}
