//! Whatever happens, with hints or without, the journal holds exactly what a full rewrite would write.

use std::time::Duration;

use bitcoin::{OutPoint, Transaction};
use fastrand::Rng;

use super::world::{HTLC_SAT, Link, Side, hash, open, pay, settle, spend, stub};

#[test]
fn what_is_written_equals_a_full_rewrite() {
    for seed in 1..=24 {
        run(seed, 40);
    }
}

fn run(seed: u64, steps: usize) {
    let mut dice = Rng::with_seed(seed);
    let (mut a, mut b) = (Side::new(1), Side::new(2));
    a.hints = dice.u64(..4) != 0;
    b.hints = dice.u64(..4) != 0;
    (a.checked, b.checked) = (true, true);
    let mut links = vec![open(&mut a, &mut b, 1)];
    for step in 0..steps as u64 {
        println!("seed {seed} step {step}");
        act(&mut dice, &mut a, &mut b, &mut links, step + 100);
    }
    let before = (a.state(), b.state());
    a.restart();
    b.restart();
    assert_eq!(before, (a.state(), b.state()), "seed {seed}");
}

/// One random message or block; `n` is new in every step.
fn act(dice: &mut Rng, a: &mut Side, b: &mut Side, links: &mut Vec<Link>, n: u64) {
    let link = dice.usize(..links.len());
    match dice.u64(..16) {
        0..=2 if links[link].to_a_sat > 2 * HTLC_SAT => pay(a, b, &mut links[link], n),
        3 | 4 => settle(a, b, &mut links[link]),
        5 => links.push(open(a, b, n)),
        6 => drop(stub(a, n)),
        7 => drop(b.sign_invoice(n % 7, 1_000 * (n % 3 + 1))),
        8 => a.keysend(hash(n), 1_000),
        9 => either(dice, a, b).heartbeat(Duration::from_secs(3_000 * (n % 30))),
        10 => either(dice, a, b).unmine(),
        11 => {
            let side = either(dice, a, b);
            let txs = next_transaction(side, &links[link], dice);
            if dice.u64(..3) == 0 { side.mine_streamed(txs) } else { side.mine(txs) }
        }
        12 => {
            a.node.forget_channel(&links[link].a).unwrap();
            a.flush();
        }
        13 => {
            let payee = format!("payee:{}", b.node.get_id());
            if n.is_multiple_of(2) { a.node.add_allowlist(&[payee]) } else { a.node.remove_allowlist(&[payee]) }
                .unwrap();
            a.flush();
        }
        14 => either(dice, a, b).restart(),
        _ => either(dice, a, b).mine(vec![]),
    }
}

fn either<'a>(dice: &mut Rng, a: &'a mut Side, b: &'a mut Side) -> &'a mut Side {
    if dice.u64(..2) == 0 { a } else { b }
}

/// What the chain could do next to `link`: fund it, spend its inputs elsewhere, close it, sweep the close.
fn next_transaction(side: &Side, link: &Link, dice: &mut Rng) -> Vec<Transaction> {
    let input = link.funding.input[0].previous_output;
    let funding = OutPoint { txid: link.funding.compute_txid(), vout: 0 };
    match (side.spender(&input), side.spender(&funding)) {
        (None, _) if dice.u64(..4) == 0 => vec![spend(input, 1)],
        (None, _) => vec![link.funding.clone()],
        (Some(spender), _) if spender != link.funding => vec![],
        (Some(_), None) if dice.u64(..3) == 0 => vec![spend(funding, 2)],
        (Some(_), None) if dice.u64(..2) == 0 => {
            let close = side.unilateral_close(link);
            let sweep = spend(OutPoint { txid: close.compute_txid(), vout: 0 }, 4);
            vec![close, sweep]
        }
        (Some(_), None) => vec![side.unilateral_close(link)],
        (Some(_), Some(close)) => (0..close.output.len() as u32)
            .map(|vout| OutPoint { txid: close.compute_txid(), vout })
            .filter(|output| side.spender(output).is_none() && dice.u64(..2) == 0)
            .map(|output| spend(output, 3))
            .collect(),
    }
}
