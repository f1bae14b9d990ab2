//! Keys, secrets and signatures, against the official signer.

use super::*;

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
