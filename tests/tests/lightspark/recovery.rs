//! `claviger lightspark recover` over the real daemon, of what is not the account's. `channels.rs` has a kit that is signed.

use crate::account::Account;
use crate::channels::KITS;

#[test]
fn a_kit_of_another_account_is_refused_channel_by_channel_and_nothing_is_written_over() {
    let account = Account::new();
    let path = |name: &str| account.folder.with_file_name(name).display().to_string();
    let (kit, out) = (path("kit.json"), path("signed.json"));
    std::fs::write(&kit, format!("[{}]", KITS.lines().collect::<Vec<_>>().join(","))).unwrap();
    let recover = || account.signer.output(&["lightspark", "recover", "acme", &kit, "--out", &out], "").unwrap();
    let refused = recover();
    let (told, error) = (String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    assert!(!refused.status.success());
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.lines().all(|line| line.contains("malformed") || line.contains("channel-unknown")), "{told}");
    assert!(error.contains("2 of 2 channels were refused"), "{error}");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "[]");
    let again = recover();
    assert!(String::from_utf8_lossy(&again.stderr).contains("cannot write"), "{again:?}");
}
