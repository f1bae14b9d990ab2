//! The entries of one node's grants in the journal: a version byte, a tag, then CBOR (RFC 8949).
//!
//! | entry | tag | holds | changes with |
//! |---|---|---|---|
//! | `grant/<id>` | `g` | the intent's text, when it was asked, who took it back | asking, revoking |
//! | `grant/<id>/by/<person>` | `a` | one approval | approving |
//! | `grant/<id>/use/<key>` | `u` | what one request took, in msat | its first use; a larger amount |

use ciborium::{from_reader, into_writer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::intent::{GrantId, Intent};
use super::standing::{Approval, Grant, Revocation};
use super::{Grants, MAX_GRANTS};
use crate::budget::{Change, ReservationKey};

/// What the keys of all entries begin with.
pub const PREFIX: &str = "grant/";

const VERSION: u8 = 1;
const GRANT_TAG: u8 = b'g';
const APPROVAL_TAG: u8 = b'a';
const USE_TAG: u8 = b'u';

/// An entry of the grants cannot be read. Nothing may be permitted by grants without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantsUnreadable {
    /// Written by a later version.
    #[error("the grants' entry {key} has version {version}; this is version {VERSION}")]
    Newer {
        /// The entry's key.
        key: String,
        /// Its version.
        version: u8,
    },
    /// Not what a version wrote.
    #[error("the grants' entry {0} is damaged")]
    Damaged(String),
}

impl GrantsUnreadable {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Newer { .. } => "Run the version that wrote the journal, or a later one.",
            Self::Damaged(_) => "Run `claviger journal verify`; restore a backup of the data directory if it fails.",
        }
    }
}

/// Text, when it was asked, when and by whom it was taken back.
#[derive(Serialize, Deserialize)]
struct GrantRecord(String, u64, Option<(u64, String)>);

/// Fingerprint, time, signature.
#[derive(Serialize, Deserialize)]
struct ApprovalRecord(String, u64, String);

pub(super) fn grant(grant: &Grant) -> Change {
    let revoked = grant.revoked.as_ref().map(|Revocation { at_ms, by }| (*at_ms, by.clone()));
    let record = GrantRecord(grant.intent.text(), grant.asked_ms, revoked);
    Change { key: grant_key(grant.intent.id), value: Some(encode(GRANT_TAG, &record)) }
}

pub(super) fn approval(id: GrantId, person: &str, approval: Option<&Approval>) -> Change {
    let value = approval.map(|Approval { fingerprint, at_ms, signature }| {
        encode(APPROVAL_TAG, &ApprovalRecord(fingerprint.clone(), *at_ms, signature.clone()))
    });
    Change { key: format!("{}/by/{person}", grant_key(id)), value }
}

pub(super) fn taken(id: GrantId, key: &ReservationKey, amount_msat: Option<u64>) -> Change {
    let value = amount_msat.map(|amount_msat| encode(USE_TAG, &amount_msat));
    Change { key: format!("{}/use/{}", grant_key(id), hex::encode(key.bytes())), value }
}

/// The entries of a grant that is forgotten.
pub(super) fn gone(grant: &Grant) -> Vec<Change> {
    let id = grant.intent.id;
    let approvals = grant.approvals.keys().map(|person| approval(id, person, None));
    let uses = grant.uses.keys().map(|key| taken(id, key, None));
    approvals.chain(uses).chain([Change { key: grant_key(id), value: None }]).collect()
}

impl Grants {
    /// The grants that the node's entries give back: at the start, and after a commit that failed. Entries whose keys do
    /// not begin with [`PREFIX`] are passed over.
    pub fn load<'a>(
        appliance: &str,
        node: &str,
        entries: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, GrantsUnreadable> {
        let mut grants = Self::new(appliance, node);
        let mut parts = Vec::new();
        for (key, value) in entries {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            match value.first() {
                Some(&version) if version > VERSION => {
                    return Err(GrantsUnreadable::Newer { key: key.to_owned(), version });
                }
                _ => {}
            }
            match name.split_once('/') {
                Some((id, part)) => parts.push((key, id, part, value)),
                None => {
                    grants.load_grant(name, value).ok_or_else(|| GrantsUnreadable::Damaged(key.to_owned()))?;
                }
            }
        }
        for (key, id, part, value) in parts {
            grants.load_part(id, part, value).ok_or_else(|| GrantsUnreadable::Damaged(key.to_owned()))?;
        }
        Ok(grants)
    }

    fn load_grant(&mut self, name: &str, value: &[u8]) -> Option<()> {
        let GrantRecord(text, asked_ms, revoked) = decode(GRANT_TAG, value)?;
        let intent = Intent::parse(&text).ok()?;
        let belongs = intent.id.to_string() == name && intent.node == self.node && intent.appliance == self.appliance;
        if !belongs || self.grants.len() == MAX_GRANTS {
            return None;
        }
        let mut grant = Grant::new(intent, asked_ms);
        grant.revoked = revoked.map(|(at_ms, by)| Revocation { at_ms, by });
        self.grants.insert(grant.intent.id, grant);
        Some(())
    }

    fn load_part(&mut self, id: &str, part: &str, value: &[u8]) -> Option<()> {
        let grant = self.grants.get_mut(&GrantId::parse(id)?)?;
        match part.split_once('/')? {
            ("by", person) => {
                let ApprovalRecord(fingerprint, at_ms, signature) = decode(APPROVAL_TAG, value)?;
                grant.approvals.insert(person.to_owned(), Approval { fingerprint, at_ms, signature });
            }
            ("use", key) => {
                let mut bytes = [0; 32];
                hex::decode_to_slice(key, &mut bytes).ok()?;
                grant.uses.insert(ReservationKey::from_bytes(bytes), decode(USE_TAG, value)?);
                if grant.uses.len() > grant.intent.uses as usize {
                    return None;
                }
            }
            _ => return None,
        }
        Some(())
    }
}

fn grant_key(id: GrantId) -> String {
    format!("{PREFIX}{id}")
}

fn encode(tag: u8, record: &impl Serialize) -> Vec<u8> {
    let mut value = vec![VERSION, tag];
    into_writer(record, &mut value).expect("plain data always encodes, and a Vec takes all of it");
    value
}

fn decode<T: DeserializeOwned>(tag: u8, value: &[u8]) -> Option<T> {
    let mut cbor = value.strip_prefix(&[VERSION, tag])?;
    let record = from_reader(&mut cbor).ok()?;
    cbor.is_empty().then_some(record)
}
