// Verifies messages with the official JavaScript library of Standard Webhooks, and v1a signatures,
// which it does not know, with Node's own ed25519.
//
// Reads a JSON array of {"secret", "headers", "body"} from standard input, `public_key` in place of
// `secret` for v1a; a changed body must fail.
const crypto = require("node:crypto");
const fs = require("node:fs");
const { Webhook } = require("standardwebhooks");

function verifyEd25519({ public_key, headers, body }) {
  const raw = Buffer.from(public_key.replace(/^whpk_/, ""), "base64");
  // RFC 8410: what stands before the 32 bytes of a key.
  const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw]);
  const key = crypto.createPublicKey({ key: der, format: "der", type: "spki" });
  const content = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`;
  const signatures = headers["webhook-signature"].split(" ").filter((one) => one.startsWith("v1a,"));
  const matches = (one) => crypto.verify(null, Buffer.from(content), key, Buffer.from(one.slice(4), "base64"));
  if (!signatures.some(matches)) throw new Error("no v1a signature matches");
}

function verify(message) {
  if (message.public_key) verifyEd25519(message);
  else new Webhook(message.secret).verify(message.body, message.headers);
}

const messages = JSON.parse(fs.readFileSync(0, "utf8"));
for (const message of messages) {
  verify(message);
  let accepted = true;
  try {
    verify({ ...message, body: `${message.body} ` });
  } catch {
    accepted = false;
  }
  if (accepted) throw new Error("a changed body was accepted");
}
console.log(`verified ${messages.length}`);
