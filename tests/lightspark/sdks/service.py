"""A service of an account, with the official Python SDK and no key: it pays and withdraws, says so, and then takes
Lightspark's webhooks. Usage: service.py FOLDER GRAPHQL WEBHOOKS INVOICE OTHER_INVOICE ADDRESS"""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
from claviger_lightspark import ClavigerKey, ClavigerWebhooks, Refused
from lightspark import LightsparkSyncClient
from lightspark.objects.WithdrawalMode import WithdrawalMode

NODE = "LightsparkNodeWithRemoteSigning:1"
folder, graphql, webhooks, invoice, too_much, address = sys.argv[1:]
client = LightsparkSyncClient("id", "secret", f"{graphql}/graphql/server/2023-09-13")
client.load_node_signing_key(NODE, ClavigerKey.open(folder))
handler = ClavigerWebhooks.open(folder, client, webhooks)

payment = client.pay_invoice(NODE, invoice, 60, 1_000, idempotency_key="python 7")
assert payment.idempotency_key == "python 7"
withdrawal = client.request_withdrawal(NODE, 10_000, address, WithdrawalMode.WALLET_ONLY, "python w 7")
assert withdrawal.bitcoin_address == address
try:
    client.pay_invoice(NODE, too_much, 60, 1_000)
except grpc.RpcError as error:
    assert "policy-budget-exceeded" in error.details(), error.details()
else:
    raise AssertionError("it was refused")


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = 204
        try:
            handler.handle_remote_signing_webhook_request(body, self.headers["lightspark-signature"])
        except Refused as refused:
            status = refused.status
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
print(f"paid and withdrawn, one refused; webhooks at {server.server_port}", flush=True)
server.serve_forever()
