"""A double of the signer's `claviger.v1.Operations`, made from its .proto, and one of Lightspark's GraphQL, which takes no
operation whose signature, nonce or expiry is wrong. Usage: doubles.py FOLDER; writes the client's folder, then "ready PORT"."""

import hashlib
import json
import sys
import zlib
from base64 import b64decode
from concurrent import futures
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import zstandard
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509.oid import NameOID

pb, services = grpc.protos_and_services("claviger/v1/operations.proto")

OPERATIONS_KEY = ec.derive_private_key(5, ec.SECP256K1())
FOLDER = Path(sys.argv[1])
NOW = datetime.now(timezone.utc)


def certificate(name, issuer, issuer_key, is_ca):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(issuer_key or key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key, subject, made.public_bytes(serialization.Encoding.PEM), pem


class Signer(services.OperationsServicer):
    """Signs everything but what costs more than it is told to permit."""

    def Sign(self, request, context):
        if json.loads(request.body)["variables"].get("maximum_fees_msats", 0) > 1_000:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "policy-forbidden: the fee")
        return pb.SignOperationReply(signature=OPERATIONS_KEY.sign(request.body, ec.ECDSA(hashes.SHA256())))




AMOUNT = {
    "currency_amount_original_value": 1,
    "currency_amount_original_unit": "SATOSHI",
    "currency_amount_preferred_currency_unit": "SATOSHI",
    "currency_amount_preferred_currency_value_rounded": 1,
    "currency_amount_preferred_currency_value_approx": 1,
}
TIME = NOW.isoformat()


def answer(body):
    variables, query = body["variables"], body["query"]
    nothing = lambda *names: {name: None for name in names}
    if "pay_invoice(" in query:
        start = "outgoing_payment_"
        known = {"id": "OutgoingPayment:1", "created_at": TIME, "updated_at": TIME, "status": "PENDING", "amount": AMOUNT,
                 "is_uma": False, "origin": {"id": variables["node_id"]}, "is_internal_payment": False,
                 "idempotency_key": variables.get("idempotency_key")}
        rest = nothing("resolved_at", "transaction_hash", "destination", "fees", "payment_request_data", "failure_reason",
                       "failure_message", "uma_post_transaction_data", "payment_preimage")
        return {"pay_invoice": {"payment": {start + name: value for name, value in {**known, **rest}.items()}}}
    start = "withdrawal_request_"
    known = {"id": "WithdrawalRequest:1", "created_at": TIME, "updated_at": TIME, "requested_amount": AMOUNT,
             "amount": AMOUNT, "bitcoin_address": variables["bitcoin_address"],
             "withdrawal_mode": variables["withdrawal_mode"], "status": "CREATED", "initiator": "CUSTOMER",
             "idempotency_key": variables.get("idempotency_key")}
    rest = nothing("estimated_amount", "amount_withdrawn", "total_fees", "completed_at", "withdrawal")
    return {"request_withdrawal": {"request": {start + name: value for name, value in {**known, **rest}.items()}}}


class GraphQl(BaseHTTPRequestHandler):
    nonces = set()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self.headers.get("Content-Encoding"):
            case "zstd":
                body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
            case "deflate":
                body = zlib.decompress(body)
        signature = json.loads(self.headers["X-Lightspark-Signing"])["signature"]
        digest = hashlib.sha256(body).digest()
        # Raises, and answers nothing, if it is wrong.
        OPERATIONS_KEY.public_key().verify(b64decode(signature), digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        body = json.loads(body)
        assert self.headers["Authorization"].startswith("Basic ")
        assert body["nonce"] not in self.nonces
        self.nonces.add(body["nonce"])
        expires_at = datetime.fromisoformat(body["expires_at"].replace("Z", "+00:00"))
        assert timedelta() < expires_at - datetime.now(timezone.utc) <= timedelta(hours=1, minutes=1)
        reply = json.dumps({"data": answer(body)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


ca_key, ca_name, ca_pem, _ = certificate("ca", None, None, True)
_, _, server_pem, server_key = certificate("signer.claviger", ca_name, ca_key, False)
_, _, client_pem, client_key = certificate("acme", ca_name, ca_key, False)
server = grpc.server(futures.ThreadPoolExecutor(4))
services.add_OperationsServicer_to_server(Signer(), server)
credentials = grpc.ssl_server_credentials([(server_key, server_pem)], ca_pem, require_client_auth=True)
port = server.add_secure_port("127.0.0.1:0", credentials)
server.start()
for name, content in [("signer.txt", f"127.0.0.1:{port}\n".encode()), ("ca.pem", ca_pem), ("client.pem", client_pem),
                      ("client.key", client_key)]:
    (FOLDER / name).write_bytes(content)
graphql = HTTPServer(("127.0.0.1", 0), GraphQl)
print(f"ready {graphql.server_port}", flush=True)
graphql.serve_forever()
