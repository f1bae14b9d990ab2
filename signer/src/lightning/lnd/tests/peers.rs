//! Whom a channel is with: lnd tells when it announces one, and the policy may count by it.

use claviger_policy::facts::FactId;
use claviger_policy::value::Value;

use super::*;

impl Lnd {
    /// The channel is announced as one with `peer`, whose funding key is `theirs`.
    fn announce(&mut self, our_index: u32, peer: &PublicKey, theirs: &PublicKey) -> Result<(), Reason> {
        let chain = bitcoin::constants::ChainHash::using_genesis_block(Network::Regtest).to_bytes();
        let ours = (self.node.keys.node_id(), self.key(Family::Multisig, our_index));
        let mut ends = [(ours.0.serialize(), ours.1.serialize()), (peer.serialize(), theirs.serialize())];
        ends.sort();
        let [one, two] = ends;
        let msg = [&[0, 0][..], &chain, &[1; 8], &one.0, &two.0, &one.1, &two.1].concat();
        // lnd has it signed by the funding key, and by the node's.
        for (key_family, key_index) in [(Family::Multisig as i32, our_index as i32), (Family::NodeKey as i32, 0)] {
            let key_loc = Some(KeyLocator { key_family, key_index });
            let call = SignMessageReq { msg: msg.clone(), key_loc, double_hash: true, ..SignMessageReq::default() };
            self.ask(Method::SignMessage, &call).map_err(|refusal| refusal.reason)?;
        }
        Ok(())
    }

    fn peer_asked(&self) -> Option<&Value> {
        self.asked.iter().find_map(|record| record.request.get(FactId::Peer))
    }

    /// The counterparty's next commitment, which pays us `sat`.
    fn update(&mut self, our_index: u32, number: u64, sat: u64) -> Result<(), Reason> {
        let psbt = self.commitment(our_index, number, Some(sat));
        self.class(&psbt).map(drop)
    }
}

#[test]
fn an_announcement_tells_a_channels_peer_once_and_one_with_other_keys_is_not_signed() {
    let (peer, other, theirs) = (peer_key(21), peer_key(22), peer_key(3));
    let mut lnd = policy::under("", "");
    lnd.open(0, 0);
    lnd.update(0, 1, 600_000).expect("honest");
    assert_eq!(lnd.peer_asked(), Some(&Value::Text("unknown".to_owned())));
    assert_eq!(lnd.announce(0, &peer, &peer_key(4)), Err(Reason::GossipForeign), "another funding key");
    assert_eq!(lnd.shown(0).peer, None);
    assert_eq!(lnd.announce(0, &peer, &theirs), Ok(()));
    lnd = lnd.restarted();
    // The attack: it was another one's all the time, whose budget is not spent yet.
    assert_eq!(lnd.announce(0, &other, &theirs), Err(Reason::GossipForeign));
    assert_eq!(lnd.announce(0, &peer, &theirs), Ok(()), "the same again");
    assert_eq!(lnd.shown(0).peer, Some(peer));
    let told = Value::Text(peer.to_string());
    lnd.update(0, 2, 600_000).expect("honest");
    assert_eq!(lnd.peer_asked(), Some(&told));
    let state = lnd.commitment(0, 2, Some(600_000));
    let htlc = states::second_level(&lnd, &state, 1, 1, 20_000);
    assert!(lnd.class(&htlc).is_ok());
    assert_eq!(lnd.peer_asked(), Some(&told));
    let close = lnd.funding_spend(0, 0xffff_ffff, 0, vec![out(399_000, peer_script()), out(600_000, lnd.address(1))]);
    assert!(lnd.class(&close).is_ok());
    assert_eq!(lnd.peer_asked(), Some(&told));
    // A channel that nobody has seen funded yet is announced all the same; that tells nothing.
    assert_eq!(lnd.announce(9, &other, &theirs), Ok(()));
}

#[test]
fn a_budget_of_a_peer_counts_its_channels_together_and_those_that_were_not_announced_are_one_more() {
    let budget = "[[budget]]\nname = \"outflow\"\nactions = [\"UpdateChannel\"]\nfact = \"decrease_msat\"\n\
                  scope = [\"peer\"]\nwindow = \"1h\"\nlimit = 50_000_000\n";
    let mut lnd = policy::under("", budget);
    (0..5).for_each(|index| lnd.open(index, 0));
    for (index, peer) in [(0, 21), (1, 21), (2, 22)] {
        assert_eq!(lnd.announce(index, &peer_key(peer), &peer_key(3)), Ok(()));
    }
    let falls = |lnd: &mut Lnd, index| lnd.update(index, 1, 570_000);
    // Two channels with one peer: the second is too much. With another peer it is not, and is refused among those unknown.
    assert_eq!(falls(&mut lnd, 0), Ok(()));
    lnd = lnd.restarted();
    assert_eq!(falls(&mut lnd, 1), Err(Reason::PolicyBudgetExceeded));
    assert_eq!(falls(&mut lnd, 2), Ok(()));
    assert_eq!(falls(&mut lnd, 3), Ok(()));
    assert_eq!(falls(&mut lnd, 4), Err(Reason::PolicyBudgetExceeded));
}
