//! The demo itself, as anybody would run it: its last line says what happened.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_story_ends_well() {
    let output = Command::new(env!("CARGO_BIN_EXE_claviger-demo")).arg("--json").output().expect("starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let at_least = |key: &str, least: u64| {
        assert!(told[key].as_u64().is_some_and(|count| count >= least), "{key} in {told}");
    };
    at_least("channels_opened", 3);
    at_least("payments_sent", 20);
    at_least("payments_received", 20);
    at_least("payments_forwarded", 1);
    at_least("signer_kills", 1);
    at_least("coop_closed", 1);
    at_least("force_closed", 1);
    at_least("justice_spends", 1);
    assert_eq!(told["balances_reconcile"], true, "{told}");
    assert_eq!(told["journal"]["verified"], true, "{told}");
}
