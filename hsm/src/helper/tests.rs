//! Helpers that hang, flood, lie and fail, beside one that does its work.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const BINDING: Binding = Binding { version: 2, installation: [5; 16], slot: 3, kind: SlotKind::Helper };
/// Keeps the key in its reply: a wrapping for tests only.
const HONEST: &str = r#"read -r request; case $request in
*'"wrap"'*) echo '{"claviger":1,"wrapped":"'"$(echo "$request" | sed 's/.*"key":"\([0-9a-f]*\)".*/\1/')"'"}' ;;
*'"unwrap"'*) echo '{"claviger":1,"key":"'"$(echo "$request" | sed 's/.*"wrapped":"\([0-9a-f]*\)".*/\1/')"'"}' ;;
*) echo '{"claviger":1,"healthy":true}' ;;
esac"#;

/// A helper that runs `script`, in a directory that goes away with the first value.
fn helper(script: &str) -> (tempfile::TempDir, HelperSlot) {
    let dir = tempfile::tempdir().expect("tempdir");
    let program = dir.path().join("helper");
    fs::write(&program, script).expect("written");
    let command = vec!["/bin/sh".to_owned(), program.display().to_string()];
    (dir, HelperSlot { command, timeout: Duration::from_secs(60) })
}

fn failure(script: &str, timeout: Duration) -> HelperFailure {
    let (_dir, slot) = helper(script);
    match (HelperSlot { timeout, ..slot }).wrap(&BINDING, &[9; 32]) {
        Err(SlotError::Helper(HelperError { program, failure })) if program == Path::new("/bin/sh") => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_honest_helper_wraps_and_unwraps() {
    let (_dir, slot) = helper(HONEST);
    let wrapped = slot.wrap(&BINDING, &[9; 32]).expect("wraps");
    let mut key = [0; 32];
    assert_eq!(HelperSlot::STORED.unwrap(&BINDING, &wrapped, &mut key), Ok(()));
    assert_eq!((key, HelperSlot::STORED.health(&wrapped)), ([9; 32], Ok(())));
}

#[test]
fn a_helper_that_hangs_is_killed_with_what_it_started() {
    let short = Duration::from_millis(300);
    let limit_ms = 300;
    for script in ["sleep 600", "exec >&-; sleep 600", "sleep 600 & exit 0", "trap '' TERM; while :; do sleep 1; done"]
    {
        assert_eq!(failure(script, short), HelperFailure::TimedOut { limit_ms }, "{script}");
    }
    let (dir, slot) = helper(&format!("echo $$ > $(dirname $0)/pid; sleep 600 & {HONEST}"));
    let hanging = HelperSlot { timeout: short, ..slot };
    assert!(hanging.wrap(&BINDING, &[9; 32]).is_err());
    let group = fs::read_to_string(dir.path().join("pid")).expect("pid").trim().to_owned();
    while lives(&group) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process of the group `group` runs, other than as a zombie that nobody has buried yet.
fn lives(group: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("proc").flatten();
    let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    let mut groups = stats.filter_map(|stat| {
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, _parent, group) = (fields.next()?, fields.next()?, fields.next()?);
        (state != "Z").then(|| group.to_owned())
    });
    groups.any(|other| other == group)
}

#[test]
fn a_helper_that_floods_is_killed() {
    let floods =
        failure("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", Duration::from_secs(60));
    assert_eq!(floods, HelperFailure::TooMuch { limit_bytes: 20 * 1024 });
}

#[test]
fn a_helper_that_lies_opens_nothing() {
    let (dir, slot) = helper(HONEST);
    let wrapped = slot.wrap(&BINDING, &[9; 32]).expect("wraps");
    let wrong = "00".repeat(32);
    fs::write(dir.path().join("helper"), format!(r#"echo '{{"claviger":1,"key":"{wrong}"}}'"#)).expect("written");
    let mut key = [0; 32];
    assert_eq!(slot.unwrap(&BINDING, &wrapped, &mut key), Err(SlotError::WrongSecret));
    assert_eq!(key, [0; 32]);
    // Nor does a slot come to be that could never be opened.
    let forgetful = format!(r#"read -r request; echo '{{"claviger":1,"wrapped":"00","key":"{wrong}"}}'"#);
    let (_dir, slot) = helper(&forgetful);
    assert_eq!(slot.wrap(&BINDING, &[9; 32]), Err(SlotError::WrongSecret));
}

#[test]
fn a_reply_outside_the_contract_is_refused_and_a_reason_within_it_is_told() {
    let limit = Duration::from_secs(60);
    for reply in ["", "{}", "hello", r#"{"claviger":2,"wrapped":"00"}"#, r#"{"claviger":1}"#, "[1]"] {
        assert_eq!(failure(&format!("echo '{reply}'"), limit), HelperFailure::BadReply, "{reply}");
    }
    for reply in
        [r#"{"claviger":1,"wrapped":"0"}"#, r#"{"claviger":1,"wrapped":""}"#, r#"{"claviger":1,"error":"odd"}"#]
    {
        assert_eq!(failure(&format!("echo '{reply}'"), limit), HelperFailure::BadReply, "{reply}");
    }
    let denied = failure(r#"echo '{"claviger":1,"error":"denied"}'"#, limit);
    assert_eq!(denied, HelperFailure::Said(Refusal::Denied));
    assert_eq!(failure("exit 3", limit), HelperFailure::Failed { code: Some(3) });
    assert_eq!(failure("kill -9 $$", limit), HelperFailure::Failed { code: None });
}

#[test]
fn a_helper_sees_nothing_of_the_environment() {
    let (dir, slot) = helper(&format!("cat /proc/self/environ > $(dirname $0)/environ; {HONEST}"));
    slot.wrap(&BINDING, &[9; 32]).expect("wraps");
    let environ = fs::read_to_string(dir.path().join("environ")).expect("environ");
    let names: Vec<_> =
        environ.split('\0').filter_map(|line| line.split('=').next()).filter(|n| !n.is_empty()).collect();
    // The shell adds its working directory.
    assert!(names.iter().all(|name| ["PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(name)), "{names:?}");
}

#[test]
fn a_program_that_others_could_replace_is_not_run() {
    let (dir, slot) = helper(&format!("#!/bin/sh\n{HONEST}"));
    let program = dir.path().join("helper");
    let direct = HelperSlot { command: vec![program.display().to_string()], ..slot };
    let wrap = |mode| {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("chmod");
        direct.wrap(&BINDING, &[9; 32]).map(|_| ())
    };
    let refused = |failure| Err(SlotError::Helper(HelperError { program: program.clone(), failure }));
    assert_eq!(wrap(0o720), refused(HelperFailure::OpenToOthers));
    assert_eq!(wrap(0o702), refused(HelperFailure::OpenToOthers));
    assert_eq!(wrap(0o600), refused(HelperFailure::Start(io::ErrorKind::PermissionDenied)));
    assert_eq!(wrap(0o700), Ok(()));
    for command in [vec![], vec!["sh".to_owned()], vec!["/bin/sh".to_owned(); 33]] {
        let program = command.first().map(PathBuf::from).unwrap_or_default();
        let refused = HelperError { program, failure: HelperFailure::BadCommand }.into();
        let slot = HelperSlot { command, ..direct.clone() };
        assert_eq!(slot.wrap(&BINDING, &[9; 32]), Err(refused));
    }
}
