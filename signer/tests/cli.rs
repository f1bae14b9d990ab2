//! The command line word for word: what it prints, where, and with which exit code. After an intended change run with
//! `TRYCMD=overwrite` and read the difference.

#[test]
fn every_word_is_as_written_down() {
    let cases = trycmd::TestCases::new();
    // The help names the operator's home directory.
    cases.env("HOME", "/home/operator");
    for tool in ["chmod", "cp", "mkdir", "rm"] {
        cases.register_bin(tool, std::path::Path::new("/bin").join(tool));
    }
    cases.case("tests/cli/*.trycmd");
}
