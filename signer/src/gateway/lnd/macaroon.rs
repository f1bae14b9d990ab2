//! Macaroons (version 2, libmacaroons' binary format): one per node, minted and verified here.
//!
//! The identifier names the node and carries 16 random bytes; the root key follows from it and the signer's own key, so that
//! nothing has to be stored but which identifiers are valid. A macaroon with caveats is refused: none has a meaning here.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::admin::fingerprint::Fingerprint;
use crate::keys::memory::Secret;
use crate::names::NodeName;

/// As the file and the header's hex may not exceed.
const MAX_BYTES: usize = 512;

/// libmacaroons' key for deriving keys, padded with zeros to 32 bytes.
const GENERATOR: &[u8; 32] = b"macaroons-key-generator\0\0\0\0\0\0\0\0\0";

const VERSION: u8 = 2;
const END: u8 = 0;
const LOCATION: u8 = 1;
const IDENTIFIER: u8 = 2;
const SIGNATURE: u8 = 6;

/// Makes macaroons and knows its own.
#[derive(Debug)]
pub struct Mint(Secret<32>);

/// A macaroon just minted.
pub struct Minted {
    /// What the registry keeps: the identifier's fingerprint.
    pub fingerprint: Fingerprint,
    /// 16 random bytes in hex: what people call it.
    pub serial: String,
    /// The file.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// Not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacaroonError {
    /// Not hex, too long, or not in the format.
    #[error("the macaroon cannot be read")]
    Malformed,
    /// It has caveats.
    #[error("the macaroon has caveats, which this signer does not know")]
    Caveats,
    /// Another signer minted it, or somebody forged it.
    #[error("the macaroon is not from this signer")]
    Signature,
}

impl Mint {
    /// A mint with this key.
    pub fn new(key: Secret<32>) -> Self {
        Self(key)
    }

    /// A new macaroon for `node`.
    pub fn mint(&self, node: &NodeName) -> Minted {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the operating system provides randomness");
        let serial = hex::encode(random);
        let identifier = format!("claviger:lnd:{node}:{serial}").into_bytes();
        let mut bytes = Zeroizing::new(vec![VERSION]);
        field(&mut bytes, LOCATION, b"claviger");
        field(&mut bytes, IDENTIFIER, &identifier);
        bytes.extend([END, END]); // the header's end, and that of no caveats
        field(&mut bytes, SIGNATURE, &*self.signature(&identifier));
        Minted { fingerprint: Fingerprint::of(&identifier), serial, bytes }
    }

    /// The fingerprint of a macaroon that came as lnd sends it, in hex. Takes the same time for any wrong signature.
    pub fn verify(&self, hex: &[u8]) -> Result<Fingerprint, MacaroonError> {
        if hex.len() > 2 * MAX_BYTES {
            return Err(MacaroonError::Malformed);
        }
        let bytes = Zeroizing::new(hex::decode(hex).map_err(|_| MacaroonError::Malformed)?);
        let (identifier, signature) = parse(&bytes)?;
        if bool::from(self.signature(identifier).ct_eq(signature)) {
            Ok(Fingerprint::of(identifier))
        } else {
            Err(MacaroonError::Signature)
        }
    }

    fn signature(&self, identifier: &[u8]) -> Zeroizing<[u8; 32]> {
        let root = self.0.expose(|key| mac(key, identifier));
        let key = mac(GENERATOR, &*root);
        mac(&key, identifier)
    }
}

/// Identifier and signature.
fn parse(bytes: &[u8]) -> Result<(&[u8], &[u8]), MacaroonError> {
    let read = || {
        let (&[VERSION], mut rest) = bytes.split_first_chunk()? else { return None };
        if rest.first() == Some(&LOCATION) {
            take(&mut rest, LOCATION)?;
        }
        let identifier = take(&mut rest, IDENTIFIER)?;
        let (&[END], rest) = rest.split_first_chunk()? else { return None };
        Some((identifier, rest))
    };
    let (identifier, rest) = read().ok_or(MacaroonError::Malformed)?;
    let Some((&[END], mut rest)) = rest.split_first_chunk() else { return Err(MacaroonError::Caveats) };
    let signature = take(&mut rest, SIGNATURE).filter(|signature| signature.len() == 32 && rest.is_empty());
    Ok((identifier, signature.ok_or(MacaroonError::Malformed)?))
}

/// The value of the field that comes next, which must be this one.
fn take<'a>(bytes: &mut &'a [u8], number: u8) -> Option<&'a [u8]> {
    let (&[found], mut rest) = bytes.split_first_chunk()?;
    // An unsigned varint; nothing here needs a third byte.
    let (&first, after) = rest.split_first()?;
    rest = after;
    let mut len = usize::from(first & 0x7f);
    if first & 0x80 != 0 {
        let (&second, after) = rest.split_first()?;
        rest = after;
        if second & 0x80 != 0 {
            return None;
        }
        len |= usize::from(second) << 7;
    }
    let (value, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    (found == number).then_some(value)
}

fn field(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.extend([number, u8::try_from(value.len()).ok().filter(|len| *len < 0x80).expect("names are short")]);
    out.extend(value);
}

fn mac(key: &[u8; 32], message: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    mac.update(message);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mint(byte: u8) -> Mint {
        Mint::new(Secret::init(|key| key.fill(byte)))
    }

    fn hex_of(bytes: &[u8]) -> Vec<u8> {
        hex::encode(bytes).into_bytes()
    }

    #[test]
    fn a_macaroon_is_known_again_and_names_its_node() {
        let name = NodeName::new(&"a".repeat(32)).expect("a name");
        let (one, two) = (mint(1).mint(&name), mint(1).mint(&name));
        assert_eq!(mint(1).verify(&hex_of(&one.bytes)), Ok(one.fingerprint));
        assert_ne!(one.fingerprint, two.fingerprint, "each can be revoked by itself");
        let text = String::from_utf8_lossy(&one.bytes).into_owned();
        assert!(text.contains(&format!("claviger:lnd:{name}:{}", one.serial)), "{text}");
    }

    #[test]
    fn hostile_macaroons_are_refused_whatever_byte_is_changed_and_of_another_signer() {
        let good = mint(1).mint(&NodeName::new("alice").expect("a name"));
        assert_eq!(mint(2).verify(&hex_of(&good.bytes)), Err(MacaroonError::Signature));
        for at in 0..good.bytes.len() {
            let mut changed = good.bytes.to_vec();
            changed[at] ^= 1;
            // What says where it is from is not signed, in libmacaroons neither.
            let is_location = (3..11).contains(&at);
            assert_eq!(mint(1).verify(&hex_of(&changed)).is_ok(), is_location, "{at}");
            assert!(mint(1).verify(&hex_of(&good.bytes[..at])).is_err(), "{at}");
        }
        assert_eq!(mint(1).verify(b"xx"), Err(MacaroonError::Malformed));
        assert_eq!(mint(1).verify(&vec![b'0'; 2 * MAX_BYTES + 2]), Err(MacaroonError::Malformed));
        let longer = [&good.bytes[..], &[0]].concat();
        assert_eq!(mint(1).verify(&hex_of(&longer)), Err(MacaroonError::Malformed));
    }

    #[test]
    fn caveats_are_refused() {
        let good = mint(1).mint(&NodeName::new("alice").expect("a name"));
        let at = good.bytes.len() - 35; // the end of the caveats, before the signature
        assert_eq!(good.bytes[at..at + 2], [END, SIGNATURE]);
        let mut with = good.bytes[..at].to_vec();
        field(&mut with, IDENTIFIER, b"time-before 2030");
        with.extend([END, END]);
        with.extend(&good.bytes[at + 1..]);
        assert_eq!(mint(1).verify(&hex_of(&with)), Err(MacaroonError::Caveats));
    }
}
