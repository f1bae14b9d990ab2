use lightning::sign::{KeysManager, NodeSigner, Recipient};
use lightning::util::ser::Writeable;

use super::*;

/// The first vector of BIP39 with the passphrase TREZOR: its seed and its BIP32 master key.
const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
const SEED: &str = "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531f09a6987599d18264c1e1c92f2cf141630c7a3c4ab7c81b2f001698e7463b04";
const MASTER: &str =
    "xprv9s21ZrQH143K3h3fDYiay8mocZ3afhfULfb5GX8kCBdno77K4HiA15Tg23wpbeF1pLfs1c5SPmYHrEpTuuRhxMwvKDwqdKiGJS9XFKzUsAF";

/// What the input looks like.
fn format(kind: NodeKind, input: &[u8]) -> Format {
    match kind {
        _ if words(input).is_some() => Format::Bip39,
        NodeKind::Ldk => Format::LdkSeed,
        NodeKind::Cln => Format::ClnHsmSecret,
        NodeKind::Lnd => Format::Xprv,
        NodeKind::Lightspark => Format::LightsparkSeed,
    }
}

fn seed(kind: NodeKind, input: &[u8], passphrase: &str) -> Result<String, ImportError> {
    import(kind, format(kind, input), input, passphrase).map(|imported| imported.seed.expose(|seed| hex::encode(seed)))
}

fn master_key() -> String {
    MASTER.parse::<Xpriv>().expect("an xprv").private_key.display_secret().to_string()
}

#[test]
fn a_seed_is_taken_as_bytes_or_hex_for_both_kinds() {
    let bytes: [u8; 32] = std::array::from_fn(|at| 255 - at as u8);
    let hex = hex::encode(bytes);
    for kind in [NodeKind::Ldk, NodeKind::Cln] {
        assert_eq!(seed(kind, &bytes, ""), Ok(hex.clone()));
        assert_eq!(seed(kind, format!(" {}\n", hex.to_uppercase()).as_bytes(), ""), Ok(hex.clone()));
    }
    let style = |kind| import(kind, format(kind, &bytes), &bytes, "").map(|imported| imported.style);
    assert_eq!([NodeKind::Ldk, NodeKind::Cln].map(style), [Ok(Derivation::Ldk), Ok(Derivation::Native)]);
}

#[test]
fn an_input_is_what_it_is_said_to_be_or_refused() {
    use Format::{Bip39, ClnHsmSecret, LdkSeed};
    let refused = |kind, format, input: &[u8]| import(kind, format, input, "").map(|_| ()).expect_err("refused");
    // The same bytes make other keys in a node of another kind.
    assert_eq!(refused(NodeKind::Ldk, ClnHsmSecret, &[7; 32]), ImportError::OtherKind(ClnHsmSecret, NodeKind::Ldk));
    assert_eq!(refused(NodeKind::Cln, LdkSeed, &[7; 32]), ImportError::OtherKind(LdkSeed, NodeKind::Cln));
    assert_eq!(refused(NodeKind::Ldk, Bip39, &[7; 32]), ImportError::OtherFormat(Bip39));
    assert_eq!(refused(NodeKind::Ldk, LdkSeed, WORDS.as_bytes()), ImportError::OtherFormat(LdkSeed));
    assert_eq!("seed".parse::<Format>(), Err(ImportError::NoSuchFormat));
}

#[test]
fn a_root_key_is_taken_for_lnd_and_nothing_that_is_derived_from_one() {
    let master: Xpriv = MASTER.parse().expect("an xprv");
    let imported = import(NodeKind::Lnd, Format::Xprv, MASTER.as_bytes(), "").expect("a root key");
    assert_eq!(imported.seed.expose(|seed| *seed), master.private_key.secret_bytes());
    assert_eq!(imported.chain_code.expect("there").expose(|code| *code), master.chain_code.to_bytes());
    let child = master.derive_priv(&secp256k1::Secp256k1::new(), &[0u32.into()]).expect("derives").to_string();
    for no_root in [child.as_bytes(), &MASTER.as_bytes()[..100], &[7; 32]] {
        assert_eq!(import(NodeKind::Lnd, Format::Xprv, no_root, "").err(), Some(ImportError::NoRootKey));
    }
    let other = import(NodeKind::Ldk, Format::Xprv, MASTER.as_bytes(), "").err();
    assert_eq!(other, Some(ImportError::OtherKind(Format::Xprv, NodeKind::Ldk)));
}

#[test]
fn an_aezeed_is_taken_for_lnd_with_the_master_key_of_its_entropy() {
    const AEZEED: &str = "able start subject cash note video scene false cannon balcony guard input company describe loan guilt hotel chuckle female please agent joy bleak cactus";
    let entropy = hex::decode("81b637d86359e6960de795e41e0b4cfd").expect("hex");
    let master = Xpriv::new_master(Network::Bitcoin, &entropy).expect("a key");
    let typed = AEZEED.to_uppercase().replace(' ', "\n");
    let imported = import(NodeKind::Lnd, Format::Aezeed, typed.as_bytes(), "").expect("made by lnd");
    assert_eq!(imported.seed.expose(|seed| *seed), master.private_key.secret_bytes());
    assert_eq!(imported.chain_code.expect("there").expose(|code| *code), master.chain_code.to_bytes());
    let refused = |kind, format, input: &str| import(kind, format, input.as_bytes(), "").err();
    assert_eq!(refused(NodeKind::Lnd, Format::Aezeed, WORDS), Some(ImportError::SeedWordCount(12)));
    assert_eq!(refused(NodeKind::Lnd, Format::Aezeed, MASTER), Some(ImportError::OtherFormat(Format::Aezeed)));
    let other = Some(ImportError::OtherKind(Format::Bip39, NodeKind::Lnd));
    assert_eq!(refused(NodeKind::Lnd, Format::Bip39, AEZEED), other);
}

#[test]
fn a_lightspark_seed_makes_the_master_key_that_bip32_makes_of_it() {
    // The first vector of BIP 32, and the mnemonic's own.
    let key = |format, input: &[u8]| {
        let imported = import(NodeKind::Lightspark, format, input, "")?;
        Ok(imported.seed.expose(|seed| hex::encode(seed)))
    };
    let first = "e8f32e723decf4051aefac8e2c93c9c5b214313817cdb01a1494b917c8436b35".to_owned();
    assert_eq!(key(Format::LightsparkSeed, b"000102030405060708090a0b0c0d0e0f\n"), Ok(first));
    assert!(key(Format::Bip39, WORDS.as_bytes()).is_ok());
    for wrong in [&[7; 32][..], &[b'0'; 62], b"", WORDS.as_bytes()] {
        let refused = ImportError::OtherFormat(Format::LightsparkSeed);
        assert_eq!(key(Format::LightsparkSeed, wrong), Err(refused));
    }
    let other = ImportError::OtherKind(Format::LdkSeed, NodeKind::Lightspark);
    assert_eq!(key(Format::LdkSeed, &[7; 32]), Err(other));
}

#[test]
fn a_mnemonic_becomes_the_seed_its_own_software_makes_of_it() {
    assert_eq!(seed(NodeKind::Cln, WORDS.as_bytes(), "TREZOR"), Ok(SEED[..64].to_owned()));
    assert_eq!(seed(NodeKind::Ldk, WORDS.as_bytes(), "TREZOR"), Ok(master_key()));
    for typed in [format!("  {}\r\n", WORDS.to_uppercase().replace(' ', "  ")), WORDS.replace(' ', "\n")] {
        assert_eq!(seed(NodeKind::Ldk, typed.as_bytes(), "TREZOR"), Ok(master_key()));
    }
    assert_ne!(seed(NodeKind::Ldk, WORDS.as_bytes(), ""), Ok(master_key()));
}

#[test]
fn the_seed_file_of_ldk_node_is_its_bip32_seed() {
    let file = hex::decode(SEED).expect("hex");
    assert_eq!(seed(NodeKind::Ldk, &file, ""), Ok(master_key()));
    assert_eq!(seed(NodeKind::Cln, &file, ""), Err(ImportError::UnknownFormat(64)));
}

#[test]
fn an_imported_ldk_seed_keeps_its_node_id() {
    use lightning_signer::signer::derive::key_derive;
    let imported = import(NodeKind::Ldk, Format::LdkSeed, &[42; 32], "").expect("a seed");
    let (node_id, _) = imported.seed.expose(|seed| {
        key_derive(imported.style.into(), Network::Regtest).node_keys(seed, &secp256k1::Secp256k1::new())
    });
    let ldk = KeysManager::new(&[42; 32], 1, 2, true).get_node_id(Recipient::Node).expect("a node id");
    assert_eq!(node_id.serialize().to_vec(), ldk.encode());
}

#[test]
fn formats_that_cannot_be_taken_over_are_named() {
    assert_eq!(seed(NodeKind::Cln, &[0x91; 73], ""), Err(ImportError::EncryptedHsmSecret));
    for prefix in [[0; 32], [0x91; 32]] {
        let file = [&prefix, WORDS.as_bytes()].concat();
        assert_eq!(seed(NodeKind::Cln, &file, ""), Err(ImportError::MnemonicHsmSecret));
    }
    for input in [&b""[..], b"x", &[1; 31], &[1; 33], &[1; 65], b"not a seed!", &[b'g'; 64]] {
        let kind = if input.len() == 64 { NodeKind::Cln } else { NodeKind::Ldk };
        assert_eq!(seed(kind, input, ""), Err(ImportError::UnknownFormat(input.len())));
    }
    assert_eq!(seed(NodeKind::Ldk, &[b'a'; MAX_INPUT + 1], ""), Err(ImportError::TooLong));
    assert_eq!(seed(NodeKind::Ldk, &[1; 32], "TREZOR"), Err(ImportError::PassphraseUnused));
}

#[test]
fn mistakes_in_a_mnemonic_are_located_without_repeating_it() {
    let with = |from: &str, to: &str| seed(NodeKind::Ldk, WORDS.replace(from, to).as_bytes(), "");
    assert_eq!(with("about", "abuot"), Err(ImportError::UnknownWord(12)));
    assert_eq!(with("about", "abandon"), Err(ImportError::Checksum));
    assert_eq!(with(" about", ""), Err(ImportError::WordCount(11)));
    let shown = with("about", "abuot").map_err(|error| error.to_string()).expect_err("unknown");
    assert!(!shown.contains("abuot"));
}
