//! Keys, secrets and signatures, against the official signer. The vectors that Lightspark's SDKs are tested with are here, in
//! `recovery_kits.rs`, in `keys/tests.rs`, and at the door those of whole webhooks.

use bitcoin::Address;

use super::*;
use crate::keys::import::{Format, import};
use crate::lightning::lightspark::operations::signature;
use crate::lightning::lnd::scripts::ChannelScript;

/// Computed with Lightspark's own signer (PyPI, lightspark-crypto-python 0.2.0), seed 00 01 … 0f.
#[test]
fn keys_secrets_preimages_and_signatures_are_those_of_the_official_signer() {
    let keys = keys(&spec());
    assert_eq!(keys.node_id().to_string(), "027c4b09ffb985c298afe7e5813266cbfcb7780b480ac294b0b43dc21f2be3d13c");
    for (path, key) in [
        ("m/1/77", "03213e1c434467b8d9bbe67e07d009b71d1e52c8e4094c161e89583c5752911b8d"),
        ("m/3/5/0", "036120da864175fd8e366d782b16179447a6caccf78a9e138c434fb25db671eebf"),
        ("m/3/5/1", "0253b3e3cfb4089ac2a8098b6d86a6c4ecf41803aec31918abab914c240f909c54"),
        ("m/3/5/4", "026bebfbcb44704465952967498d0bd38cbf010b5127787190f35d024c9be9bec3"),
        ("m/84'/2'/0'/1/9", "027a6839167a669a8fa471a815ae6694d4c5a2dcef3c630e351b2663bd2e67e8b1"),
    ] {
        let path = KeyPath::parse(path, Network::Regtest).expect("a path");
        assert_eq!(keys.public(path).to_string(), key, "{path}");
    }
    for (index, point, secret) in [
        (
            MAX_INDEX,
            "03959b0182ea1ec369bc729c766efcd813ed4924090ff3838b65b11c40e611f80d",
            "6a54441df17ba6db078353759d72ed9846fb2ce031c3658a52b7c514db5bfb38",
        ),
        (
            MAX_INDEX - 10,
            "02e97b0ba6b1092ce8f193acb504b0686a577e628fd0b062f8795d7e985b4e537b",
            "79962d9fca8c22fad74b70c0a33763798b495f69d17695c2e5836adafbb76c7f",
        ),
        (
            27_363_191,
            "0373a88757acbf807e21a9a3047dab2b0e90d91cb84c2071f6cc6d29d90bb552b9",
            "8378a54788de8e53db8953590e71e69179b519348a06a4aa0ed2a4152b4e5f6a",
        ),
    ] {
        assert_eq!(keys.per_commitment_point(5, index).to_string(), point);
        assert_eq!(hex::encode(&keys.per_commitment_secret(5, index)[..]), secret);
    }
    let preimage = "771cb523dea3b04ebe08ba358769a80d5ce0194e3bf2f909d475f909647ca592";
    assert_eq!(hex::encode(&keys.preimage(&[7; 32])[..]), preimage);
    let secret = keys.secret(KeyPath::ChannelKey(5, ChannelKey::Funding));
    for (mul, add, signature) in [
        (
            None,
            None,
            "b153288d4c0c23ddabfcbcc32da6ec43c9cfd87bdcb19ff1b8aa8577240dd15b46bc6d4768a1b89feaf50f81fd3918fbf7453d200332ee19babf79eba9998903",
        ),
        (
            None,
            Some(&[2; 32]),
            "7e87129ce216b0f1e5ba22c7c4d32b8de9241cc225f0a3e36da718b805ff699c7c92c8d4097fbfaf2c1e546fd33cad90b0b19865f220fcbe0f3801a7fc4db16c",
        ),
        (
            Some(&[3; 32]),
            Some(&[2; 32]),
            "3c193fd0e38386835c865433e96c215bc7629ab06b8ef0a5fb47f02bb69d499059591355901a58938b390daa76e01453c15ea3830c0066c5c50b2ffee7876d64",
        ),
    ] {
        let key = tweaked(secret, mul, add).expect("a key");
        let signed = keys.secp().sign_ecdsa(&Message::from_digest([1; 32]), &key).serialize_compact();
        assert_eq!(hex::encode(signed), signature);
    }
}

/// As the JavaScript SDK's own tests have them: key, message, signature.
#[test]
fn an_operation_s_signature_is_that_of_the_javascript_sdk() {
    const FIRST: &str = "e8f32e723decf4051aefac8e2c93c9c5b214313817cdb01a1494b917c8436b35";
    const SMALLEST: &str = "0000000000000000000000000000000000000000000000000000000000000001";
    const LARGEST: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140";
    const FIXED: &str = "a3fd2b4f5e6c7d8a9b0c1d2e3f405162738495a6b7c8d9e0f1a2b3c4d5e6f708";
    let sequence: Vec<u8> = (0..=255).collect();
    let pattern = [0xde, 0xad, 0xbe, 0xef].repeat(256);
    for (key, message, expected) in [
        (
            FIRST,
            &b""[..],
            "3045022100abf6d5fc099a738944afa491783ea0abf3981959808850d86d167853fdeafd0202202dfb6f08fdb7c7d583022761d2ac3734ae81b6185c28783ff114ad0390a6d163",
        ),
        (
            FIRST,
            b"test message",
            "3044022036e786a9664f71abcd44f0ff32b64a6e5212a18efa5ca57ba9dc9179991cd108022049ffc43f7840653d6470d5b1981ad22b7c5bcda15b26c6e9464451e47249bef8",
        ),
        (
            FIRST,
            b"hello world",
            "30440220767b1a1842e64c18f6e3983f173b83174c0776de5f207265ad417162a924f66e0220068bfb0814aea346eefb2bc85225a74f4762d7c376e98d807d4a70c3ce266480",
        ),
        (
            FIRST,
            b"\x00",
            "3045022100f6a24b6b335dce767af4c5c0f6f08d2871f75e3227128baf256a3a74f409dd9602205c271c276b8913d98ba05fb513ed1cbf0284927aefbbb8999a91cd081ce8114d",
        ),
        (
            FIRST,
            b"\xff",
            "3044022039cf537339901a19a6f50f280760b18bc0e6cb2cfbc3ffcb212a672dc31a8d070220391d90f0d6775bcdfaf73c585558381838382eca108bf79d4d1ee4b4437c603f",
        ),
        (
            FIRST,
            &[0; 32],
            "3045022100a6c97d383fa27dcfaef3664831d63db7a6b12e415e00fa2e134de1ec519cae8e02205570dcd6a94beed0715444e4bad86495f402dbdb625de0efa20ccf347ea7a43a",
        ),
        (
            FIRST,
            &sequence,
            "3044022052ee02a14c1f64907f41e470c3b00c73b7a010105df0d0d66b99707ab6352b4c022064d99357bd9c31e4e6fb37844ea3c442b4eaf5a5d16a31d955a9c9a3a17dad29",
        ),
        (
            SMALLEST,
            b"test message",
            "3045022100fab80f0a195c3481c924f3a84729dbb4317c1e98b2b856be21712b2006c14f7a02200b9d3f1dbab6b9f4f37f7aee76e259069c9e2438ad0fd95a77d9fe4dcbb6cdbe",
        ),
        (
            LARGEST,
            b"test message",
            "3045022100c32d992fb5a08fcd1e54f8978fece3d3d787ab12457996f35819acc024de4f5702204ff52c357699851f6d362850d57cd215733bb6420aad0eda73e519a9062d3eae",
        ),
        (
            FIXED,
            b"test message",
            "3045022100e3034b1ce07b08ed8558866e95591d1e60c6ef7edd092583ef3903cc09626e1702204e4be959ed8d5905bc3903cd1958307d9300fa36d754c932ed756b580b8cab56",
        ),
        (
            FIXED,
            &pattern,
            "3045022100f342cbad7fbccf56094dc27bbef448cdff8cc4784d8597cbfbc064e72c14343102207b0a09c74fa8c7298279a7bf8ca98b45f1e8bf8201b468f5548156c5e678d5dd",
        ),
        (
            SMALLEST,
            b"",
            "3044022077c8d336572f6f466055b5f70f433851f8f535f6c4fc71133a6cfd71079d03b702200ed9f5eb8aa5b266abac35d416c3207e7a538bf5f37649727d7a9823b1069577",
        ),
        (
            LARGEST,
            b"",
            "3045022100ea045bf0962ecc4d5aa84c8e716c87c9d5f49fba8e1ff0300ab2631de3d83b43022051270ec8105346fddf35da5958d99ff55a0c0f720d6ae7f3e3eadd40a9ccfe0e",
        ),
    ] {
        let key = SecretKey::from_slice(&hex::decode(key).expect("hex")).expect("a key");
        let signed = signature(&Secp256k1::new(), &key, sha256::Hash::hash(message));
        assert_eq!(hex::encode(signed), expected);
    }
}

/// As the Go SDK's validator is tested: change at `m/1/77` in one transaction, what a claim pays at `m/1/12` in another.
#[test]
fn destinations_are_the_outputs_that_the_go_sdk_looks_for() {
    let seed = "370eb72fc3dd38c74f933b477378d51c3b5e6db126ad64fa3244b16e2b8a1bd37f6454dbdb2d58b98f3f6fa2d1c9232216b67616eb2c61bf8c2abe8f67edf252";
    let keys = keys_of(seed, Network::Bitcoin);
    for (path, output, transaction) in [
        (
            77,
            1,
            "02000000017ab44ffadf03b57ce0eb63074c541b3aea0b57497764a6790611332c441b989d0100000000ffffffff02a086010000000000160014aff40d81f6ffd5a98e358af465b1e1bf3fe9c012a086010000000000160014dd71b57f94e6876380850d0fbbaedb52d698b9e000000000",
        ),
        (
            12,
            0,
            "02000000017ab44ffadf03b57ce0eb63074c541b3aea0b57497764a6790611332c441b989d0100000000ffffffff02a0860100000000001600147a0770afcc2afeba0cc9f01c52acc77b5b82f387a086010000000000160014aff40d81f6ffd5a98e358af465b1e1bf3fe9c01200000000",
        ),
    ] {
        let tx = transactions::read(&hex::decode(transaction).expect("hex")).expect("a transaction");
        let pays = |output: &TxOut| output.script_pubkey == p2wpkh(&keys.public(KeyPath::Closing(path)));
        assert_eq!(tx.output.iter().position(pays), Some(output), "m/1/{path}");
    }
    assert!(transactions::read(&[0xab, 0xcd]).is_err());
    for wrong in ["m/", "m//1/2", "m/84'/abc/0"] {
        assert_eq!(KeyPath::parse(wrong, Network::Bitcoin), Err(PathError::NotCanonical), "{wrong}");
    }
    assert_eq!(KeyPath::parse("m/84'/0'/0'/0/1", Network::Bitcoin), Ok(KeyPath::Wallet(0, 1)));
}

/// As the Go SDK reads it from an offered HTLC of a channel with anchors.
#[test]
fn a_payment_hash_is_read_from_its_htlc_s_script() {
    let script = "76a9148610bc927c248b7b1542e02fca750934375dcb0f8763ac672103cdf1a3db51f4de23eb1a2a254605957525d8aca3787163afb1db55ded526a4dc7c820120876475527c2103b72a4c31af6cf9601bb25355522e8fa4f6904d28ff6f6e4e552998349acd92ef52ae67a9140b6ae907cf1ed5e44a49ebadf31c623faa057b5888ac6851b27568";
    let script = ScriptBuf::from_hex(script).expect("hex");
    let Some(ChannelScript::Htlc(htlc)) = ChannelScript::parse(&script) else { panic!("an HTLC") };
    assert_eq!(hex::encode(htlc.payment_hash160), "0b6ae907cf1ed5e44a49ebadf31c623faa057b58");
    assert_eq!((htlc.received_until, htlc.anchors), (None, true));
}

/// As the uniffi library's own test has it.
#[test]
fn a_funding_script_is_the_same_whichever_key_comes_first() {
    let keys = [
        "0247997a5c32ccf934257a675c306bf6ec37019358240156628af62baad7066a83",
        "03b66b574670a7b6bea89c0548903f70a6f059fd9abe737dc4c5aafe14a127408f",
    ];
    let [first, second] = keys.map(|key| key.parse::<PublicKey>().expect("a key"));
    for script in [make_funding_redeemscript(&first, &second), make_funding_redeemscript(&second, &first)] {
        assert_eq!(ChannelScript::parse(&script), Some(ChannelScript::Funding([first, second])));
        let address = Address::p2wsh(&script, Network::Regtest);
        assert_eq!(address.to_string(), "bcrt1qwgpja522vatddf0vfggrej8pcjrzvzcpkl5yvxzzq4djwr0gj9asrk86y9");
    }
}

/// The words of Lightspark's test entropy, and the node that the official signer makes of them.
#[test]
fn the_words_of_a_seed_make_the_node_of_the_official_signer() {
    let words = "limit climb clever you avoid follow wheat page rely water repeat tumble custom foot science urge gather \
                 estate effort frozen purpose lend promote anchor";
    let imported = import(NodeKind::Lightspark, Format::Bip39, words.as_bytes(), "").expect("words");
    let spec = NodeSpec { seed: imported.seed, chain_code: imported.chain_code, ..spec() };
    assert_eq!(node_id(&spec).to_string(), "025e9dd59a7f6d9ee76e9684a1219d07179cfd870c567b3561984b6ed96c0409f8");
}
