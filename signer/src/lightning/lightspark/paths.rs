//! Derivation paths as Lightspark writes them: canonical text, each bound to the one purpose that it has (P10).

use std::fmt;

use bitcoin::Network;
use bitcoin::bip32::ChildNumber;

/// The longest path that is read, in bytes.
const MAX_BYTES: usize = 64;
const HARDENED: u32 = 1 << 31;

const CLOSING: u32 = 1;
const CHANNELS: u32 = 3;
const WALLET: u32 = 84 | HARDENED;

/// Declares the keys of a channel: variant, last number of `m/3/n/…`, what the key is for.
macro_rules! channel_keys {
    ($( $variant:ident $number:literal $doc:literal; )*) => {
        /// A channel's key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ChannelKey { $( #[doc = $doc] $variant = $number, )* }

        impl ChannelKey {
            /// All of them.
            pub const ALL: &'static [ChannelKey] = &[ $( ChannelKey::$variant, )* ];
        }
    };
}

channel_keys! {
    Funding 0 "Commitments and mutual closes.";
    RevocationBase 1 "Punishes revoked commitments.";
    Payment 2 "What the counterparty's commitment pays us.";
    DelayedBase 3 "What our own commitment pays us after a delay.";
    HtlcBase 4 "HTLCs.";
}

/// Where a key stands that a webhook may name. Node identity, preimages and the operation signing key have no place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPath {
    /// `m/1/i`: a wallet address that closes and sweeps pay to.
    Closing(u32),
    /// `m/3/n`: the seed of a channel's per-commitment secrets.
    Channel(u32),
    /// `m/3/n/k`
    ChannelKey(u32, ChannelKey),
    /// `m/84'/coin'/0'/chain/i`: the L1 wallet, chain 0 or 1.
    Wallet(u32, u32),
}

/// Not a path with a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Too long, or not the one way in which the path is written: another text would lead to the same key.
    #[error("the derivation path is not in canonical form")]
    NotCanonical,
    /// No key that a webhook may name stands there.
    #[error("the derivation path leads to no key with a purpose")]
    NoPurpose,
}

impl KeyPath {
    /// Reads `text`; the wallet's paths are those of `network`.
    pub fn parse(text: &str, network: Network) -> Result<Self, PathError> {
        if text.len() > MAX_BYTES {
            return Err(PathError::NotCanonical);
        }
        let numbers = match text.split_once('/') {
            Some(("m", rest)) => rest.split('/').map(number).collect::<Option<Vec<u32>>>(),
            None if text == "m" => Some(Vec::new()),
            _ => None,
        };
        let plain = |number: u32| number < HARDENED;
        match *numbers.ok_or(PathError::NotCanonical)? {
            [CLOSING, index] if plain(index) => Ok(Self::Closing(index)),
            [CHANNELS, channel] if plain(channel) => Ok(Self::Channel(channel)),
            [CHANNELS, channel, key] if plain(channel) => {
                let key = ChannelKey::ALL.iter().find(|known| **known as u32 == key);
                key.map(|key| Self::ChannelKey(channel, *key)).ok_or(PathError::NoPurpose)
            }
            [WALLET, coin, HARDENED, chain @ 0..=1, index] if coin_type(network) == Some(coin) && plain(index) => {
                Ok(Self::Wallet(chain, index))
            }
            _ => Err(PathError::NoPurpose),
        }
    }

    /// The numbers from the master key on.
    pub fn children(self, network: Network) -> Vec<ChildNumber> {
        let numbers: &[u32] = match self {
            Self::Closing(index) => &[CLOSING, index],
            Self::Channel(channel) => &[CHANNELS, channel],
            Self::ChannelKey(channel, key) => &[CHANNELS, channel, key as u32],
            Self::Wallet(chain, index) => &[WALLET, coin_type(network).unwrap_or(HARDENED), HARDENED, chain, index],
        };
        numbers.iter().map(|number| ChildNumber::from(*number)).collect()
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closing(index) => write!(f, "m/{CLOSING}/{index}"),
            Self::Channel(channel) => write!(f, "m/{CHANNELS}/{channel}"),
            Self::ChannelKey(channel, key) => write!(f, "m/{CHANNELS}/{channel}/{}", *key as u32),
            Self::Wallet(chain, index) => write!(f, "the wallet's {chain}/{index}"),
        }
    }
}

/// The coin number of the L1 wallet, which is Lightspark's own on test networks; none is known for others.
fn coin_type(network: Network) -> Option<u32> {
    let coin = match network {
        Network::Bitcoin => 0,
        Network::Testnet => 1,
        Network::Regtest => 2,
        _ => return None,
    };
    Some(coin | HARDENED)
}

/// A child number in decimal: digits without a leading zero, then `'` if it is hardened.
fn number(text: &str) -> Option<u32> {
    let (digits, hardened) = text.strip_suffix('\'').map_or((text, 0), |digits| (digits, HARDENED));
    let is_canonical = digits == "0" || digits.starts_with(|first: char| ('1'..='9').contains(&first));
    if !is_canonical || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| *number < HARDENED).map(|number: u32| number | hardened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_purpose_is_read_and_leads_back() {
        for (text, path) in [
            ("m/1/77", KeyPath::Closing(77)),
            ("m/3/2147483647", KeyPath::Channel(2_147_483_647)),
            ("m/3/0/0", KeyPath::ChannelKey(0, ChannelKey::Funding)),
            ("m/3/5/4", KeyPath::ChannelKey(5, ChannelKey::HtlcBase)),
            ("m/84'/2'/0'/1/9", KeyPath::Wallet(1, 9)),
        ] {
            assert_eq!(KeyPath::parse(text, Network::Regtest), Ok(path));
            let numbers: Vec<String> = path.children(Network::Regtest).iter().map(ToString::to_string).collect();
            assert_eq!(format!("m/{}", numbers.join("/")), text);
        }
    }

    #[test]
    fn another_text_for_the_same_key_is_refused() {
        for alias in [
            "m/084'/2'/0'/1/9",
            "m/+84'/2'/0'/1/9",
            "84'/2'/0'/1/9",
            "m/84h/2'/0'/1/9",
            "M/1/77",
            "/1/77",
            "m/1/77/",
            "m//77",
            "m/1/077",
            "m/1/ 77",
            "m/1/2147483648",
            "m/1/4294967373",
            "m/1/-1",
            "m/1/",
            "m/'",
            "",
        ] {
            assert_eq!(KeyPath::parse(alias, Network::Regtest), Err(PathError::NotCanonical), "{alias}");
        }
        assert_eq!(KeyPath::parse(&format!("m/1{}", "/1".repeat(40)), Network::Regtest), Err(PathError::NotCanonical));
    }

    #[test]
    fn no_key_without_a_purpose_is_reached() {
        for path in [
            "m",
            "m/0",
            "m/3",
            "m/4'",
            "m/4",
            "m/5",
            "m/3/7/5",
            "m/3/7'/0",
            "m/3/7/0/0",
            "m/1/7'",
            "m/2/7",
            "m/84'/2'/0'",
            "m/84'/0'/0'/0/0",
            "m/84'/2'/1'/0/0",
            "m/84'/2'/0'/2/0",
            "m/84'/2'/0'/0/0'",
            "m/84/2'/0'/0/0",
        ] {
            assert_eq!(KeyPath::parse(path, Network::Regtest), Err(PathError::NoPurpose), "{path}");
        }
        // The same text is the wallet's on its own network only.
        assert_eq!(KeyPath::parse("m/84'/0'/0'/0/0", Network::Bitcoin), Ok(KeyPath::Wallet(0, 0)));
        assert_eq!(KeyPath::parse("m/84'/2'/0'/0/0", Network::Signet), Err(PathError::NoPurpose));
    }
}
