"""A signing key for Lightspark's Python SDK whose private half stays in Claviger.

    key = ClavigerKey.open("acme.lightspark")
    client.load_node_signing_key(node_id, key)
"""

import json
from base64 import b64encode
from pathlib import Path

import grpc
from lightspark.utils.signing_key import SigningKey

# The name in the signer's certificate, wherever the signer is.
SIGNER = "signer.claviger"
WITHIN_S = 25


class ClavigerKey(SigningKey):
    def __init__(self, address: str, ca: bytes, key: bytes, certificate: bytes) -> None:
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        channel = grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", SIGNER)])
        self._sign = channel.unary_unary("/claviger.v1.Operations/Sign", _encode, _decode)

    @classmethod
    def open(cls, folder: str) -> "ClavigerKey":
        """The folder that `claviger node add --kind lightspark` wrote."""
        read = lambda name: (Path(folder) / name).read_bytes()
        return cls(read("signer.txt").decode().strip(), read("ca.pem"), read("client.key"), read("client.pem"))

    def sign_payload(self, payload: bytes) -> str:
        """`payload` as it will be sent, before it is compressed. Fails with the reason if the policy does not permit it."""
        signature = self._sign(payload, timeout=WITHIN_S)
        return json.dumps({"v": 1, "signature": b64encode(signature).decode("ascii")})


# Both messages have one field of bytes: its tag, its length in groups of seven bits, the bytes.
def _encode(body: bytes) -> bytes:
    head, length = bytearray(b"\x0a"), len(body)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(head) + bytes([length]) + body


# A signature in DER has at most 72 bytes: its length is one group.
def _decode(reply: bytes) -> bytes:
    if reply[:1] != b"\x0a" or reply[1] > 0x7F or len(reply) != 2 + reply[1]:
        raise ValueError("not a SignOperationReply")
    return reply[2:]
