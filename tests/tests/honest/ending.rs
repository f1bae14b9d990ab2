//! The end of a day: every channel is closed, and the chain is asked whose the coins are.

use bitcoin::Amount;
use claviger_demo::world::wait;

use crate::day::Day;
use crate::policy;
use crate::town::is_closing;

/// The lowest there is: every output above dust is worth claiming.
const LAST_FEERATE: u32 = 253;

/// Closes everything, waits for the last satoshi and counts: no denial, nothing lost, each has what is his.
pub(crate) fn settle(day: &mut Day) {
    let town = &mut day.town;
    for node in town.all() {
        node.hold_payments(false);
        node.held().iter().for_each(|hash| node.claim(hash));
    }
    town.set_feerate(LAST_FEERATE);
    town.notice_closed();
    town.ready();
    for street in 0..town.streets.len() {
        let begun = || match town.channel(street, 0) {
            Some(channel) if is_closing(&channel) => true,
            Some(channel) => town.node(town.streets[street].ends[0]).close(&channel).is_ok(),
            None => true,
        };
        wait("the last close to begin", &town.all(), begun).unwrap();
    }
    let nodes = town.all();
    let over = || {
        let done = |node: &&&claviger_demo::node::LdkNode| node.channels().is_empty() && node.claimable().is_empty();
        nodes.iter().filter(done).count() == nodes.len()
    };
    town.world.mine_until("everything to be claimed", &nodes, over).unwrap();
    town.mine(6);
    let home = || town.world.chain.mempool().is_empty() && town.books().astray.is_empty();
    town.world.mine_until("every coin to come home", &nodes, home).unwrap_or_else(|error| {
        let astray = town.books().astray;
        let made = astray.keys().map(|outpoint| town.world.chain.transaction(&outpoint.txid));
        panic!("{error}\nastray: {astray:#?}\nmade by {:#?}", made.collect::<Vec<_>>());
    });

    let open = day.later.iter().filter(|flight| flight.outcome(town).is_none()).count();
    assert_eq!(open, 0, "payments that never ended");
    let books = town.books();
    books.check(town.world.deposited()).unwrap();
    assert_eq!(books.in_channels, Amount::ZERO);
    let all = books.held.iter().copied().sum::<Amount>() + books.anchors + books.fees;
    assert_eq!(all, town.world.deposited(), "the balances of all nodes, and what was paid to miners");
    let owed = |node: &&claviger_demo::node::LdkNode| {
        let history = node.history();
        claviger_demo::world::DEPOSIT.to_sat() as i64 * 1_000 + history.net_msat() + history.forwarding_fees_msat as i64
    };
    let owed_msat: Vec<i64> = nodes.iter().map(owed).collect();
    books.check_shares(&owed_msat).unwrap();

    let refused = town.refused();
    println!("{}", day.ledger.summary());
    println!(
        "{}: {} to miners, {} in anchors; {} decisions, {} denials, passing: {:?}",
        town.plan.name,
        books.fees,
        books.anchors,
        refused.decisions,
        refused.denied.len(),
        refused.passing
    );
    assert!(refused.denied.is_empty(), "{:#?}", refused.denied);
    let verified = town.world.signer.cli(&["journal", "verify"]).unwrap();
    assert_eq!(verified["verified"], true, "{verified}");
    policy::check_history(town.plan.name, &town.world.signer);
}
