//! Every seed, and every input that ever failed, passes; and a short run finds nothing new.

use claviger_fuzz::mutate::mutate;
use claviger_fuzz::{TARGETS, Target, dictionary};
use fastrand::Rng;

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target")
}

fn replay(name: &str, mutants: usize) {
    let (target, words, mut random) = (target(name), dictionary(), Rng::with_seed(7));
    let seeds = target.seeds().expect("the corpus is there");
    assert!(!seeds.is_empty());
    for seed in &seeds {
        (target.fuzz)(seed);
    }
    for _ in 0..mutants {
        let mut input = seeds[random.usize(..seeds.len())].clone();
        let other = &seeds[random.usize(..seeds.len())];
        mutate(&mut random, &mut input, &words, other, target.max_bytes);
        (target.fuzz)(&input);
    }
}

#[test]
fn hostile_frames_are_decoded_or_refused() {
    replay("link_frames", 20_000);
}

#[test]
fn hostile_messages_are_decoded_or_refused() {
    replay("guard_decoder", 20_000);
}

#[test]
fn hostile_scripts_break_no_promise_of_a_channel() {
    replay("channel", 50);
}

#[test]
fn the_dictionary_is_read() {
    assert!(dictionary().len() > 20, "a line that is not hex is lost without a word");
}
