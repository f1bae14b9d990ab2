//! An account whose operations are signed with an RSA key, over the real daemon.

use claviger_tests::canary::{Canary, scan_files, scan_text};

use crate::account::{Account, withdrawal};

/// A key made for tests, which Lightspark's own SDK encrypted with [`PASSWORD`].
const ENCRYPTED: &str = include_str!("../../../signer/src/lightning/lightspark/tests/osk.json");
const PASSWORD: &str = "1234!@#$";

#[test]
fn an_rsa_key_is_imported_with_its_password_signs_and_neither_log_nor_file_shows_the_password() {
    let mut account = Account::new();
    let path = |name: &str| account.folder.with_file_name(name).display().to_string();
    let (osk, folder) = (path("osk"), path("faye.lightspark"));
    std::fs::write(&osk, ENCRYPTED).unwrap();
    let import = ["--kind", "lightspark", "--import", &osk, "--format", "lightspark-osk"];
    let add_as = |name: &str, more: &[&str], password: &str| {
        account.signer.cli_with_input(&[&["node", "add", name][..], &import, more].concat(), password)
    };
    let add = |more: &[&str], password: &str| add_as("faye", more, password);
    let password_fd = ["--node-password-fd", "0", "--out", &folder];
    let wrong = add(&password_fd, "12345678").unwrap_err().to_string();
    assert!(wrong.contains("node password"), "{wrong}");
    let secret = path("secret");
    let remote = add(&[&password_fd[..], &["--webhook-secret", &secret]].concat(), PASSWORD).unwrap_err().to_string();
    assert!(remote.contains("no remote signing"), "{remote}");
    add(&password_fd, PASSWORD).unwrap();
    let again =
        add_as("gina", &["--node-password-fd", "0", "--out", &path("other")], PASSWORD).unwrap_err().to_string();
    assert!(again.contains("node 'faye' has these keys"), "{again}");
    let told = std::fs::read_to_string(account.folder.with_file_name("faye.lightspark").join("account.txt")).unwrap();
    assert!(told.starts_with("operation signing key   RSA, 2048 bits\n"), "{told}");

    let body = withdrawal("w 7", 20_000);
    let client = account.client().with_folder(account.folder.with_file_name("faye.lightspark"));
    let signature = client.sign_operation(&body).unwrap();
    assert_eq!(signature.len(), 256);
    account.signer.kill().unwrap();
    account.signer.start().unwrap();
    assert_eq!(client.sign_operation(&body).unwrap(), signature, "the same bytes, the same signature");
    let other = client.sign_operation(&withdrawal("w 7", 20_001)).unwrap_err();
    assert!(other.message().starts_with("operation-reused"), "{other:?}");

    let canaries = [Canary::new("node password", PASSWORD.as_bytes())];
    let output = account.signer.output(&["node", "show", "faye"], "").unwrap();
    assert_eq!(scan_text("node show", &[output.stdout, output.stderr].concat(), &canaries), []);
    account.signer.stop().unwrap();
    let log = std::fs::read(account.signer.log_path()).unwrap();
    assert_eq!(scan_text("log", &log, &canaries), []);
    assert_eq!(scan_files(account.signer.dir(), &canaries).unwrap(), [], "the data directory");
}
