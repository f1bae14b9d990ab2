//! What a hostile node makes of honest messages.

use claviger::lightning::driver::{DriverHtlc, Holdings};
use vls_protocol::model::Htlc;
use vls_protocol::msgs::{self, DeBolt, SerBolt};

use super::choices::Choices;
use super::desk::Asked;
use crate::dictionary;

/// Changes a message, or the channel that it names. `others` are messages to take pieces from.
pub(super) fn spoil<'a>(
    choices: &mut Choices<'_>,
    (channel, message): &mut Asked,
    others: impl Fn(usize) -> Option<&'a Asked>,
) {
    let at = 2 + choices.below(message.len().max(3) - 2);
    match choices.below(12) {
        0 => flip(message, at, 1 << choices.below(8)),
        1 => flip(message, at, choices.byte()),
        2 | 3 => add(message, at, 8, choices),
        4 => add(message, at, 4, choices),
        5 => message.truncate(at),
        6 => message.extend((0..choices.below(9)).map(|_| choices.byte())),
        7 => {
            let word = WORDS.with(|words| choices.of(words).cloned());
            overwrite(message, at, &word.unwrap_or_default());
        }
        8 => {
            let Some((_, other)) = others(choices.below(256)) else { return };
            let piece = &other[other.len().min(at)..];
            overwrite(message, at, &piece[..piece.len().min([8, 33, 64][choices.below(3)])]);
        }
        9 => *channel = others(choices.below(256)).and_then(|(channel, _)| *channel),
        _ => retell(message, choices),
    }
}

thread_local! {
    static WORDS: Vec<Vec<u8>> = dictionary();
}

/// A commitment that is not the next one: `holdings` as somebody would rather have them.
pub(super) fn greedy(choices: &mut Choices<'_>, holdings: &Holdings) -> Holdings {
    let mut greedy = holdings.clone();
    let sat = [1, 1_000, 150_000, 1_000_000, 4_000_000][choices.below(5)];
    for _ in 0..=choices.below(2) {
        let which = choices.below(greedy.htlcs.len());
        match choices.below(8) {
            0 | 1 => greedy.to_us_sat = greedy.to_us_sat.saturating_sub(sat),
            2 => greedy.to_us_sat += sat,
            3 if which < greedy.htlcs.len() => drop(greedy.htlcs.remove(which)),
            4 if which < greedy.htlcs.len() => greedy.htlcs[which].amount_sat += sat,
            5 if which < greedy.htlcs.len() => greedy.htlcs[which].is_ours ^= true,
            6 if which < greedy.htlcs.len() => greedy.htlcs[which].cltv_expiry ^= u32::from(choices.byte()),
            _ => {
                let known = greedy.htlcs.get(which).map(|htlc| htlc.payment_hash);
                let payment_hash = known.unwrap_or([choices.byte(); 32]);
                greedy.to_us_sat = greedy.to_us_sat.saturating_sub(sat);
                greedy.htlcs.push(DriverHtlc { is_ours: true, payment_hash, amount_sat: sat, cltv_expiry: 500 });
            }
        }
    }
    greedy
}

/// Tells another commitment, or another number, in the same words.
fn retell(message: &mut Vec<u8>, choices: &mut Choices<'_>) {
    if let Ok(mut m) = msgs::SignRemoteCommitmentTx2::from_vec(message.clone()) {
        m.commitment_number = near(m.commitment_number, choices);
        m.feerate = m.feerate.wrapping_add(choices.below(3) as u32 * 1_000);
        shift(&mut m.to_local_value_sat, &mut m.to_remote_value_sat, choices);
        m.htlcs = htlcs(&m.htlcs, choices).into();
        *message = m.as_vec();
    } else if let Ok(mut m) = msgs::ValidateCommitmentTx2::from_vec(message.clone()) {
        m.commitment_number = near(m.commitment_number, choices);
        shift(&mut m.to_local_value_sat, &mut m.to_remote_value_sat, choices);
        m.htlcs = htlcs(&m.htlcs, choices).into();
        *message = m.as_vec();
    } else if let Ok(mut m) = msgs::SignRemoteCommitmentTx::from_vec(message.clone()) {
        m.commitment_number = near(m.commitment_number, choices);
        if let Some(output) = m.tx.0.output.last_mut() {
            output.value = bitcoin::Amount::from_sat(output.value.to_sat() ^ choices.number());
        }
        m.htlcs = htlcs(&m.htlcs, choices).into();
        *message = m.as_vec();
    } else if let Ok(mut m) = msgs::ValidateCommitmentTx::from_vec(message.clone()) {
        m.commitment_number = near(m.commitment_number, choices);
        let which = choices.below(m.psbt.0.inner.outputs.len());
        if let Some(output) = m.psbt.0.inner.outputs.get_mut(which) {
            output.witness_script = None;
        }
        m.htlcs = htlcs(&m.htlcs, choices).into();
        *message = m.as_vec();
    } else if let Ok(mut m) = msgs::RevokeCommitmentTx::from_vec(message.clone()) {
        m.commitment_number = near(m.commitment_number, choices);
        *message = m.as_vec();
    } else if let Ok(mut m) = msgs::ValidateRevocation::from_vec(message.clone()) {
        m.commitment_number = near(m.commitment_number, choices);
        *message = m.as_vec();
    }
}

/// A number at most two away.
pub(super) fn near(number: u64, choices: &mut Choices<'_>) -> u64 {
    (number + choices.below(5) as u64).saturating_sub(2)
}

fn shift(a: &mut u64, b: &mut u64, choices: &mut Choices<'_>) {
    let sat = if choices.below(2) == 0 { 0 } else { choices.number() };
    (*a, *b) = (a.wrapping_sub(sat), b.wrapping_add(sat));
}

fn htlcs(honest: &[Htlc], choices: &mut Choices<'_>) -> Vec<Htlc> {
    let mut htlcs: Vec<Htlc> = honest.to_vec();
    let which = choices.below(htlcs.len());
    match choices.below(6) {
        0 if which < htlcs.len() => drop(htlcs.remove(which)),
        1 if which < htlcs.len() => htlcs.push(htlcs[which].clone()),
        2 if which < htlcs.len() => htlcs[which].amount = htlcs[which].amount.wrapping_add(choices.number()),
        3 if which < htlcs.len() => htlcs[which].side ^= 1,
        4 if which < htlcs.len() => htlcs[which].payment_hash.0[0] ^= choices.byte(),
        _ => {}
    }
    htlcs
}

fn flip(message: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = message.get_mut(at) {
        *byte ^= bits;
    }
}

/// Adds to the big-endian number of `length` bytes there, or puts another one in its place.
fn add(message: &mut [u8], at: usize, length: usize, choices: &mut Choices<'_>) {
    let (number, replaced) = (choices.number(), choices.below(2) == 0);
    let Some(field) = message.get_mut(at..at + length) else { return };
    let old = field.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let new = if replaced { number } else { old.wrapping_add(number) };
    field.copy_from_slice(&new.to_be_bytes()[8 - length..]);
}

fn overwrite(message: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = (at + piece.len()).min(message.len());
    drop(message.splice(at.min(end)..end, piece.iter().copied()));
}
