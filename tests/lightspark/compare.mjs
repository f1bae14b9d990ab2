// Lets Lightspark's signer for JavaScript answer the events in a file, and compares: `node compare.mjs FILE`. Its package stands
// beside this script.

import { createHmac } from "node:crypto";
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { isDeepStrictEqual } from "node:util";
import { wasm_handle_remote_signing_webhook_event as handle } from "@lightsparkdev/crypto-wasm";

const SEED = Uint8Array.from({ length: 16 }, (_, at) => at);
const SECRET = "39kyJO140000000000000000000049ws";
const positive = { should_sign: () => true };

// What it answers: the mutation's variables, or null.
function official(body) {
  const signature = createHmac("sha256", SECRET).update(body).digest("hex");
  const answer = handle(Buffer.from(body), signature, SECRET, SEED, positive);
  // Encoded twice.
  const variables = answer && JSON.parse(answer.variables);
  return typeof variables === "string" ? JSON.parse(variables) : (variables ?? null);
}

const counts = new Map();
for await (const line of createInterface({ input: createReadStream(process.argv[2]) })) {
  const { body, reply } = JSON.parse(line);
  const theirs = official(body);
  const name = JSON.parse(body).data.sub_event_type;
  if (!isDeepStrictEqual(theirs, reply)) {
    console.error(`an answer differs:\n  event    ${body}\n  official ${JSON.stringify(theirs)}\n  claviger ${JSON.stringify(reply)}`);
    process.exit(1);
  }
  counts.set(name, (counts.get(name) ?? 0) + 1);
}
if (!counts.size) throw new Error("there is no event");
for (const [name, count] of [...counts].sort()) {
  console.log(`${String(count).padStart(6)} ${name}: the same answers`);
}
