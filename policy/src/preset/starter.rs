//! A bundle to start from: the preset with all its numbers in sight, and tests that say what they do.

use std::fmt::Write;

use super::Preset;

/// The number that the tests try out, where a preset has it.
const LARGEST_PAYMENT: &str = "max_payment_msat";

impl Preset {
    /// The files of a complete bundle, by name.
    pub fn starter(&'static self) -> Vec<(String, String)> {
        vec![("policy.toml".to_owned(), self.policy()), (format!("{}.test.toml", self.name), self.tests())]
    }

    fn policy(&'static self) -> String {
        let mut text = format!("# {}\n#\n", self.doc);
        for doc in self.docs() {
            let _ = writeln!(text, "# - {doc}");
        }
        let _ = write!(
            text,
            "\n# Each policy that is applied has a higher version than the one before.\nversion = 1\npreset = \"{}\"\n\n\
             # The preset's numbers, with its defaults. 1_000 msat are a satoshi.\n[numbers]\n",
            self.name
        );
        for (number, default) in self.numbers() {
            let _ = writeln!(text, "# {}\n{} = {}", number.doc, number.name, grouped(default));
        }
        text
    }

    fn tests(&'static self) -> String {
        let mut text = "# What this policy is expected to decide. Run it with: claviger policy test DIR\n\
             \n[[test]]\nname = \"a channel can always be closed\"\naction = \"ForceClose\"\n\
             facts = { channel = \"02ab:1\" }\nexpect = \"permit\"\n"
            .to_owned();
        let largest = self.numbers().find(|(number, _)| number.name == LARGEST_PAYMENT);
        let cases = largest.into_iter().flat_map(|(_, msat)| {
            [("the largest payment passes", msat, "permit"), ("a millisatoshi more does not", msat + 1, "deny")]
        });
        for (name, msat, expect) in cases {
            let _ = write!(
                text,
                "\n[[test]]\nname = \"{name}\"\naction = \"PayInvoice\"\n\
                 facts = {{ amount_msat = {}, payee = \"03cd\", payment_hash = \"e3b0\" }}\nexpect = \"{expect}\"\n",
                grouped(msat)
            );
        }
        text
    }
}

/// Digits in groups of three, as TOML takes them.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use bitcoin::Network;

    use super::*;
    use crate::bundle::Files;
    use crate::tooling::{check, test};

    #[test]
    fn every_preset_starts_with_a_bundle_that_passes_its_tests_without_a_warning() {
        for preset in Preset::all() {
            let mut files = Files::default();
            for (name, text) in preset.starter() {
                files.add(&name, text.into_bytes()).expect("a part");
            }
            let (report, bundle) = check(files, Network::Bitcoin);
            assert_eq!((&report.errors[..], &report.findings[..]), (&[][..], &[][..]), "{}", preset.name);
            let bundle = bundle.expect("checked");
            let found = test(&bundle);
            let payments = preset.numbers().any(|(number, _)| number.name == LARGEST_PAYMENT);
            assert!(found.passes() && found.passed == if payments { 3 } else { 1 }, "{}: {found}", preset.name);
            assert_eq!(bundle.numbers().len(), preset.numbers().count(), "all numbers are in sight");
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1_000, 2_100_000].map(grouped), ["0", "999", "1_000", "2_100_000"]);
    }
}
