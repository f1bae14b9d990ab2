//! What holds against a taken over lnd: each rule, why it refuses, which test attacks it and which one does the same honestly.
//!
//! `docs/lnd.md` has this table too; it is made from here. A test of this file looks the names up in the sources, so that none
//! outlives its test: a test is called `module::name`, one with real nodes (`tests/lnd`) as Go calls it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::reasons::Reason::{self, *};

/// One rule.
struct Row {
    /// Its stable name.
    id: &'static str,
    /// What it stops.
    rule: &'static str,
    /// Why it refuses.
    refused: &'static [Reason],
    /// Tests that break it.
    attacks: &'static [&'static str],
    /// Tests in which the same passes honestly; mostly they are the attack's.
    twins: &'static [&'static str],
    /// Tests of real nodes in which it is broken, and lnd goes on.
    live: &'static [&'static str],
}

const THIEF: &str = "TestAThiefWithRealQuestionsIsRefusedAndLndGoesOn";
const HOSTILE: &str = "TestHostileCallsAreRefusedAndLndGoesOn";
const POLICY: &str = "TestPolicyHoldsAndLndGoesOn";

#[rustfmt::skip] // A table.
const ENFORCED: &[Row] = &[
    Row {
        id: "send-destination",
        rule: "Sends go to whom the limits and the policy allow, so much each, so much a day.",
        refused: &[Limit, PolicyForbidden, PolicyBudgetExceeded],
        attacks: &[
            "wallet::the_wallet_pays_others_within_the_limits_and_itself_without",
            "policy::a_withdrawal_is_judged_by_amount_and_destination_and_the_wallet_pays_itself",
            "policy::a_withdrawal_of_several_inputs_is_counted_once_and_a_refused_one_not_at_all",
        ],
        twins: &[],
        live: &[THIEF, POLICY],
    },
    Row {
        id: "send-fee",
        rule: "Fees and feerates of sends, whatever is said of the inputs.",
        refused: &[CoinAmount, CoinUnproven, Limit, PolicyForbidden],
        attacks: &[
            "wallet::hostile_amounts_are_found_out_before_the_last_input_is_signed",
            "hostile::hostile_claims_of_what_belongs_to_others_do_not_pay_a_thief_from_the_wallet",
            "policy::a_withdrawal_is_judged_by_its_feerate",
            "policy::fees_of_anchors_and_of_the_wallet_are_one_bump",
        ],
        twins: &["hostile::what_is_refused_leaves_nothing_behind_that_a_later_question_could_use"],
        live: &[THIEF],
    },
    Row {
        id: "key-purpose",
        rule: "Sighash types, tweaks, key families and paths: those of one class, and none else.",
        refused: &[TransactionUnknown, KeyPurpose],
        attacks: &[
            "channels::hostile_shapes_around_a_funding_key_are_no_class",
            "wallet::a_key_of_the_wallet_signs_for_its_own_coin_only",
            "hostile::hostile_second_levels_of_the_counterparty_are_not_signed_and_bolt_3s_are",
        ],
        twins: &["property::no_request_signs_with_a_known_nonce_a_chosen_digest_or_a_key_outside_its_purpose"],
        live: &[THIEF],
    },
    Row {
        id: "nonce-and-digest",
        rule: "No nonce and no digest of somebody else's; a message is what its grammar says.",
        refused: &[NonceForeign, BlindDigest, GossipUnreadable, KeyPurpose],
        attacks: &[
            "messages::no_musig2_session_begins_whether_it_brings_its_nonce_or_not",
            "messages::hostile_messages_that_are_digests_of_transactions_or_meant_for_other_keys_are_not_signed",
        ],
        twins: &["messages::announcements_are_signed_with_the_keys_that_they_name"],
        live: &[HOSTILE],
    },
    Row {
        id: "secret-purpose",
        rule: "Secrets are shared for the purposes that lnd has, a channel's root with our own funding key.",
        refused: &[SecretPurpose],
        attacks: &["messages::secrets_are_shared_for_their_purposes_and_no_other"],
        twins: &[],
        live: &[HOSTILE],
    },
    Row {
        id: "claim-destination",
        rule: "Sweeps, claims, penalties and anchors pay ourselves at a bounded fee.",
        refused: &[OutputForeign, SweepFee],
        attacks: &[
            "channels::what_a_channel_pays_us_is_swept_to_ourselves_only",
            "states::a_penalty_and_an_anchors_spend_pay_ourselves_and_no_thief",
        ],
        twins: &[],
        live: &[THIEF],
    },
    Row {
        id: "claim-of-ours",
        rule: "A key of a commitment of ours claims only what that commitment pays, once it was signed to close.",
        refused: &[TransactionUnknown],
        attacks: &["channels::a_delayed_output_is_swept_only_if_its_commitment_was_signed_to_close"],
        twins: &["hostile::a_channel_in_which_we_own_next_to_nothing_closes_by_force_and_is_swept"],
        live: &[],
    },
    Row {
        id: "funding",
        rule: "What goes into outputs that are not yet shown to be channels is bounded.",
        refused: &[Limit],
        attacks: &["wallet::outputs_that_may_fund_channels_fill_a_bucket_that_first_commitments_empty"],
        twins: &[],
        live: &[],
    },
    Row {
        id: "first-balance",
        rule: "Gifts and first balances of channels.",
        refused: &[PolicyForbidden],
        attacks: &["policy::an_open_is_judged_when_it_is_funded_and_by_what_its_first_commitment_gives"],
        twins: &[],
        live: &[POLICY],
    },
    Row {
        id: "channel-identity",
        rule: "A channel was opened here, and keeps its amount, its keys and its one funding output.",
        refused: &[ChannelUnknown, FundingMismatch],
        attacks: &["channels::hostile_channels_that_nobody_opened_are_not_signed_for"],
        twins: &[],
        live: &[THIEF],
    },
    Row {
        id: "commitment-fee",
        rule: "What a commitment leaves to miners, HTLCs too small for an output included.",
        refused: &[CommitmentFee],
        attacks: &["hostile::a_commitment_that_burns_the_channel_is_not_signed_and_one_with_a_high_fee_is"],
        twins: &[],
        live: &[THIEF],
    },
    Row {
        id: "commitment-order",
        rule: "A commitment of the counterparty repeats the last number or follows it.",
        refused: &[CommitmentOrder],
        attacks: &["channels::a_commitment_out_of_order_is_refused_and_the_last_one_passes_again_even_changed"],
        twins: &[],
        live: &[THIEF],
    },
    Row {
        id: "balance",
        rule: "How fast a balance falls, by channel, peer and node.",
        refused: &[PolicyBudgetExceeded],
        attacks: &[
            "policy::what_a_channel_falls_by_is_counted_for_the_channel_and_for_the_node",
            "peers::a_budget_of_a_peer_counts_its_channels_together_and_those_that_were_not_announced_are_one_more",
        ],
        twins: &[],
        live: &[THIEF],
    },
    Row {
        id: "peer",
        rule: "A channel is announced with its own keys, and with one peer for good.",
        refused: &[GossipForeign],
        attacks: &[
            "peers::an_announcement_tells_a_channels_peer_once_and_one_with_other_keys_is_not_signed",
            "messages::announcements_are_signed_with_the_keys_that_they_name",
        ],
        twins: &[],
        live: &[],
    },
    Row {
        id: "htlcs",
        rule: "Number, size, direction, expiry and payment hash of HTLCs.",
        refused: &[PolicyForbidden],
        attacks: &[
            "policy::updates_and_force_closes_are_judged_and_what_lnd_tries_at_an_open_is_neither",
            "policy::htlcs_are_judged_by_size_direction_expiry_and_hash_before_and_after_their_commitment",
        ],
        twins: &[],
        live: &[THIEF],
    },
    Row {
        id: "mutual-close",
        rule: "A close by agreement pays us what we own, where we say.",
        refused: &[CloseValue, PolicyForbidden],
        attacks: &[
            "channels::a_mutual_close_pays_us_what_we_own_or_is_refused",
            "policy::a_close_to_an_allowed_address_is_judged_by_it_and_one_to_the_wallet_leaves_nothing",
        ],
        twins: &[],
        live: &[THIEF],
    },
    Row {
        id: "force-close",
        rule: "A commitment of ours is not a very old one, the policy is asked, and after it there is no other state.",
        refused: &[CommitmentRevoked, UpdateAfterClose, PolicyForbidden],
        attacks: &[
            "hostile::an_old_commitment_of_ours_is_not_signed_and_one_a_few_updates_behind_is",
            "channels::after_our_commitment_was_signed_to_close_there_is_no_other_state",
            "policy::updates_and_force_closes_are_judged_and_what_lnd_tries_at_an_open_is_neither",
        ],
        twins: &["hostile::a_frozen_or_closing_channel_in_which_we_own_next_to_nothing_still_closes_by_force"],
        live: &[THIEF],
    },
    Row {
        id: "revocations",
        rule: "States that are not proven to be revoked are counted, and the policy may stop there.",
        refused: &[PolicyForbidden],
        attacks: &[
            "policy::a_channel_with_too_many_unproven_states_takes_no_update_and_one_with_fewer_does",
            "states::hostile_penalties_of_other_scripts_secrets_or_transactions_prove_nothing",
            "states::hostile_htlcs_do_not_hide_a_balance",
        ],
        twins: &["states::a_state_is_proven_revoked_by_its_penalty_and_counted_until_then"],
        live: &[],
    },
    Row {
        id: "freeze",
        rule: "A frozen channel or node takes no new state; closes and claims go on.",
        refused: &[Frozen],
        attacks: &[
            "view::a_frozen_channel_takes_no_new_state_nor_htlc_and_the_others_and_its_closes_go_on",
            "view::an_exempted_channel_of_a_frozen_node_goes_on_and_the_others_do_not",
        ],
        twins: &["hostile::a_frozen_or_closing_channel_in_which_we_own_next_to_nothing_still_closes_by_force"],
        live: &[],
    },
];

/// Reasons of lnd's calls that stop no attack on a channel or a coin: what cannot be read, or be taken in.
const BESIDE: &[Reason] = &[Malformed, MessageUnknown, NodeBusy, Fault, InvoiceUnreadable, SignedMessageTooLong];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// The sources of a folder, with this ending.
fn sources(folder: &str, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.to_string_lossy().ends_with(ending)).map(read).collect()
}

/// What stands in a top-level function that begins with `head`.
fn body<'a>(source: &'a str, head: &str) -> Option<&'a str> {
    source.split_once(head)?.1.split_once("\n}\n").map(|(body, _)| body)
}

/// What stands in the test `module::name`.
fn test_body(test: &str) -> String {
    let (module, name) = test.split_once("::").expect("module::name");
    let source = read(format!("signer/src/lightning/lnd/tests/{module}.rs"));
    let body = body(&source, &format!("#[test]\nfn {name}() {{"));
    body.unwrap_or_else(|| panic!("there is no test {test}")).to_owned()
}

#[test]
fn every_rule_names_tests_that_exist_and_are_refused_for_its_reasons() {
    let real = sources("tests/lnd", "_test.go");
    let mut ids = BTreeSet::new();
    for Row { id, refused, attacks, twins, live, .. } in ENFORCED {
        assert!(ids.insert(id) && !attacks.is_empty(), "{id}");
        twins.iter().for_each(|twin| assert!(!test_body(twin).is_empty()));
        let attacks: Vec<_> = attacks.iter().map(|attack| test_body(attack)).collect();
        for reason in *refused {
            let says = |body: &String| {
                body.contains(&format!("Reason::{reason:?}"))
                    || *reason == PolicyForbidden && body.contains("is_forbidden(")
            };
            assert!(attacks.iter().any(says), "no attack on {id} is refused with {}", reason.id());
        }
        for name in *live {
            let head = format!("\nfunc {name}(t *testing.T) {{");
            let source = real.iter().find(|source| source.contains(&head));
            let source = source.unwrap_or_else(|| panic!("there is no test {name}"));
            let body = body(source, &head).expect("it ends");
            let is_policy = |reason: &Reason| reason.id().starts_with("policy-") && source.contains("(policy-");
            assert!(
                refused.iter().any(|reason| body.contains(&format!("\"{}\"", reason.id())) || is_policy(reason)),
                "{name} has no attack on {id}"
            );
            assert!(body.contains("alice.isRunning()"), "{name} does not look whether lnd goes on");
        }
    }
}

#[test]
fn every_reason_for_which_lnds_calls_are_refused_is_one_of_a_rule() {
    let known: BTreeSet<_> = ENFORCED.iter().flat_map(|row| row.refused).chain(BESIDE).map(|r| r.id()).collect();
    for source in sources("signer/src/lightning/lnd", ".rs") {
        for (_, rest) in source.match_indices("Reason::").map(|(at, head)| source.split_at(at + head.len())) {
            let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            if let Some(reason) = Reason::ALL.iter().find(|reason| format!("{reason:?}") == name) {
                assert!(known.contains(reason.id()), "no rule in this file refuses with {}", reason.id());
            }
        }
    }
}

/// `UPDATE=1` writes it.
#[test]
fn the_page_about_lnd_has_the_table() {
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut table = String::from("| rule | | refused with | attacks and honest twins |\n|---|---|---|---|\n");
    for Row { id, rule, refused, attacks, twins, live } in ENFORCED {
        let reasons: Vec<_> = refused.iter().map(|reason| reason.id()).collect();
        let all: Vec<_> = [*attacks, *twins, *live].concat();
        let _ = writeln!(table, "| `{id}` | {rule} | {} | {} |", quoted(&reasons), quoted(&all));
    }
    let page = read("docs/lnd.md");
    let (begin, end) = ("<!-- generated: begin -->\n", "<!-- generated: end -->\n");
    let (head, rest) = page.split_once(begin).expect("the beginning of the table");
    let (old, tail) = rest.split_once(end).expect("the end of the table");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join("docs/lnd.md"), [head, begin, &table, end, tail].concat()).expect("written");
    } else {
        assert_eq!(old, table, "UPDATE=1 cargo test -p claviger --lib enforced");
    }
}
