//! Operations over plain HTTP: the same certificate, the same signature.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::account::{Account, withdrawal};

const PATH: &str = "/v1/operations/sign";

#[test]
fn an_operation_is_signed_over_http_as_over_grpc_and_counts_once() {
    let account = Account::new().with_budget();
    let client = account.client();
    let body = withdrawal("w 7", 20_000);
    let (status, answer) = client.sign_over_http(PATH, &body).unwrap();
    assert_eq!(status, 200, "{answer}");
    let signature = BASE64_STANDARD.encode(client.sign_operation(&body).unwrap());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer, json!({ "v": 1, "signature": signature }));
    assert_eq!(account.spent_msat(), 20_000_000);
    let (status, answer) = client.sign_over_http(PATH, &withdrawal("w 8", 40_000)).unwrap();
    assert_eq!(status, 503, "the budget has room again later");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["reason"], "policy-budget-exceeded");
    assert!(!answer["request"].as_str().unwrap().is_empty(), "claviger explain takes it");
    assert_eq!(client.sign_over_http("/v1/operations", &body).unwrap().0, 404);
    assert_eq!(client.sign_over_http(PATH, "{}").unwrap().0, 400);
}

#[test]
fn hostile_a_revoked_account_gets_nothing_over_http() {
    let account = Account::new();
    let client = account.client();
    let body = withdrawal("w 7", 20_000);
    assert_eq!(client.sign_over_http(PATH, &body).unwrap().0, 200);
    account.signer.cli(&["node", "revoke", "acme"]).unwrap();
    let refused = client.sign_over_http(PATH, &body);
    let is_refused = match &refused {
        Ok((status, answer)) => *status == 403 && answer.contains("certificate-revoked"),
        Err(_) => false,
    };
    assert!(is_refused, "{refused:?}");
}
