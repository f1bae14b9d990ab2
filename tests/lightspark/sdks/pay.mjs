// Pays an invoice and requests a withdrawal with the official JavaScript SDK. Usage: pay.mjs FOLDER PORT

import assert from "node:assert/strict";
import { AccountTokenAuthProvider, LightsparkClient, WithdrawalMode } from "@lightsparkdev/lightspark-sdk";
import { ClavigerKey } from "./claviger.mjs";

const NODE = "LightsparkNodeWithRemoteSigning:1";
const [folder, port] = process.argv.slice(2);
const key = ClavigerKey.open(folder);
const auth = new AccountTokenAuthProvider("id", "secret");
const client = new LightsparkClient(auth, `http://127.0.0.1:${port}`, undefined, key);
await key.unlock(client, NODE);
const payment = await client.payInvoice(NODE, "lnbcrt1", 1_000, 60, undefined, "order 7");
assert.equal(payment.idempotencyKey, "order 7");
const withdrawal = await client.requestWithdrawal(NODE, 10_000, "bcrt1q", WithdrawalMode.WALLET_ONLY, "w 7");
assert.equal(withdrawal.bitcoinAddress, "bcrt1q");
await assert.rejects(client.payInvoice(NODE, "lnbcrt1", 1_001), /policy-forbidden/);
console.log("javascript: paid and withdrawn, one refused");
process.exit(0);
