//! aezeed: the 24 words of an lnd's seed (lnd, `aezeed/README.md`).
//!
//! The words are 33 bytes: the version, 23 bytes under AEZ with a key that scrypt makes from the passphrase and the salt,
//! 5 bytes of salt, and their CRC-32C. Inside are the version of the derivation, the birthday in days since the first
//! block, and the 16 bytes from which BIP 32's master key comes. Both versions of the derivation that are in use, 0 and 1,
//! have the same keys: the second knows taproot addresses too.

use bip39::Language;
use zeroize::Zeroizing;

use super::ImportError;
use super::aez;

const WORDS: usize = 24;
const BITS_PER_WORD: usize = 11;
const BYTES: usize = 33;
const SALT: std::ops::Range<usize> = 24..29;
const VERSION: u8 = 0;
const MAX_DERIVATION: u8 = 1;
/// scrypt's N is two to the power of this; r is 8, p is 1.
const COST: u8 = 15;
/// What stands for no passphrase.
const NO_PASSPHRASE: &str = "aezeed";

/// The seed of BIP 32 behind these words, in lower case with single spaces. `passphrase` is empty if there is none.
pub(super) fn open(words: &str, passphrase: &str) -> Result<Zeroizing<[u8; 16]>, ImportError> {
    open_at(COST, words, passphrase)
}

fn open_at(cost: u8, words: &str, passphrase: &str) -> Result<Zeroizing<[u8; 16]>, ImportError> {
    let bytes = read(words)?;
    let (body, checksum) = bytes.split_at(SALT.end);
    if crc32c(body).to_be_bytes() != checksum {
        return Err(ImportError::Checksum);
    }
    if body[0] != VERSION {
        return Err(ImportError::SeedVersion(body[0]));
    }
    let passphrase = if passphrase.is_empty() { NO_PASSPHRASE } else { passphrase };
    let mut key = Zeroizing::new([0; 32]);
    let hard = scrypt::Params::new(cost, 8, 1).expect("lnd's own numbers");
    scrypt::scrypt(passphrase.as_bytes(), &body[SALT], &hard, key.as_mut_slice()).expect("32 bytes are a key");
    let associated = [body[0], body[24], body[25], body[26], body[27], body[28]];
    let enciphered = body[1..SALT.start].try_into().expect("23 bytes lie between version and salt");
    let plain = aez::decipher(&key, &associated, enciphered).ok_or(ImportError::SeedPassphrase)?;
    if plain[0] > MAX_DERIVATION {
        return Err(ImportError::SeedVersion(plain[0]));
    }
    let mut seed = Zeroizing::new([0; 16]);
    seed.copy_from_slice(&plain[3..]);
    Ok(seed)
}

/// The bytes that the words stand for.
fn read(words: &str) -> Result<Zeroizing<[u8; BYTES]>, ImportError> {
    let count = words.split(' ').count();
    if count != WORDS {
        return Err(ImportError::SeedWordCount(count));
    }
    let mut bytes = Zeroizing::new([0; BYTES]);
    for (at, word) in words.split(' ').enumerate() {
        let index = Language::English.find_word(word).ok_or(ImportError::UnknownWord(at + 1))?;
        for bit in 0..BITS_PER_WORD {
            let place = at * BITS_PER_WORD + bit;
            bytes[place / 8] |= ((index >> (BITS_PER_WORD - 1 - bit) & 1) as u8) << (7 - place % 8);
        }
    }
    Ok(bytes)
}

/// Castagnoli's CRC of 32 bits.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ 0x82f6_3b78 & (crc & 1).wrapping_neg())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of lnd's own tests, which make scrypt cheap: one entropy without a passphrase, and with one.
    const PLAIN: &str = "ability liquid travel stem barely drastic pact cupboard apple thrive morning oak feature tissue couch old math inform success suggest drink motion know royal";
    const LOCKED: &str = "able tree stool crush transfer cloud cross three profit outside hen citizen plate ride require leg siren drum success suggest drink require fiscal upgrade";
    const PASSPHRASE: &str = "!very_safe_55345_password*";
    const CHEAP: u8 = 4;

    /// What lnd 0.21.2 makes of the same entropy: derivations 0 and 1, each without a passphrase and with one.
    const OF_LND: [(&str, &str); 4] = [
        (
            "abandon tortoise question material jazz cage love exercise spring nurse shine cushion elder multiply suffer news east better enrich gorilla squirrel prosper define coyote",
            "",
        ),
        (
            "ability lobster client web settle shop clerk enough prevent candy sign exit wing portion together donor stuff sheriff enrich gorilla squirrel project into throw",
            "a horse, a kingdom",
        ),
        (
            "able start subject cash note video scene false cannon balcony guard input company describe loan guilt hotel chuckle female please agent joy bleak cactus",
            "",
        ),
        (
            "ability rival catalog wall book sight lawn cliff olympic coin feature student expose average kitchen gap brain vacuum female please agent beauty stove birth",
            "a horse, a kingdom",
        ),
    ];
    const ENTROPY: &str = "81b637d86359e6960de795e41e0b4cfd";

    fn opened(words: &str, passphrase: &str) -> Result<String, ImportError> {
        open(words, passphrase).map(|seed| hex::encode(*seed))
    }

    #[test]
    fn seeds_of_lnd_open_with_their_passphrases_and_no_other() {
        for (words, passphrase) in OF_LND {
            assert_eq!(opened(words, passphrase), Ok(ENTROPY.to_owned()));
            assert_eq!(opened(words, "another"), Err(ImportError::SeedPassphrase));
        }
    }

    #[test]
    fn the_vectors_of_lnds_tests_open_at_their_cost() {
        for (words, passphrase) in [(PLAIN, ""), (LOCKED, PASSPHRASE)] {
            let opened = open_at(CHEAP, words, passphrase).map(|seed| hex::encode(*seed));
            assert_eq!(opened, Ok(ENTROPY.to_owned()));
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(opened(&PLAIN.replace("royal", "roial"), ""), Err(ImportError::UnknownWord(24)));
        assert_eq!(opened(&PLAIN.replace("liquid travel", "travel liquid"), ""), Err(ImportError::Checksum));
        assert_eq!(opened(PLAIN.strip_suffix(" royal").expect("ends so"), ""), Err(ImportError::SeedWordCount(23)));
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
