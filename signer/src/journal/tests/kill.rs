//! SIGKILL under load: every commit that was acknowledged is there afterwards, and the chain holds.
//!
//! The test runs itself as a child process that commits and prints what was acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::store::LoggedStore;
use super::*;

const DIRECTORY: &str = "CLAVIGER_TEST_KILL_DIRECTORY";
const NODES: u64 = 4;
const KILLS: u64 = 20;

#[test]
fn sigkill_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = [0; NODES as usize];
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::tests::kill::child_under_load", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Each line is "ack NODE NUMBER". Killed after a different number of lines each time.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while let Some(Ok(line)) = lines.next() {
            seen += note(&line, &mut acknowledged);
            if seen > 5 + kill * 17 % 60 {
                child.kill().unwrap();
                break;
            }
        }
        lines.for_each(|line| drop(line.map(|line| note(&line, &mut acknowledged))));
        child.wait().unwrap();
        assert!(seen > 5, "the child works");
        let journal = open_file(directory.path());
        for node in 0..NODES {
            let found = counter(&journal, node);
            assert!(found >= acknowledged[node as usize], "kill {kill}: node {node} has {found}, {acknowledged:?}");
            acknowledged[node as usize] = found;
        }
        assert_eq!(verified(&journal).decisions, acknowledged.iter().sum::<u64>());
    }
}

/// Records an acknowledgement; returns 1 if the line is one.
fn note(line: &str, acknowledged: &mut [u64]) -> u64 {
    let Some((node, number)) = line.strip_prefix("ack ").and_then(|rest| rest.split_once(' ')) else { return 0 };
    let (Ok(node), Ok(number)) = (node.parse::<usize>(), number.parse()) else { return 0 };
    acknowledged[node] = number;
    1
}

fn open_file(directory: &Path) -> Journal {
    open(LoggedStore::open(&directory.join("journal.redb"), 1 << 20).unwrap())
}

fn counter(journal: &Journal, node: u64) -> u64 {
    let value = journal.get(&format!("node-{node}"), "counter").unwrap();
    value.map_or(0, |value| u64::from_be_bytes(*value.first_chunk().unwrap()))
}

#[test]
#[ignore = "run by sigkill_loses_nothing_acknowledged"]
fn child_under_load() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let journal = open_file(Path::new(&directory));
    std::thread::scope(|scope| {
        for node in 0..NODES {
            let journal = &journal;
            scope.spawn(move || {
                for number in counter(journal, node) + 1.. {
                    let value = [number.to_be_bytes().as_slice(), &[0; 2000]].concat();
                    journal.commit(commit(&format!("node-{node}"), number, "counter", &value)).unwrap();
                    let line = format!("ack {node} {number}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}
