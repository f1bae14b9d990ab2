//! One data key, many purposes: every key in use is derived from the data key for exactly one of them (P10).

use hkdf::Hkdf;
use sha2::Sha256;

use super::memory::{Secret, scrubbed};

/// Declares the purposes: variant, label, what the key is for.
macro_rules! purposes {
    ($( $variant:ident $label:literal $doc:literal; )*) => {
        /// What a derived key is for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Purpose { $( #[doc = $doc] $variant, )* }

        impl Purpose {
            /// All purposes, in the order of the table.
            pub const ALL: &'static [Purpose] = &[ $( Purpose::$variant, )* ];

            /// The name of the purpose.
            pub const fn name(self) -> &'static str { match self { $( Purpose::$variant => $label, )* } }

            /// The label that goes into the derivation. Changing one orphans everything under its key.
            const fn label(self) -> &'static str { match self { $( Purpose::$variant => concat!("claviger/1/", $label), )* } }
        }
    };
}

purposes! {
    Records "records" "Seals the journal's records.";
    Seeds "seeds" "Seals node seeds inside their records, so that a record read into ordinary memory shows none.";
    ChainOracle "chain-oracle" "Signs the chain view's attestations to the nodes' trackers.";
    Backup "backup" "Seals backups.";
    PreviousDataKey "previous-data-key" "Seals the data key before it, while the data key is rotated.";
    Macaroons "macaroons" "Makes the macaroons of lnd nodes.";
}

/// The key for `purpose`: HKDF-SHA256 (RFC 5869) without salt, the data key being uniformly random already.
pub fn subkey(data_key: &Secret<32>, purpose: Purpose) -> Secret<32> {
    Secret::init(|out| {
        scrubbed(|| {
            let hkdf = data_key.expose(|key| Hkdf::<Sha256>::new(None, key));
            hkdf.expand(purpose.label().as_bytes(), out).expect("32 bytes are within HKDF's limit");
        });
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::memory::{copies_in_memory, mark};
    use super::*;

    /// Computed with another implementation (Python's `hmac`): a changed derivation would orphan every data directory.
    #[test]
    fn derivation_is_fixed() {
        let data_key = Secret::init(|key| key.fill(7));
        let records = subkey(&data_key, Purpose::Records).expose(|key| hex::encode(key));
        assert_eq!(records, "6b6873267f746ce356615c9b1daaf8aa2cc4d51813b38a518b1404e373aac077");
    }

    #[test]
    fn every_purpose_has_its_own_key() {
        let data_key = Secret::random();
        let keys: BTreeSet<_> = Purpose::ALL.iter().map(|p| subkey(&data_key, *p).expose(|key| *key)).collect();
        assert_eq!(keys.len(), Purpose::ALL.len());
    }

    #[test]
    fn deriving_leaves_no_copy_of_either_key() {
        let data_key = Secret::random();
        let mark_of_data_key = mark(&data_key);
        let before = copies_in_memory(&mark_of_data_key);
        let derived = subkey(&data_key, Purpose::Records);
        assert_eq!(copies_in_memory(&mark_of_data_key), before);
        assert_eq!(copies_in_memory(&mark(&derived)), before);
    }
}
