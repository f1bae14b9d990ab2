//! What a budget counted is neither lost nor counted twice, whenever the signer dies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use claviger::lightning::driver::keysend;
use claviger::reasons::Reason;
use claviger_demo::signer::SignerProcess;
use serde_json::Value;

use crate::thief::Scene;

/// Large enough to be set aside until the payment ends.
const SET_ASIDE_MSAT: u64 = 11_000_000;
/// So small that it may leave as dust: spent at once.
const SPENT_MSAT: u64 = 1_000_000;
/// As many of each, one after the other, fill the budget exactly.
const OF_EACH: u64 = 40;
const KILLS: u64 = 4;
const LIMIT_MSAT: u64 = OF_EACH * (SET_ASIDE_MSAT + SPENT_MSAT);

fn generous(config: &mut toml::Table) {
    config["limits"]["max_payment_msat_per_hour"] = 100_000_000_000_i64.into();
}

fn put_in_force(scene: &Scene) {
    let bundle = scene.world.dir().join("budget");
    std::fs::create_dir(&bundle).unwrap();
    let budget = format!(
        "version = 1\n[[budget]]\nname = \"hourly\"\nactions = [\"Keysend\"]\nfact = \"amount_msat\"\nscope = [\"node\"]\n\
         window = \"1h\"\nlimit = {LIMIT_MSAT}\n"
    );
    std::fs::write(bundle.join("policy.toml"), budget).unwrap();
    std::fs::write(bundle.join("all.cedar"), "@id(\"all\") permit (principal, action, resource);").unwrap();
    scene.world.signer.cli(&["policy", "apply", bundle.to_str().unwrap()]).unwrap();
}

fn amount_msat(n: u64) -> u64 {
    if n.is_multiple_of(2) { SET_ASIDE_MSAT } else { SPENT_MSAT }
}

/// Spent and set aside.
fn counted_msat(signer: &SignerProcess) -> (u64, u64) {
    let status = signer.cli(&["policy", "status"]).unwrap();
    let of = |name: &str| status["budgets"][0].get(name).and_then(Value::as_u64).unwrap_or(0);
    (of("spent"), of("reserved"))
}

#[test]
fn hostile_a_signer_that_is_killed_at_any_moment_neither_frees_nor_doubles_what_a_budget_counted() {
    let scene = Scene::with("ldk", generous);
    put_in_force(&scene);
    let Scene { mut world, thief } = scene;
    let (sent, signer) = (AtomicU64::new(0), &mut world.signer);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for kill in 1..=KILLS {
                while sent.load(Ordering::Relaxed) < kill * 2 * OF_EACH / (KILLS + 1) {
                    std::thread::sleep(Duration::from_micros(100));
                }
                // In the middle of one of the next.
                std::thread::sleep(Duration::from_micros(kill * 1_700));
                signer.kill().unwrap();
                signer.start().unwrap();
            }
        });
        for n in 0..2 * OF_EACH {
            sent.store(n, Ordering::Relaxed);
            // What was lost with the signer is asked again.
            thief.send(None, keysend(n, amount_msat(n))).unwrap_or_else(|refused| panic!("payment {n}: {refused:?}"));
        }
    });
    assert_eq!(counted_msat(&world.signer), (OF_EACH * SPENT_MSAT, OF_EACH * SET_ASIDE_MSAT));
    // The next one does not fit, and one that is known is not counted again.
    thief.refused_bytes(Reason::PolicyBudgetExceeded, None, keysend(2 * OF_EACH, 1));
    thief.send(None, keysend(0, amount_msat(0))).expect("a repeat");
    assert_eq!(counted_msat(&world.signer), (OF_EACH * SPENT_MSAT, OF_EACH * SET_ASIDE_MSAT));
}
