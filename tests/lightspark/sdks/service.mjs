// The same as service.py with the official JavaScript SDK. Usage: service.mjs FOLDER GRAPHQL WEBHOOKS INVOICE OTHER_INVOICE ADDRESS

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { AccountTokenAuthProvider, LightsparkClient, WithdrawalMode } from "@lightsparkdev/lightspark-sdk";
import { ClavigerKey, ClavigerWebhooks, Refused } from "./claviger.mjs";

const NODE = "LightsparkNodeWithRemoteSigning:1";
const [folder, graphql, webhooks, invoice, tooMuch, address] = process.argv.slice(2);
const key = ClavigerKey.open(folder);
const auth = new AccountTokenAuthProvider("id", "secret");
const client = new LightsparkClient(auth, graphql, undefined, key);
await key.unlock(client, NODE);
const handler = ClavigerWebhooks.open(folder, client, webhooks);

const payment = await client.payInvoice(NODE, invoice, 1_000, 60, undefined, "javascript 7");
assert.equal(payment.idempotencyKey, "javascript 7");
const withdrawal = await client.requestWithdrawal(NODE, 10_000, address, WithdrawalMode.WALLET_ONLY, "javascript w 7");
assert.equal(withdrawal.bitcoinAddress, address);
await assert.rejects(client.payInvoice(NODE, tooMuch, 1_000), /policy-budget-exceeded/);

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  let status = 204;
  try {
    await handler.handleWebhookRequest(Buffer.concat(parts), request.headers["lightspark-signature"]);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    status = error.status;
  }
  response.writeHead(status).end();
});
server.listen(0, "127.0.0.1", () =>
  console.log(`paid and withdrawn, one refused; webhooks at ${server.address().port}`),
);
