//! Neither log nor command shows a secret of an account (P8).

use claviger_tests::canary::{Canary, scan_files, scan_text};
use serde_json::json;

use crate::account::{Account, SECRET, SEED, event, exchange, l1_job, withdrawal};

#[test]
fn no_log_at_trace_level_and_no_file_shows_the_seed_the_webhooks_secret_or_what_was_released() {
    let mut account = Account::new();
    let client = account.client();
    let index = (1u64 << 48) - 1;
    let at = |index: u64| json!({ "derivation_path": "m/3/5", "per_commitment_point_idx": index });
    let point = |id: &str, index| event(id, "GET_PER_COMMITMENT_POINT", at(index));
    let ask = |body: &str| client.webhook(body).unwrap();
    assert_eq!(ask(&point("1", index)).0, 200);
    assert_eq!(ask(&point("2", index - 1)).0, 200);
    assert_eq!(ask(&event("3", "RELEASE_PER_COMMITMENT_SECRET", at(index - 1))).0, 403, "out of order");
    let (status, released) = ask(&event("4", "RELEASE_PER_COMMITMENT_SECRET", at(index)));
    assert_eq!(status, 200);
    let hash = ask(&event("5", "REQUEST_INVOICE_PAYMENT_HASH", json!({ "invoice_id": "Invoice:1" }))).1;
    let hash: serde_json::Value = serde_json::from_str(&hash).unwrap();
    let nonce = json!({ "invoice_id": "Invoice:1", "preimage_nonce": hash["preimage_nonce"] });
    let (status, preimage) = ask(&event("6", "RELEASE_PAYMENT_PREIMAGE", nonce));
    assert_eq!(status, 200);
    let jobs = |job| json!({ "signing_jobs": [job] });
    assert_eq!(ask(&event("7", "DERIVE_KEY_AND_SIGN", jobs(l1_job(exchange(), 20_000)))).0, 200);
    assert!(ask(&event("8", "DERIVE_KEY_AND_SIGN", jobs(l1_job(exchange(), 60_000)))).1.contains("payload_ids"));
    client.sign_operation(&withdrawal("w", 20_000)).unwrap();
    client.sign_operation(&withdrawal("w", 20_001)).unwrap_err();
    for (body, signature) in [(r#"{"event_type": "#, "00"), (SECRET, SECRET), ("{}", &hex::encode(SEED))] {
        assert_eq!(client.post(body, signature).unwrap().0, 400);
    }

    let field = |body: &str, name: &str| {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        hex::decode(body[name].as_str().unwrap()).unwrap()
    };
    let canaries = [
        Canary::new("seed", &SEED),
        Canary::new("webhook secret", SECRET.as_bytes()),
        Canary::new("per-commitment secret", &field(&released, "per_commitment_secret")),
        Canary::new("preimage", &field(&preimage, "payment_preimage")),
    ];
    for args in [&["status"][..], &["node", "show", "acme"], &["journal", "export"], &["metrics"]] {
        let output = account.signer.output(args, "").unwrap();
        assert!(!output.stdout.is_empty(), "{args:?} says something");
        assert_eq!(scan_text(&args.join(" "), &[output.stdout, output.stderr].concat(), &canaries), []);
    }
    account.signer.stop().unwrap();
    let log = std::fs::read(account.signer.log_path()).unwrap();
    assert!(log.windows(6).any(|word| word == b" TRACE" || word == b"TRACE "), "the log is at trace level");
    assert_eq!(scan_text("log", &log, &canaries), []);
    assert_eq!(scan_files(account.signer.dir(), &canaries).unwrap(), [], "the data directory");
}
