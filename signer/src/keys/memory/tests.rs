//! Looks at this process as an intruder with root would: through `/proc/self/mem`.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::harden::tests::in_own_process;

/// The tests of this crate run on the wiping heap, as the daemon does.
#[global_allocator]
static HEAP: Wiping = Wiping;

const MASK: u8 = 0xa5;

/// The bytes of `secret`, masked so that looking for them does not put them into memory.
pub(crate) fn mark(secret: &Secret<32>) -> [u8; 32] {
    scrubbed(|| secret.expose(|bytes| bytes.map(|byte| byte ^ MASK)))
}

fn marked_secret() -> (Secret<32>, [u8; 32]) {
    let secret = Secret::random();
    let masked = mark(&secret);
    (secret, masked)
}

/// How often the bytes `masked` stands for are found in the readable memory of this process.
pub(crate) fn copies_in_memory(masked: &[u8; 32]) -> usize {
    // One scan at a time, for its buffer holds copies of what it reads.
    static SCANNING: Mutex<()> = Mutex::new(());
    let _one = SCANNING.lock().unwrap_or_else(PoisonError::into_inner);
    let memory = File::open("/proc/self/mem").expect("procfs");
    let maps = fs::read_to_string("/proc/self/maps").expect("procfs");
    let mut block = vec![0; 1 << 20];
    let own = block.as_ptr().addr() as u64..block.as_ptr().addr() as u64 + (1 << 20);
    let mut found = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let mut at = u64::from_str_radix(start, 16).expect("hex");
        let end = u64::from_str_radix(end, 16).expect("hex");
        while at < end {
            let want = block.len().min((end - at) as usize);
            // Unreadable: a guard page, or exactly what `memfd_secret` promises.
            let Ok(read) = memory.read_at(&mut block[..want], at) else { break };
            // A plain loop: this runs unoptimised over every byte of the process.
            let mut offset = 0;
            while offset + 32 <= read {
                // The scanner's own buffer would only repeat a finding.
                if block[offset] == masked[0] ^ MASK
                    && !own.contains(&(at + offset as u64))
                    && block[offset..offset + 32].iter().zip(masked).all(|(byte, masked)| byte ^ MASK == *masked)
                {
                    found += 1;
                }
                offset += 1;
            }
            // Blocks overlap by a window, so that nothing hides on a border.
            at += if read == block.len() { (read - 31) as u64 } else { read.max(1) as u64 };
        }
    }
    found
}

#[test]
fn a_secret_is_not_readable_from_outside_and_an_ordinary_copy_is() {
    let (secret, masked) = marked_secret();
    let expected = match protection() {
        Protection::MemfdSecret => 0,
        other => {
            eprintln!("NOTE: no memfd_secret here (protection: {other}); the secret stays readable to root");
            1
        }
    };
    assert_eq!(copies_in_memory(&masked), expected);

    let ordinary = scrubbed(|| Box::new(secret.expose(|bytes| *bytes)));
    assert!(copies_in_memory(&masked) > expected);
    black_box(&ordinary);
    drop(ordinary);
    assert_eq!(copies_in_memory(&masked), expected, "the heap forgot the freed copy");
}

#[test]
fn the_heap_forgets_blocks_that_were_freed_or_moved() {
    let (secret, masked) = marked_secret();
    let before = copies_in_memory(&masked);
    for size in [32, 1000, 100_000] {
        let mut text: Vec<u8> = Vec::with_capacity(size);
        secret.expose(|bytes| text.extend_from_slice(bytes));
        text.reserve_exact(10 * size); // moves
        assert_eq!(copies_in_memory(&masked), before + 1);
        text.truncate(0);
        text.shrink_to_fit();
        assert_eq!(copies_in_memory(&masked), before);
    }
}

#[test]
fn a_scrubbed_stack_holds_no_trace() {
    let (secret, masked) = marked_secret();
    let before = copies_in_memory(&masked);
    let sum = scrubbed(|| {
        let copies = [secret.expose(|bytes| *bytes); 500];
        black_box(&copies).iter().flatten().fold(0u8, |sum, byte| sum ^ byte)
    });
    black_box(sum);
    assert_eq!(copies_in_memory(&masked), before);
}

#[test]
fn what_is_scrubbed_together_leaves_no_trace_at_the_end_nor_after_a_panic() {
    let (secret, masked) = marked_secret();
    let before = copies_in_memory(&masked);
    let leave_traces = || {
        scrubbed(|| {
            let copies = [secret.expose(|bytes| *bytes); 200];
            black_box(&copies).iter().flatten().fold(0u8, |sum, byte| sum ^ byte)
        })
    };
    let (mut meanwhile, mut sum) = (0, 0);
    scrubbed_together(|| {
        sum = leave_traces() ^ leave_traces();
        meanwhile = copies_in_memory(&masked);
    });
    black_box(sum);
    assert_eq!(copies_in_memory(&masked), before, "{meanwhile} before");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        scrubbed_together(|| {
            black_box(leave_traces());
            resume_unwind(Box::new(())); // as a panic, without a hook that copies what it finds
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(copies_in_memory(&masked), before);
    black_box(leave_traces());
    assert_eq!(copies_in_memory(&masked), before, "and what is scrubbed by itself is so at once");
}

#[test]
fn filling_in_place_starts_from_zeros_and_forgets_failures() {
    let secret = Secret::<5>::init(|bytes| {
        assert_eq!(bytes, &[0; 5]);
        bytes[4] = 9;
    });
    assert_eq!(secret.expose(|bytes| *bytes), [0, 0, 0, 0, 9]);
    assert_eq!(Secret::<5>::try_init(|_| Err("no")).map(|_| ()), Err("no"));
}

#[test]
fn printing_a_secret_shows_only_its_size() {
    assert_eq!(format!("{:?}", Secret::<32>::random()), "Secret<32>");
}

/// The heap of the whole process is turned on and off: not beside other tests.
#[test]
fn the_secret_heap_hides_blocks_and_stacks_and_the_ordinary_one_does_not() {
    in_own_process("keys::memory::tests::child_turns_the_secret_heap_on");
}

#[test]
#[ignore = "run in its own process by the test above"]
fn child_turns_the_secret_heap_on() {
    let (secret, masked) = marked_secret();
    let copy = || scrubbed(|| Box::new(secret.expose(|bytes| *bytes)));
    let on_stack = || {
        let copy = black_box(secret.expose(|bytes| *bytes));
        let found = copies_in_memory(&masked);
        black_box(&copy);
        found
    };
    let before = copies_in_memory(&masked);
    let early = copy();
    assert_eq!(copies_in_memory(&masked), before + 1, "an ordinary block");
    assert!(on_secret_stack(on_stack) > before + 1, "an ordinary stack");
    scrub_stack();
    if !enclose_heap() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no secret pages here");
        return eprintln!("NOT CHECKED: no secret pages here");
    }
    assert!(heap_status().on);
    drop(early);
    assert_eq!(copies_in_memory(&masked), before, "a block goes back to the heap it came from");

    let block = copy();
    let mut moved: Vec<u8> = secret.expose(|bytes| bytes.to_vec());
    moved.reserve_exact(3 << 20);
    assert!(vec![0u8; 100_000].iter().all(|byte| *byte == 0));
    assert_eq!(copies_in_memory(&masked), before, "secret blocks, and one that moved");
    assert_eq!(on_secret_stack(on_stack), before, "a secret stack");
    assert_eq!(spawn("secret", || 7).expect("a thread").join().expect("no panic"), 7);
    let panic = spawn("panics", || panic!("on purpose")).map(std::thread::JoinHandle::<()>::join);
    assert!(panic.expect("a thread").is_err(), "a panic comes out as from any thread");

    // Many threads, each of which frees what another one made.
    let (give, take) = std::sync::mpsc::sync_channel::<Vec<u8>>(64);
    let maker = |n: u8| {
        let give = give.clone();
        spawn("maker", move || (0..2_000usize).for_each(|at| give.send(vec![n; at % 5_000]).expect("taken")))
    };
    let makers: Vec<_> = (1..=4).map(|n| maker(n).expect("a thread")).collect();
    drop(give);
    for block in take {
        assert!(block.windows(2).all(|pair| pair[0] == pair[1]));
    }
    makers.into_iter().for_each(|maker| maker.join().expect("no panic"));

    open_heap();
    drop((block, moved));
    assert_eq!(copies_in_memory(&masked), before, "secret blocks go back to theirs when it is off");
    black_box(copy());
}
