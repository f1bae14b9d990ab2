//! One webhook: from its bytes to an answer.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::accounts::Accounts;
use super::courier::Courier;
use super::mutations::Mutation;
use crate::gateway::link::{LinkHandler, ask};
use crate::lightning::lightspark::{Ask, Event, Letter, SubEvent, refusal, request};
use crate::names::NodeName;
use crate::pipeline::Outcome;
use crate::reasons::{Reason, Refusal};

/// Then the caller may ask again: the same event gets the same answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The paths that Lightspark's own examples serve. An account's name may follow, behind a slash.
const PATHS: [&str; 2] = ["/ln/webhooks", "/lightspark-webhook"];

/// What all webhooks go through.
pub(super) struct Webhooks {
    pub(super) accounts: Arc<Accounts>,
    pub(super) handler: Arc<dyn LinkHandler>,
    pub(super) courier: Arc<Courier>,
}

/// What is sent back: the status, the body if there is one, and what takes the body at Lightspark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) mutation: Option<Mutation>,
}

impl Answer {
    /// A status alone.
    pub(super) fn status(status: u16) -> Self {
        Self { status, body: Vec::new(), mutation: None }
    }

    fn letter(letter: Letter) -> Self {
        Self { status: 200, mutation: Mutation::of(&letter), body: letter.variables }
    }

    pub(super) fn refused(request: &str, refusal: &Refusal) -> Self {
        let Refusal { reason, detail, .. } = refusal;
        let status = match reason {
            Reason::Malformed | Reason::MessageUnknown | Reason::PathNotCanonical => 400,
            Reason::Fault => 500,
            reason if reason.retry() => 503,
            _ => 403,
        };
        let body = json!({ "reason": reason.id(), "detail": detail, "hint": reason.hint(), "request": request });
        Self { body: body.to_string().into_bytes(), ..Self::status(status) }
    }
}

/// The account's name in `path`, empty if there is none; `None` if no webhooks are served there.
pub(super) fn account_in(path: &str) -> Option<&str> {
    let rest = PATHS.iter().find_map(|known| path.strip_prefix(known))?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

impl Webhooks {
    /// Answers `body`, which came to the account called `account` under `signature`, the header as it was.
    pub(super) async fn answer(&self, account: &str, signature: Option<&[u8]>, body: &[u8]) -> Answer {
        let Some((name, network)) = self.accounts.find(account) else { return Answer::status(404) };
        let mut code = [0; 32];
        let is_hex = signature.is_some_and(|signature| hex::decode_to_slice(signature, &mut code).is_ok());
        if !is_hex || !self.accounts.is_signed(&name, body, &code) {
            return Answer::status(400);
        }
        let event = match Event::parse(body, network) {
            Ok(event) => event,
            Err(error) => {
                let refusal = refusal(&error);
                tracing::warn!(%name, reason = refusal.reason.id(), "lightspark: refused: {}", refusal.detail);
                return Answer::refused("", &refusal);
            }
        };
        match event.ask {
            Ask::Nothing => Answer::status(204),
            Ask::Remote(_, ref sub_event) => self.ask(&name, &event, sub_event, body).await,
        }
    }

    async fn ask(&self, name: &NodeName, event: &Event, sub_event: &SubEvent, body: &[u8]) -> Answer {
        let calls_back = self.accounts.calls_back(name);
        if calls_back && self.courier.is_full(name) {
            let refusal = Refusal::new(Reason::NodeBusy, "too many answers wait for Lightspark's API");
            return Answer::refused("", &refusal);
        }
        let message = request(sub_event.method(), calls_back, body);
        let outcome = ask(&*self.handler, name, message, ANSWER_WITHIN).await;
        let reply = match &outcome {
            Outcome::Reply(reply) => Ok(&reply[..]),
            Outcome::Refused { refusal, .. } => Err(refusal),
        };
        match (Letter::of(sub_event, reply, event.at_ms), outcome) {
            (Some(letter), _) if calls_back => {
                self.courier.send(name, &event.id, letter);
                Answer::status(204)
            }
            (Some(letter), _) => Answer::letter(letter),
            (None, Outcome::Reply(_)) => Answer::status(204),
            (None, Outcome::Refused { request, refusal }) => Answer::refused(&request, &refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bitcoin::Network;
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::Sha256;
    use zeroize::Zeroizing;

    use super::super::accounts::Account;
    use super::super::api::{Api, Endpoint};
    use super::*;
    use crate::pipeline::{Request, Responder};

    const POINT: &str = r#"{"event_type": "REMOTE_SIGNING", "event_id": "1", "timestamp": "2024-06-05T04:28:45.171899+00:00", "entity_id": "Channel:1", "data": {"sub_event_type": "GET_PER_COMMITMENT_POINT", "bitcoin_network": "REGTEST", "derivation_path": "m/3/1", "per_commitment_point_idx": 7}}"#;
    const SIGN: &str = r#"{"event_type": "REMOTE_SIGNING", "event_id": "1", "timestamp": "2024-06-05T04:28:45.171899+00:00", "entity_id": "Channel:1", "data": {"sub_event_type": "DERIVE_KEY_AND_SIGN", "bitcoin_network": "REGTEST", "signing_jobs": [{"id": "job-1", "derivation_path": "m/3/1/0", "message": "1111111111111111111111111111111111111111111111111111111111111111", "script": "51", "transaction": "00", "amount": 1}]}}"#;

    /// Says what it was told to say.
    struct Saying(Mutex<Vec<Outcome>>);

    impl LinkHandler for Saying {
        fn submit(&self, node: &NodeName, request: Request, respond: Responder) {
            assert_eq!(node.as_str(), "alice");
            assert!(request.message.len() > 2);
            respond(self.0.lock().expect("whole").pop().expect("an outcome"));
        }
    }

    /// The door of the account alice, whose API is not there.
    fn door_of(webhook_secret: &[u8], api_token: Option<&[u8]>, outcome: Option<Outcome>) -> Webhooks {
        let accounts = Arc::new(Accounts::default());
        let secret = |secret: &[u8]| Zeroizing::new(secret.to_vec());
        let (webhook_secret, api_token) = (secret(webhook_secret), api_token.map(secret));
        let account = Account { network: Network::Regtest, webhook_secret, api_token };
        accounts.put(NodeName::new("alice").expect("a name"), account);
        let api = Api::new(Endpoint::parse("http://127.0.0.1:1/").expect("a URL"), "".into());
        let courier = Arc::new(Courier::start(api, accounts.clone(), Box::new(|_, _| {})));
        let handler = Arc::new(Saying(Mutex::new(outcome.into_iter().collect())));
        Webhooks { accounts, handler, courier }
    }

    fn door(outcome: Option<Outcome>) -> Webhooks {
        door_of(b"secret", None, outcome)
    }

    fn signature(secret: &[u8], body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key");
        mac.update(body.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    async fn send(outcome: Option<Outcome>, account: &str, body: &str) -> Answer {
        let signature = signature(b"secret", body);
        door(outcome).answer(account, Some(signature.as_bytes()), body.as_bytes()).await
    }

    fn refused(reason: Reason) -> Option<Outcome> {
        Some(Outcome::Refused { request: "alice-1".to_owned(), refusal: Refusal::new(reason, "why") })
    }

    #[tokio::test]
    async fn only_what_the_account_s_secret_signed_byte_for_byte_is_looked_at() {
        let good = signature(b"secret", POINT);
        let answer = |signature: Option<String>, body: String| async move {
            door(Some(Outcome::Reply(b"{}".to_vec())))
                .answer("", signature.as_ref().map(String::as_bytes), body.as_bytes())
                .await
                .status
        };
        assert_eq!(answer(Some(good.clone()), POINT.to_owned()).await, 200);
        assert_eq!(answer(Some(good.to_uppercase()), POINT.to_owned()).await, 200);
        for forged in
            [None, Some(String::new()), Some(format!("{good}00")), Some("00".repeat(32)), Some("qq".repeat(32))]
        {
            assert_eq!(answer(forged, POINT.to_owned()).await, 400);
        }
        assert_eq!(answer(Some(signature(b"other", POINT)), POINT.to_owned()).await, 400);
        assert_eq!(answer(Some(good), POINT.replace(": ", ":")).await, 400, "the same JSON, other bytes");
    }

    #[tokio::test]
    async fn what_asks_for_nothing_is_acknowledged_and_what_is_unknown_refused() {
        let telling = POINT.replace("REMOTE_SIGNING", "PAYMENT_FINISHED");
        assert_eq!(send(None, "alice", &telling).await, Answer::status(204));
        for unknown in
            [POINT.replace("REMOTE_SIGNING", "NEW"), POINT.replace("GET_PER_COMMITMENT_POINT", "VLS_MESSAGE")]
        {
            let answer = send(None, "alice", &unknown).await;
            assert_eq!(answer.status, 400);
            assert!(String::from_utf8_lossy(&answer.body).contains("message-unknown"));
        }
        assert_eq!(send(None, "bob", POINT).await.status, 404);
        assert_eq!(send(Some(Outcome::Reply(Vec::new())), "alice", POINT).await, Answer::status(204));
    }

    #[tokio::test]
    async fn refused_jobs_are_declined_and_other_refusals_have_a_status() {
        let body = br#"{"payload_ids":["job-1"]}"#.to_vec();
        let declined = Answer { status: 200, body, mutation: Some(Mutation::Decline) };
        assert_eq!(send(refused(Reason::Limit), "", SIGN).await, declined);
        // What may work later is not declined for good.
        assert_eq!(send(refused(Reason::JournalUnavailable), "", SIGN).await.status, 503);
        assert_eq!(send(refused(Reason::Fault), "", SIGN).await.status, 500);
        assert_eq!(send(refused(Reason::SecretOrder), "", POINT).await.status, 403);
        assert_eq!(send(refused(Reason::NodeBusy), "", POINT).await.status, 503);
        // What somebody kept and sends again is not declined in the account's name.
        assert_eq!(send(refused(Reason::EventStale), "", SIGN).await.status, 403);
        assert_eq!(send(refused(Reason::EventReused), "", SIGN).await.status, 403);
    }

    #[tokio::test]
    async fn where_answers_are_called_back_a_webhook_is_answered_at_once_and_tells_nothing() {
        let told = Outcome::Reply(br#"{"per_commitment_point":"02"}"#.to_vec());
        for (outcome, body, status, waiting) in [
            (told, POINT, 204, 1),
            (refused(Reason::Limit).expect("one"), SIGN, 204, 1),
            (refused(Reason::SecretOrder).expect("one"), POINT, 403, 0),
            (refused(Reason::JournalUnavailable).expect("one"), SIGN, 503, 0),
            (Outcome::Reply(Vec::new()), POINT, 204, 0),
        ] {
            let door = door_of(b"secret", Some(b"id:token"), Some(outcome));
            let signature = signature(b"secret", body);
            let answer = door.answer("", Some(signature.as_bytes()), body.as_bytes()).await;
            assert_eq!((answer.status, answer.mutation), (status, None));
            assert!(answer.body.is_empty() || status != 204);
            assert_eq!(door.courier.waiting(&NodeName::new("alice").expect("a name")), waiting);
        }
    }

    /// Webhooks that Lightspark's SDKs are tested with, under their secrets: body, signature, status.
    #[tokio::test]
    async fn the_sdks_own_webhooks_are_signed_and_other_signatures_are_none() {
        const TOLD: &str = "3gZ5oQQUASYmqQNuEk0KambNMVkOADDItIJjzUlAWjX";
        const ASKED: &str = "39kyJO140v7fYkwHnR7jz8Y3UphqVeNYQk44Xx049ws";
        const STATUS: &str = r#"{"event_type": "NODE_STATUS", "event_id": "1615c8be5aa44e429eba700db2ed8ca5", "timestamp": "2023-05-17T23:56:47.874449+00:00", "entity_id": "lightning_node:01882c25-157a-f96b-0000-362d42b64397"}"#;
        const STATUS_SIGNED: &str = "62a8829aeb48b4142533520b1f7f86cdb1ee7d718bf3ea15bc1c662d4c453b74";
        let answer = |secret: &'static str, body: &'static str, signature: String| async move {
            let door = door_of(secret.as_bytes(), None, Some(Outcome::Reply(Vec::new())));
            door.answer("", Some(signature.as_bytes()), body.as_bytes()).await.status
        };
        for (secret, body, signature) in [
            (TOLD, STATUS, STATUS_SIGNED),
            (
                TOLD,
                r#"{"event_type": "WALLET_INCOMING_PAYMENT_FINISHED", "event_id": "1615c8be5aa44e429eba700db2ed8ca5", "timestamp": "2023-05-17T23:56:47.874449+00:00", "entity_id": "lightning_node:01882c25-157a-f96b-0000-362d42b64397", "wallet_id": "wallet:01882c25-157a-f96b-0000-362d42b64397" }"#,
                "b4eeb95f18956b3c33b99e9effc61636effc4634f83604cb41de13470c42669a",
            ),
            (
                ASKED,
                r#"{"event_type": "REMOTE_SIGNING", "event_id": "5053dbd8c5b0453494f1c14e01da69cd", "timestamp": "2023-09-18T23:50:15.355603+00:00", "entity_id": "node_with_server_signing:018a9635-3673-88df-0000-827f23051b19", "data": {"sub_event_type": "ECDH", "bitcoin_network": "REGTEST", "peer_public_key": "03173d97d0973d596716c8cd14066e20e27f6866ab214fd04d160301615de78f72"}}"#,
                "a64c69f1266bc1dc1322c3f40eba7ba2d536c714774a4fc04f0938609482f5d9",
            ),
            (
                ASKED,
                r#"{"event_type": "REMOTE_SIGNING", "event_id": "018fe6a810f306a80000685529f591ec", "api_version": "2023-09-13", "timestamp": "2024-06-05T04:28:45.171899+00:00", "entity_id": "Channel:018fe6a8-1096-69e3-0000-b60765430f65", "data": {"sub_event_type": "GET_PER_COMMITMENT_POINT", "bitcoin_network": "REGTEST", "derivation_path": "m/3/19328", "per_commitment_point_idx": 27363191, "node_id": "node_with_server_signing:018a9635-3673-88df-0000-827f23051b19"}}"#,
                "5809279c1fd8088a6c62be82d3e858c11ce187ee97a0fadae1ae498e2f69442c",
            ),
            (
                ASKED,
                r#"{"event_type": "REMOTE_SIGNING", "event_id": "018fe6a04fc206a80000958402d37f4e", "api_version": "2023-09-13", "timestamp": "2024-06-05T04:20:16.962141+00:00", "entity_id": "Channel:018fe6a0-4fa7-69e3-0000-e19c868ed6ed", "data": {"sub_event_type": "REVEAL_COUNTERPARTY_PER_COMMITMENT_SECRET", "bitcoin_network": "REGTEST", "per_commitment_secret_idx": 27363191, "per_commitment_secret": "6687a878e8973555511409e3cc7bd94f553c6d2eab0eb158147a8378bf8c532a", "node_id": "node_with_server_signing:018a9635-3673-88df-0000-827f23051b19"}}"#,
                "864f7f575ec2425eb6ecfe457cbf17b41da0e4cbb70cda126c00ea507fbf699c",
            ),
        ] {
            assert_eq!(answer(secret, body, signature.to_owned()).await, 204, "{body}");
            assert_eq!(answer(secret, body, signature.to_uppercase()).await, 204, "{body}");
        }
        for wrong in ["deadbeef".to_owned(), "a".repeat(64), "NotAHexString".to_owned(), format!("{STATUS_SIGNED}qq")] {
            assert_eq!(answer(TOLD, STATUS, wrong).await, 400);
        }
    }

    #[test]
    fn an_account_stands_in_the_path() {
        assert_eq!(account_in("/ln/webhooks"), Some(""));
        assert_eq!(account_in("/lightspark-webhook/alice"), Some("alice"));
        for elsewhere in ["/", "/ln/webhooksalice", "/ln", "/ping"] {
            assert_eq!(account_in(elsewhere), None);
        }
    }
}
