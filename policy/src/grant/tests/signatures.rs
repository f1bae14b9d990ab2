//! Signatures that the stock `ssh-keygen` makes.

use super::*;

const GRANT: &str = "claviger-grant";

fn verify(list: &str, namespace: &'static str, text: &str, signature: &str) -> Result<String, SignatureError> {
    let approvers = Approvers::parse(list).expect("a good file");
    approvers.verify(text, namespace, signature, NOW_MS).map(|signer| signer.person)
}

#[test]
fn a_signature_of_ssh_keygen_names_its_signer() {
    let people = People::new(&["alice"]);
    people.make("bob", "ecdsa");
    let list = format!("{}bob {}\n", people.allowed_signers(), people.public("bob"));
    let text = intent().text();
    for person in ["alice", "bob"] {
        let signature = people.sign(person, GRANT, &text);
        assert_eq!(verify(&list, GRANT, &text, &signature), Ok(person.to_owned()));
        assert!(people.verify(&list, person, GRANT, &text, &signature, "20261123090000Z"));
    }
}

#[test]
fn a_signature_over_other_text_is_refused() {
    let people = People::new(&["alice"]);
    let text = intent().text();
    let signature = people.sign("alice", GRANT, &text);
    let more = text.replace("300000000", "3000000000");
    for other in [more.as_str(), &text[..text.len() - 1], &format!("{text}\n"), &text.replace('\n', "\r\n"), ""] {
        let refused = verify(&people.allowed_signers(), GRANT, other, &signature);
        assert_eq!(refused, Err(SignatureError::Wrong("alice".into())), "{other}");
    }
    assert_eq!(verify(&people.allowed_signers(), GRANT, &text, &signature), Ok("alice".into()));
}

#[test]
fn a_signature_for_another_purpose_is_refused() {
    let people = People::new(&["alice"]);
    let text = intent().text();
    let purposes = [GRANT, "claviger-break-glass", REQUEST_NAMESPACE];
    for made_for in purposes.into_iter().chain(["file"]) {
        let signature = people.sign("alice", made_for, &text);
        for wanted in purposes {
            let outcome = verify(&people.allowed_signers(), wanted, &text, &signature);
            if made_for == wanted {
                assert_eq!(outcome, Ok("alice".into()));
            } else {
                assert_eq!(outcome, Err(SignatureError::Namespace { found: made_for.into(), wanted }));
            }
        }
    }
}

#[test]
fn a_key_that_is_not_listed_is_refused() {
    let people = People::new(&["alice", "mallory"]);
    let text = intent().text();
    let list = format!("alice {}\n", people.public("alice"));
    let signature = people.sign("mallory", GRANT, &text);
    let refused = verify(&list, GRANT, &text, &signature);
    assert!(matches!(refused, Err(SignatureError::UnknownKey(key)) if key.starts_with("SHA256:")));
    assert_eq!(verify(&people.allowed_signers(), GRANT, &text, &signature), Ok("mallory".into()));
}

#[test]
fn a_key_counts_within_its_validity_as_ssh_keygen_has_it() {
    let people = People::new(&["alice"]);
    let text = intent().text();
    let signature = people.sign("alice", GRANT, &text);
    for (options, valid) in [
        ("valid-before=\"20261123090001Z\"", true),
        ("valid-before=\"20261123Z\"", false),
        ("valid-after=\"202611230900Z\"", true),
        ("valid-after=\"20261123090001Z\"", false),
        ("valid-after=\"20261101Z\",valid-before=\"20261201Z\"", true),
        ("valid-after=\"20261124Z\",valid-before=\"20261201Z\"", false),
    ] {
        let list = format!("alice {options} {}\n", people.public("alice"));
        let expected = if valid { Ok("alice".into()) } else { Err(SignatureError::KeyTime("alice".into())) };
        assert_eq!(verify(&list, GRANT, &text, &signature), expected, "{options}");
        assert_eq!(people.verify(&list, "alice", GRANT, &text, &signature, "20261123090000Z"), valid, "{options}");
    }
}

#[test]
fn a_key_signs_only_for_the_purposes_of_its_line() {
    let people = People::new(&["alice"]);
    let text = intent().text();
    let signature = people.sign("alice", GRANT, &text);
    for (options, allowed) in [
        ("namespaces=\"claviger-grant\"", true),
        ("namespaces=\"file,claviger-grant\"", true),
        ("NAMESPACES=\"file\"", false),
    ] {
        let list = format!("alice {options} {}\n", people.public("alice"));
        let refused = SignatureError::KeyPurpose { person: "alice".into(), namespace: GRANT };
        let expected = if allowed { Ok("alice".into()) } else { Err(refused) };
        assert_eq!(verify(&list, GRANT, &text, &signature), expected, "{options}");
        assert_eq!(people.verify(&list, "alice", GRANT, &text, &signature, "20261123090000Z"), allowed, "{options}");
    }
}

#[test]
fn what_is_no_signature_is_refused_and_bounded() {
    let people = People::new(&["alice"]);
    let text = intent().text();
    let signature = people.sign("alice", GRANT, &text);
    let list = people.allowed_signers();
    for wrong in ["", "-----BEGIN SSH SIGNATURE-----\n", &signature[..signature.len() / 2], &people.public("alice")] {
        assert_eq!(verify(&list, GRANT, &text, wrong), Err(SignatureError::Format), "{wrong}");
    }
    let long = "A".repeat(MAX_SIGNATURE + 1);
    assert_eq!(verify(&list, GRANT, &text, &long), Err(SignatureError::TooLong(long.len())));
}

#[test]
fn a_key_of_a_type_that_is_not_taken_is_refused_by_name() {
    let people = People::new(&["alice"]);
    people.make("rsa", "rsa");
    let errors = Approvers::parse(&format!("alice {}\n", people.public("rsa"))).expect_err("refused");
    let [SignerError { place, fault }] = errors.as_slice() else { panic!("one error") };
    assert_eq!((place.line, place.column, fault), (1, 7, &SignerFault::KeyType("ssh-rsa".into())));
}
