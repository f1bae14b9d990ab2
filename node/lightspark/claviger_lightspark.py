"""What Lightspark's Python SDK needs a key for, done by Claviger, which keeps the key.

Calls that move money:

    client.load_node_signing_key(node_id, ClavigerKey.open("acme.lightspark"))

Webhooks of remote signing, in place of the SDK's RemoteSigningWebhookEventHandler:

    handler = ClavigerWebhooks.open("acme.lightspark", client, "https://signer:7780/ln/webhooks/acme")
    handler.handle_remote_signing_webhook_request(body, headers["lightspark-signature"])
"""

import json
import socket
import ssl
from base64 import b64encode
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import grpc
from lightspark.utils.signing_key import SigningKey

# The name in the signer's certificate, wherever the signer is.
SIGNER = "signer.claviger"
WITHIN_S = 25


class ClavigerKey(SigningKey):
    def __init__(self, address: str, ca: bytes, key: bytes, certificate: bytes, clear=None) -> None:
        self._clear = clear
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        channel = grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", SIGNER)])
        self._sign = channel.unary_unary("/claviger.v1.Operations/Sign", _encode_request, _decode)

    @classmethod
    def open(cls, folder: str, clear=None) -> "ClavigerKey":
        """The folder that `claviger node add --kind lightspark` wrote. `clear`, of a call's body, is its clearance by a screening
        service, where the signer wants one."""
        read = lambda name: (Path(folder) / name).read_bytes()
        return cls(read("signer.txt").decode().strip(), read("ca.pem"), read("client.key"), read("client.pem"), clear)

    def sign_payload(self, payload: bytes) -> str:
        """`payload` as it will be sent, before it is compressed. Fails with the reason if the policy does not permit it."""
        clearance = self._clear(payload) if self._clear else b""
        signature = self._sign((payload, clearance), timeout=WITHIN_S)
        return json.dumps({"v": 1, "signature": b64encode(signature).decode("ascii")})


def _encode_request(request) -> bytes:
    body, clearance = request
    return _encode(body) + (_encode(clearance, b"\x12") if clearance else b"")


# Fields of bytes: a tag, the length in groups of seven bits, the bytes.
def _encode(body: bytes, tag: bytes = b"\x0a") -> bytes:
    head, length = bytearray(tag), len(body)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(head) + bytes([length]) + body


# A signature has at most 512 bytes: its length is one group or two.
def _decode(reply: bytes) -> bytes:
    for groups in (1, 2):
        head, signature = reply[: 1 + groups], reply[1 + groups :]
        if head + signature == _encode(signature):
            return signature
    raise ValueError("not a SignOperationReply")


class Refused(Exception):
    """Claviger did not answer an event. Pass `status` on: Lightspark sends again what may work later."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status


class ClavigerWebhooks:
    def __init__(self, client, url: str, ca: str) -> None:
        self._client, self._url, self._tls = client, urlsplit(url), ssl.create_default_context(cadata=ca)

    @classmethod
    def open(cls, folder: str, client, url: str) -> "ClavigerWebhooks":
        """The folder of the account, a client of Lightspark, and where the signer takes the account's webhooks."""
        return cls(client, url, (Path(folder) / "ca.pem").read_text())

    def handle_remote_signing_webhook_request(self, data: bytes, hexdigest: str) -> None:
        """`data` as it came, with its `lightspark-signature`. The signer checks that; what it answers goes to Lightspark."""
        address = (self._url.hostname, self._url.port or 443)
        connection = HTTPSConnection(*address)
        plain = socket.create_connection(address, timeout=WITHIN_S)
        connection.sock = self._tls.wrap_socket(plain, server_hostname=SIGNER)
        try:
            connection.request("POST", self._url.path, data, {"lightspark-signature": hexdigest})
            answer = connection.getresponse()
            mutation, body = answer.headers["lightspark-mutation"], answer.read().decode()
        finally:
            connection.close()
        if answer.status not in (200, 204):
            raise Refused(answer.status, body)
        if mutation:
            self._client.execute_graphql_request(mutation, json.loads(body))
