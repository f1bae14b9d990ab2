//! What `claviger doctor --lnd FOLDER` holds against the signer: the files that an lnd connects with. lnd itself says no more
//! of most mistakes in them than "context deadline exceeded".

use std::collections::BTreeMap;

use super::lnd::AccountsFile;
use claviger_proto::v1::{BundleFile, CheckInfo};

use super::doctor::{fail, ok, warn};
use super::unsealed::{Unsealed, host_of, load_spec};
use crate::gateway::link::Roster;
use crate::lightning::lnd::keys::accounts;
use crate::names::NodeKind;

/// lnd's own timeout, in seconds: a call that takes longer ends it.
const SHORT_TIMEOUT_S: u64 = 10;

impl Unsealed {
    /// Looks at the files, of which some may be missing.
    pub(super) fn check_pairing(&self, files: &[BundleFile]) -> Vec<CheckInfo> {
        let Some(advertised) = &self.lnd_advertised else {
            let fix = "Set lnd.listen in claviger.toml and restart.";
            return vec![fail("lnd-door", "there is no door for lnd nodes", fix)];
        };
        let file = |name: &str| files.iter().find(|file| file.name == name).map(|file| &file.content[..]);
        let renew = "Copy the folder of `claviger node add` or `claviger node renew` to lnd's host again.";
        let text = |name: &str| file(name).and_then(|content| std::str::from_utf8(content).ok());
        let mut checks = vec![match text("tls.cert") {
            None => fail("lnd-tls", "there is no tls.cert", renew),
            Some(pem) if pem.trim() != self.ca.certificate_pem().trim() => {
                fail("lnd-tls", "tls.cert is not this signer's: lnd refuses to talk to it", renew)
            }
            Some(_) => ok("lnd-tls", "tls.cert is this signer's"),
        }];
        checks.extend(self.check_conf(text("lnd.conf"), advertised));
        let node = match file("lnd.macaroon").map(|bytes| self.mint.verify(hex::encode(bytes).as_bytes())) {
            None => Err("there is no lnd.macaroon".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(fingerprint)) => self.registry.lookup(&fingerprint).map_err(|denied| denied.to_string()),
        };
        match node {
            Ok((node, NodeKind::Lnd)) => {
                checks.push(ok("lnd-macaroon", format!("it is {node}'s")));
                checks.push(self.check_accounts(node.as_str(), text("accounts.json")));
            }
            Ok((node, kind)) => {
                let detail = format!("it is that of {node}, a node of kind {kind}");
                checks.push(fail("lnd-macaroon", detail, renew));
            }
            Err(why) => checks.push(fail("lnd-macaroon", why, "Write new files: `claviger node renew NODE`.")),
        }
        checks
    }

    /// Where lnd looks for the signer, and how long it waits.
    fn check_conf(&self, conf: Option<&str>, advertised: &str) -> Vec<CheckInfo> {
        let Some(conf) = conf else {
            let fix = "Give a folder with lnd's own lnd.conf to have its rpchost and timeout looked at.";
            return vec![warn("lnd-host", "there is no lnd.conf", fix)];
        };
        let value = |key: &str| {
            let mut lines = conf.lines().filter_map(|line| line.trim().split_once('='));
            lines.rfind(|(found, _)| found.trim() == key).map(|(_, value)| value.trim())
        };
        let known = self.identity.names().join(", ");
        let fix =
            format!("Set remotesigner.rpchost={advertised}, or lnd.advertise in claviger.toml to what lnd dials.");
        let host = match value("remotesigner.rpchost") {
            None => fail("lnd-host", "lnd.conf has no remotesigner.rpchost", &fix),
            Some(rpchost) => match host_of(rpchost) {
                Some(host) if self.identity.names().iter().any(|name| name.eq_ignore_ascii_case(&host)) => {
                    ok("lnd-host", format!("lnd dials {rpchost}, and the certificate names it"))
                }
                _ => {
                    let detail = format!("lnd dials {rpchost}, and the signer's certificate names {known} only");
                    fail("lnd-host", detail, &fix)
                }
            },
        };
        let seconds = value("remotesigner.timeout").and_then(|text| text.strip_suffix('s')?.parse::<u64>().ok());
        let fix = "Set remotesigner.timeout=30s: lnd ends when a call takes longer.";
        let timeout = match seconds {
            Some(seconds) if seconds >= SHORT_TIMEOUT_S => ok("lnd-timeout", format!("lnd waits for {seconds} s")),
            _ => warn("lnd-timeout", "lnd waits for a few seconds only", fix),
        };
        vec![host, timeout]
    }

    /// Whether lnd has, or will have, the public halves of this node's keys.
    fn check_accounts(&self, node: &str, file: Option<&str>) -> CheckInfo {
        let renew = "Make lnd's wallet again with the accounts.json that `claviger node renew` writes.";
        let spec = self.find(node).and_then(|record| load_spec(&self.journal, &self.vault, &record));
        let expected = match &spec {
            Ok(spec) => spec.chain_code.as_ref().map(|code| accounts(&spec.seed, code, spec.network)),
            Err(error) => return fail("lnd-accounts", error.what.clone(), &error.hint),
        };
        let expected = expected.unwrap_or_default();
        let Some(file) = file else { return fail("lnd-accounts", "there is no accounts.json", renew) };
        let Ok(AccountsFile { accounts }) = serde_json::from_str(file) else {
            return fail("lnd-accounts", "accounts.json cannot be read", renew);
        };
        let found: BTreeMap<_, _> =
            accounts.iter().map(|line| (line.derivation_path.as_str(), line.extended_public_key.as_str())).collect();
        let missing: Vec<_> = expected.iter().filter(|account| !found.contains_key(account.path.as_str())).collect();
        let differs = |path: &str, xpub: &str| found.get(path).is_some_and(|found| *found != xpub);
        let other = expected.iter().find(|account| differs(&account.path, &account.xpub.to_string()));
        match (other, missing.first()) {
            (Some(account), _) => {
                let detail = format!("{} is not {node}'s: accounts.json comes from another seed", account.path);
                fail("lnd-accounts", detail, renew)
            }
            (None, Some(first)) => {
                let detail =
                    format!("{} of {} accounts are missing, {} first", missing.len(), expected.len(), first.path);
                fail("lnd-accounts", detail, renew)
            }
            (None, None) => ok("lnd-accounts", format!("all {} accounts are {node}'s", expected.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // what fails may panic

    use claviger_proto::v1::{DoctorRequest, NodeAddRequest, NodeRevokeRequest};

    use super::super::tests::World;
    use super::*;
    use crate::admin::api::AdminApi;

    fn with_door() -> World {
        World::with(|config| config.lnd.listen = Some(([127, 0, 0, 1], 0).into()))
    }

    fn add(world: &World, name: &str) -> Vec<BundleFile> {
        let (name, kind) = (name.to_owned(), "lnd".to_owned());
        let request = NodeAddRequest { name, kind, ..NodeAddRequest::default() };
        world.daemon.node_add(request).unwrap().files
    }

    /// The checks of lnd's files that are not well, each with its state and detail.
    fn complaints(world: &World, files: &[BundleFile]) -> Vec<(String, String, String)> {
        let request = DoctorRequest { node: String::new(), repair: false, lnd: files.to_vec() };
        let checks = world.daemon.doctor(&request).unwrap().checks;
        let lnd = checks.into_iter().filter(|check| check.id.starts_with("lnd-") && check.state != "ok");
        lnd.inspect(|check| assert!(!check.fix.is_empty(), "{check:?} says what to do"))
            .map(|check| (check.id, check.state, check.detail))
            .collect()
    }

    fn changed(files: &[BundleFile], name: &str, change: impl Fn(String) -> String) -> Vec<BundleFile> {
        let mut files = files.to_vec();
        let file = files.iter_mut().find(|file| file.name == name).unwrap();
        file.content = change(String::from_utf8(file.content.clone()).unwrap()).into_bytes();
        files
    }

    #[test]
    fn the_files_of_a_new_node_are_well_and_each_classic_mistake_is_named() {
        let world = with_door();
        let (alice, bob) = (add(&world, "alice"), add(&world, "bob"));
        assert_eq!(complaints(&world, &alice), []);
        let one = |files: &[BundleFile], id: &str, state: &str, says: &str| {
            let found = complaints(&world, files);
            let [(found_id, found_state, detail)] = &found[..] else { panic!("{found:?}") };
            assert_eq!((found_id.as_str(), found_state.as_str()), (id, state), "{detail}");
            assert!(detail.contains(says), "{detail}");
        };
        let foreign_host = |conf: String| conf.replace("rpchost=127.0.0.1", "rpchost=signer.example");
        one(&changed(&alice, "lnd.conf", foreign_host), "lnd-host", "fail", "signer.example:0");
        let short = |conf: String| conf.replace("timeout=30s", "timeout=5s");
        one(&changed(&alice, "lnd.conf", short), "lnd-timeout", "warn", "few seconds");
        let fewer = |text: String| text.replace("m/1017'/1'/255'", "m/1017'/1'/256'");
        one(&changed(&alice, "accounts.json", fewer), "lnd-accounts", "fail", "1 of 259 accounts are missing");
        let bobs = bob.iter().find(|file| file.name == "accounts.json").unwrap().content.clone();
        let bobs = |_: String| String::from_utf8(bobs.clone()).unwrap();
        one(&changed(&alice, "accounts.json", bobs), "lnd-accounts", "fail", "another seed");
        let other = |pem: String| pem.replace('A', "B");
        one(&changed(&alice, "tls.cert", other), "lnd-tls", "fail", "not this signer's");
        let without = |name: &str| alice.iter().filter(|file| file.name != name).cloned().collect::<Vec<_>>();
        one(&without("lnd.conf"), "lnd-host", "warn", "no lnd.conf");
        one(&without("lnd.macaroon"), "lnd-macaroon", "fail", "no lnd.macaroon");
    }

    #[test]
    fn a_macaroon_that_was_revoked_or_is_another_signers_is_told_and_so_is_a_missing_door() {
        let world = with_door();
        let alice = add(&world, "alice");
        world.daemon.node_revoke(&NodeRevokeRequest { name: "alice".to_owned(), serial: String::new() }).unwrap();
        let found = complaints(&world, &alice);
        assert!(found[0].2.contains("revoked"), "{found:?}");
        let found = complaints(&with_door(), &alice);
        assert!(found.iter().any(|(id, ..)| id == "lnd-tls"), "{found:?}");
        assert!(found.iter().any(|(_, _, detail)| detail.contains("not from this signer")), "{found:?}");
        let found = complaints(&World::new(), &alice);
        assert_eq!(found[0].0, "lnd-door", "{found:?}");
    }
}
