"""Pays an invoice and requests a withdrawal with the official Python SDK. Usage: pay.py FOLDER PORT"""

import sys

import grpc
from claviger_lightspark import ClavigerKey
from lightspark import LightsparkSyncClient
from lightspark.objects.WithdrawalMode import WithdrawalMode

NODE = "LightsparkNodeWithRemoteSigning:1"
folder, port = sys.argv[1:]
client = LightsparkSyncClient("id", "secret", f"http://127.0.0.1:{port}/graphql/server/2023-09-13")
client.load_node_signing_key(NODE, ClavigerKey.open(folder))
payment = client.pay_invoice(NODE, "lnbcrt1", 60, 1_000, idempotency_key="order 7")
assert payment.idempotency_key == "order 7"
withdrawal = client.request_withdrawal(NODE, 10_000, "bcrt1q", WithdrawalMode.WALLET_ONLY, "w 7")
assert withdrawal.bitcoin_address == "bcrt1q"
try:
    client.pay_invoice(NODE, "lnbcrt1", 60, 1_001)
except grpc.RpcError as error:
    assert "policy-forbidden" in error.details()
else:
    raise AssertionError("it was refused")
print("python: paid and withdrawn, one refused")
