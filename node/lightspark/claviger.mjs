// What Lightspark's JavaScript SDK needs a key for, done by Claviger, which keeps the key.
//
// Calls that move money:
//
//   const key = ClavigerKey.open("acme.lightspark");
//   const client = new LightsparkClient(auth, undefined, undefined, key);
//   await key.unlock(client, nodeId);
//
// Webhooks of remote signing, in place of the SDK's RemoteSigningWebhookHandler:
//
//   const handler = ClavigerWebhooks.open("acme.lightspark", client, "https://signer:7780/ln/webhooks/acme");
//   await handler.handleWebhookRequest(body, headers["lightspark-signature"]);

import { readFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import grpc from "@grpc/grpc-js";
import { KeyOrAlias, SigningKey, SigningKeyType } from "@lightsparkdev/core";

// The name in the signer's certificate, wherever the signer is.
const SIGNER = "signer.claviger";
const WITHIN_MS = 25_000;

export class ClavigerKey extends SigningKey {
  constructor(address, ca, key, certificate, clear) {
    super(SigningKeyType.Secp256k1SigningKey);
    this.clear = clear;
    const credentials = grpc.credentials.createSsl(ca, key, certificate);
    this.client = new grpc.Client(address, credentials, { "grpc.ssl_target_name_override": SIGNER });
  }

  // The folder that `claviger node add --kind lightspark` wrote. `clear`, of a call's body, is its clearance by a screening
  // service, where the signer wants one.
  static open(folder, clear) {
    const read = (name) => readFileSync(join(folder, name));
    const address = read("signer.txt").toString().trim();
    return new ClavigerKey(address, read("ca.pem"), read("client.key"), read("client.pem"), clear);
  }

  // The SDK asks for a key of the node before it asks this one to sign.
  async unlock(client, nodeId) {
    await client.loadNodeKey(nodeId, KeyOrAlias.alias("claviger"));
  }

  // `body` as it will be sent, before it is compressed. Fails with the reason if the policy does not permit it.
  async sign(body) {
    const request = [body, this.clear ? await this.clear(body) : undefined];
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + WITHIN_MS;
      this.client.makeUnaryRequest("/claviger.v1.Operations/Sign", encodeRequest, decode, request, { deadline }, (error, signature) =>
        error ? reject(error) : resolve(signature),
      );
    });
  }
}

const encodeRequest = ([body, clearance]) =>
  clearance ? Buffer.concat([encode(body), encode(clearance, 0x12)]) : encode(body);

// Fields of bytes: a tag, the length in groups of seven bits, the bytes.
function encode(bytes, tag = 0x0a) {
  const head = [tag];
  let length = bytes.length;
  for (; length > 0x7f; length >>>= 7) head.push((length & 0x7f) | 0x80);
  return Buffer.concat([Buffer.from([...head, length]), bytes]);
}

// A signature has at most 512 bytes: its length is one group or two.
function decode(reply) {
  for (const groups of [1, 2]) {
    const signature = reply.subarray(1 + groups);
    if (encode(signature).equals(reply)) return new Uint8Array(signature);
  }
  throw new Error("not a SignOperationReply");
}

// Claviger did not answer an event. Pass `status` on: Lightspark sends again what may work later.
export class Refused extends Error {
  constructor(status, body) {
    super(`${status}: ${body}`);
    this.status = status;
  }
}

export class ClavigerWebhooks {
  constructor(client, url, ca) {
    this.client = client;
    this.url = url;
    this.ca = ca;
  }

  // The folder of the account, a client of Lightspark, and where the signer takes the account's webhooks.
  static open(folder, client, url) {
    return new ClavigerWebhooks(client, url, readFileSync(join(folder, "ca.pem")));
  }

  // `data` as it came, with its `lightspark-signature`. The signer checks that; what it answers goes to Lightspark.
  async handleWebhookRequest(data, signature) {
    const { status, mutation, body } = await this.post(data, signature);
    if (status !== 200 && status !== 204) throw new Refused(status, body);
    if (!mutation) return;
    const variables = JSON.parse(body);
    await this.client.executeRawQuery({ queryPayload: mutation, variables, constructObject: (data) => data });
  }

  post(data, signature) {
    const headers = { "lightspark-signature": signature, "content-length": data.length };
    const options = { method: "POST", headers, ca: this.ca, servername: SIGNER, timeout: WITHIN_MS };
    return new Promise((resolve, reject) => {
      const sent = request(this.url, options, (answer) => {
        const parts = [];
        answer.on("data", (part) => parts.push(part));
        answer.on("error", reject);
        answer.on("end", () => {
          const body = Buffer.concat(parts).toString();
          resolve({ status: answer.statusCode, mutation: answer.headers["lightspark-mutation"], body });
        });
      });
      sent.on("timeout", () => sent.destroy(new Error("the signer does not answer")));
      sent.on("error", reject);
      sent.end(data);
    });
  }
}
