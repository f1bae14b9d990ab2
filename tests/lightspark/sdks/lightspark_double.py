"""A double of Lightspark's GraphQL. It takes no operation whose signature, nonce or expiry is wrong, and keeps what the
answers to webhooks say."""

import hashlib
import json
import re
import threading
import zlib
from base64 import b64decode
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import zstandard
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

OPERATIONS = ("pay_invoice(", "request_withdrawal(")
AMOUNT = {
    "currency_amount_original_value": 1,
    "currency_amount_original_unit": "SATOSHI",
    "currency_amount_preferred_currency_unit": "SATOSHI",
    "currency_amount_preferred_currency_value_rounded": 1,
    "currency_amount_preferred_currency_value_approx": 1,
}


class GraphQl:
    """`operations_key` is the account's public key at m/5, compressed: Lightspark knows that much."""

    def __init__(self, operations_key):
        self.key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), operations_key)
        self.nonces, self.moved, self.answers = set(), [], []
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                reply = json.dumps({"data": double.take(self.headers, body_of(self))}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, headers, raw):
        """Raises, which answers nothing, if something is wrong."""
        assert headers["Authorization"].startswith("Basic ")
        body = json.loads(raw)
        if not any(name in body["query"] for name in OPERATIONS):
            self.answers.append((body["query"], body["variables"]))
            return {re.search(r"\{\s*(\w+)\(input", body["query"])[1]: {}}
        signature = b64decode(json.loads(headers["X-Lightspark-Signing"])["signature"])
        self.key.verify(signature, raw, ec.ECDSA(hashes.SHA256()))
        assert body["nonce"] not in self.nonces
        self.nonces.add(body["nonce"])
        ends = datetime.fromisoformat(body["expires_at"].replace("Z", "+00:00"))
        assert timedelta() < ends - datetime.now(timezone.utc) <= timedelta(hours=1, minutes=1)
        self.moved.append(body["variables"])
        return moved(body["query"], body["variables"])


def body_of(request):
    """A body as it was before its sender compressed it."""
    body = request.rfile.read(int(request.headers["Content-Length"]))
    match request.headers.get("Content-Encoding"):
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(body)
        case "deflate":
            return zlib.decompress(body)
    return body


def moved(query, variables):
    """What the SDKs read of a payment or a withdrawal."""
    nothing = lambda *names: {name: None for name in names}
    if "pay_invoice(" in query:
        time, start = datetime.now(timezone.utc).isoformat(), "outgoing_payment_"
        known = {"id": "OutgoingPayment:1", "created_at": time, "updated_at": time, "status": "PENDING", "amount": AMOUNT,
                 "is_uma": False, "origin": {"id": variables["node_id"]}, "is_internal_payment": False,
                 "idempotency_key": variables.get("idempotency_key")}
        rest = nothing("resolved_at", "transaction_hash", "destination", "fees", "payment_request_data", "failure_reason",
                       "failure_message", "uma_post_transaction_data", "payment_preimage")
        return {"pay_invoice": {"payment": {start + name: value for name, value in {**known, **rest}.items()}}}
    time, start = datetime.now(timezone.utc).isoformat(), "withdrawal_request_"
    known = {"id": "WithdrawalRequest:1", "created_at": time, "updated_at": time, "requested_amount": AMOUNT,
             "amount": AMOUNT, "bitcoin_address": variables["bitcoin_address"],
             "withdrawal_mode": variables["withdrawal_mode"], "status": "CREATED", "initiator": "CUSTOMER",
             "idempotency_key": variables.get("idempotency_key")}
    rest = nothing("estimated_amount", "amount_withdrawn", "total_fees", "completed_at", "withdrawal")
    return {"request_withdrawal": {"request": {start + name: value for name, value in {**known, **rest}.items()}}}
