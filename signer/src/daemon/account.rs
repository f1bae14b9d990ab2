//! `claviger doctor` of an account of Lightspark: whether webhooks arrive, and whether Lightspark has the same key, network and time.

use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::Network;
use claviger_proto::v1::CheckInfo;

use super::doctor::{fail, ok, warn};
use super::{Daemon, Unsealed};
use crate::gateway::lightspark::{AtLightspark, Endpoint};
use crate::lightning::status::NodeStatus;
use crate::names::{NodeKind, NodeName};

/// Events that are made this much ahead of the signer's clock are refused.
const FAIL_AHEAD_S: u64 = 120;
const WARN_AHEAD_S: u64 = 30;

impl Daemon {
    /// All of an account; nothing of any other node.
    pub(super) fn check_account(&self, unsealed: &Unsealed, status: &NodeStatus) -> Vec<CheckInfo> {
        let name = &status.name;
        let Some(record) = unsealed.registry.get(name).filter(|record| record.kind == NodeKind::Lightspark) else {
            return Vec::new();
        };
        let Some(courier) = unsealed.courier() else { return Vec::new() };
        let mut checks = Vec::new();
        if let Some(check) = self.check_webhooks(unsealed, name) {
            checks.push(check);
        }
        match self.runtime.block_on(courier.look(name)) {
            Some(Ok(there)) => checks.extend([
                check_key(name, &status.node_id, record.network, &there),
                check_clock(name, there.date_ms, now_ms()),
            ]),
            Some(Err(error)) => {
                let fix = "Look at lightspark.api, at the network, and at the API token.";
                checks.push(fail("lightspark-api", format!("{name}: {error}"), fix));
            }
            None => {}
        }
        let waiting = courier.waiting(name);
        if waiting > 0 {
            let fix = "They are sent again by themselves; the log says what is wrong.";
            checks.push(warn("lightspark-letters", format!("{name}: {waiting} answers wait for Lightspark"), fix));
        }
        checks
    }

    /// Sends the account a webhook that asks for nothing.
    fn check_webhooks(&self, unsealed: &Unsealed, name: &NodeName) -> Option<CheckInfo> {
        const ID: &str = "lightspark-webhook";
        let config = &self.config.lightspark;
        let Some(door) = unsealed.lightspark_address() else {
            let fix = "Set lightspark.listen in claviger.toml and restart.";
            return Some(fail(ID, format!("{name}: there is no door for webhooks"), fix));
        };
        let (public, ca) = (Endpoint::parse(&config.public_url), unsealed.ca.certificate_der().clone());
        let sent = self.runtime.block_on(unsealed.courier()?.probe(name, public.as_ref(), (door, ca)))?;
        let way = if public.is_some() { "lightspark.public_url" } else { "the door itself, not through its proxy" };
        let fix =
            "Look at the proxy in front of lightspark.listen: it passes bodies on byte for byte, with their signature.";
        Some(match sent {
            Ok(204) => ok(ID, format!("{name}: a webhook arrives by {way}")),
            Ok(status) => fail(ID, format!("{name}: a webhook by {way} gets status {status}, not 204"), fix),
            Err(error) => fail(ID, format!("{name}: a webhook by {way} does not arrive: {error}"), fix),
        })
    }
}

/// Whether one of the account's nodes has our key, on our network.
fn check_key(name: &NodeName, node_id: &str, network: Network, there: &AtLightspark) -> CheckInfo {
    const ID: &str = "lightspark-key";
    let ours = match network {
        Network::Bitcoin => "MAINNET",
        Network::Testnet => "TESTNET",
        Network::Signet => "SIGNET",
        _ => "REGTEST",
    };
    match there.nodes.iter().find(|(key, _)| key == node_id) {
        Some((_, theirs)) if theirs == ours => ok(ID, format!("{name}: Lightspark has the node's key, on {ours}")),
        Some((_, theirs)) => {
            let fix = "Keys are the same on all networks: add the account to a signer of the other network.";
            fail(ID, format!("{name}: Lightspark has the node's key on {theirs}, the signer is on {ours}"), fix)
        }
        None => {
            let what = format!("{name}: none of Lightspark's {} nodes has the key {node_id}", there.nodes.len());
            fail(ID, what, "It is another seed, or another account's token. Add the account with its own.")
        }
    }
}

/// How far the clocks are apart.
fn check_clock(name: &NodeName, theirs_ms: Option<u64>, now_ms: u64) -> CheckInfo {
    const ID: &str = "lightspark-clock";
    let Some(theirs_ms) = theirs_ms else {
        return warn(ID, format!("{name}: Lightspark does not tell its time"), "Compare the clocks by hand.");
    };
    let apart_s = theirs_ms.abs_diff(now_ms) / 1_000;
    let fix = "Set this host's clock, and keep it with NTP: events from the future, or too old, are refused.";
    let what = format!("{name}: {apart_s} s apart from Lightspark's");
    match apart_s {
        0..WARN_AHEAD_S => ok(ID, what),
        WARN_AHEAD_S..FAIL_AHEAD_S => warn(ID, what, fix),
        _ => fail(ID, what, fix),
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_seed_another_network_and_another_time_are_told_apart() {
        let name = NodeName::new("acme").expect("a name");
        let there = AtLightspark { nodes: vec![("02ab".to_owned(), "REGTEST".to_owned())], date_ms: None };
        let key = |id: &str, network| check_key(&name, id, network, &there);
        assert_eq!(key("02ab", Network::Regtest).state, "ok");
        let network = key("02ab", Network::Bitcoin);
        assert_eq!(network.state, "fail");
        assert!(network.detail.contains("on REGTEST, the signer is on MAINNET"), "{}", network.detail);
        let seed = key("02cd", Network::Regtest);
        assert!(seed.state == "fail" && seed.detail.contains("none of Lightspark's 1 nodes"), "{}", seed.detail);
        let now = 1_000_000_000;
        for (theirs, state) in
            [(now, "ok"), (now - 29_999, "ok"), (now + 31_000, "warn"), (now + 120_000, "fail"), (0, "fail")]
        {
            assert_eq!(check_clock(&name, Some(theirs), now).state, state, "{theirs}");
        }
        assert_eq!(check_clock(&name, None, now).state, "warn");
    }
}
