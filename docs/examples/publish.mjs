// Creates a domain and removes it again from JavaScript, by nats.js alone: `npm install`, then `node publish.mjs nats://127.0.0.1:4222`.
import { connect } from "@nats-io/transport-node";

/** @template {import("virtbus-types").Verb} V
 *  @typedef {import("virtbus-types").Request<V>} Request */
/** @template {import("virtbus-types").Verb} V
 *  @typedef {import("virtbus-types").Reply<V>} Reply */

const broker = await connect({ servers: process.argv[2] ?? "nats://127.0.0.1:4222" });

/** Sends a verb and returns its answer; `body` must fit the verb, or `npm run check` says so.
 *  @template {import("virtbus-types").Verb} V
 *  @param {string} domain @param {V} verb @param {Request<V>} [body] @returns {Promise<Reply<V>>} */
async function ask(domain, verb, body = {}) {
  const answer = await broker.request(`virt.v1.api.default.${domain}.${verb}`, JSON.stringify(body), { timeout: 65_000 });
  return answer.json();
}

const xml = "<domain type='test'><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>";
const made = await ask("web2", "create-xml", { args: { xml }, timeout_s: 30 });
if (made.error) throw new Error(`${made.error.code}: ${made.error.message}`);
const seen = await ask("web2", "get");
if (!seen.error) console.log(seen.result.domain.name, "is", seen.result.domain.state, "on", seen.result.domain.node);
for (const verb of /** @type {const} */ (["destroy", "undefine"])) {
  console.log(verb, (await ask("web2", verb)).ok);
}
await broker.drain();
