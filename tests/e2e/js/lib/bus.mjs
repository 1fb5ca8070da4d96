// The connection, what is overheard on it, and how a command is sent in each of the three ways.
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { connect, createInbox, headers as newHeaders } from '@nats-io/transport-node';
import { Mismatch } from './check.mjs';
import { headersOf, readEvent, readKey } from './events.mjs';
import { Log, tail } from './log.mjs';
import { ROOT, STREAMS, fresh, subjects } from './names.mjs';

const HISTORY = 20_000;
const SILENCE = 5; // commands in a row without any effect

export class Bus {
  #silent = 0;

  /** Connects and begins to listen. Throws where the logs of the system under test do not exist within the bound. */
  static async open({ server, node, bound }) {
    const bus = new Bus();
    bus.node = node;
    bus.bound = bound;
    bus.exempt = new Set(); // ids that were sent twice with differing content on purpose
    bus.nc = await connect({ servers: server, name: 'conformance', timeout: bound, reconnect: false });
    try {
      bus.js = jetstream(bus.nc, { timeout: bound });
      bus.jsm = await jetstreamManager(bus.nc, { timeout: bound });
      bus.kvm = new Kvm(bus.js);
      bus.evt = await bus.#follow(STREAMS.evt, readEvent);
      bus.keys = await bus.#follow('KV_virt_domains', readKey);
    } catch (error) {
      await bus.close();
      throw error;
    }
    bus.res = bus.#overhear(`${ROOT}.res.>`);
    bus.dlv = bus.#overhear(`${ROOT}.dlv.>`);
    await bus.nc.flush();
    return bus;
  }

  async #follow(stream, read) {
    const { state } = await this.jsm.streams.info(stream);
    return tail(this.js, stream, Math.max(1, state.first_seq, state.last_seq - HISTORY + 1), read);
  }

  #overhear(subject) {
    const log = new Log();
    this.nc.subscribe(subject, {
      callback: (error, message) => {
        if (error) return;
        let body;
        try {
          body = message.json();
        } catch {
          body = message.string();
        }
        log.push({
          subject: message.subject,
          tokens: message.subject.split('.'),
          body,
          headers: headersOf(message),
          at: Date.now(),
        });
      },
    });
    return log;
  }

  async close() {
    this.evt?.stop();
    this.keys?.stop();
    await this.nc.close();
  }

  /** One request, one answer: `{body, headers, error}`; an absent answer is an error, not an exception. */
  async request(subject, body, headers = {}) {
    try {
      const message = await this.nc.request(subject, encode(body), {
        timeout: this.bound,
        headers: toHeaders(headers),
      });
      const answer = { headers: headersOf(message), at: Date.now() };
      try {
        answer.body = message.json();
      } catch {
        answer.error = `no JSON: ${message.string().slice(0, 100)}`;
      }
      return answer;
    } catch (error) {
      return { headers: {}, error: String(error.message ?? error), at: Date.now() };
    }
  }

  api(project, domain, verb, args = {}) {
    return this.request(subjects.api(project, domain, verb), { args });
  }

  ask(project, domain, query, node = this.node) {
    return this.request(subjects.ask(node, project, domain, query), '');
  }

  /** All answers to one request within `ms`. */
  async gather(subject, ms) {
    const answers = [];
    const inbox = createInbox();
    const subscription = this.nc.subscribe(inbox, { callback: (error, message) => !error && answers.push(message) });
    this.nc.publish(subject, '', { reply: inbox });
    await new Promise((resolve) => setTimeout(resolve, ms));
    subscription.unsubscribe();
    return answers.filter((message) => message.data.length > 0).map((message) => message.json());
  }

  /** The value under a key, with its operation; undefined where the key or bucket is not there. */
  async key(bucket, key) {
    const kv = await this.kvm.open(bucket);
    const entry = await kv.get(key);
    return entry?.operation === 'PUT' ? { value: entry.json(), revision: entry.revision } : undefined;
  }

  stateKey(project, uuid) {
    return this.key('virt_domains', `${this.node}.${project}.${uuid}`);
  }

  /** A body with a fresh id and a `timeout_s` below our own patience. */
  body(extra = {}) {
    return { id: fresh('c'), timeout_s: Math.max(1, Math.floor((this.bound / 1000) * 0.8)), ...extra };
  }

  /**
   * Sends one command and waits for what must follow.
   * `expect`: 'event' (terminal event and res), 'res' (res only), 'answer' (of a request only; an event may come).
   */
  async command(way, { project, domain, verb, body = this.body(), headers = {}, expect = 'event' }) {
    const mark = { evt: this.evt.length, res: this.res.length, keys: this.keys.length };
    const subject =
      way === 'run' ? subjects.run(this.node, project, domain, verb) : subjects[way](project, domain, verb);
    const done = { way, subject, project, verb, mark, body };
    const ids = new Set([body?.id, headers['Virt-Id']].filter((id) => typeof id === 'string'));
    if (way === 'api') {
      done.reply = await this.request(subject, body, headers);
      if (done.reply.body?.id) ids.add(done.reply.body.id);
    } else {
      try {
        const ack = await this.js.publish(subject, encode(body), { headers: toHeaders(headers), timeout: this.bound });
        done.seq = ack.seq;
        ids.add(`m-${way}-${ack.seq}`);
      } catch (error) {
        done.refused = String(error.message ?? error);
        return done;
      }
    }
    done.ids = ids;
    const ours = (record) => record.terminal && ids.has(record.commandId);
    const ourRes = (record) => ids.has(record.tokens[5]);
    [done.terminal, done.res] = await Promise.all([
      expect === 'event' ? this.evt.wait(ours, this.bound, mark.evt) : undefined,
      expect !== 'answer' ? this.res.wait(ourRes, this.bound, mark.res) : undefined,
    ]);
    this.#listenFor(done);
    done.id = done.res?.tokens[5] ?? done.terminal?.commandId ?? done.reply?.body?.id ?? body?.id;
    /** What the way's own answer is: the reply, or the message on `res`. */
    done.answer = way === 'api' ? done.reply.body : done.res?.body;
    return done;
  }

  /** Gives up on a system that does not answer at all, so that a whole run stays bounded too. */
  #listenFor({ terminal, res, reply, subject }) {
    this.#silent = terminal || res || reply?.body ? 0 : this.#silent + 1;
    if (this.#silent >= SILENCE)
      throw new Mismatch('an answer, event or res', `none to ${SILENCE} commands, last ${subject}`);
  }

  /** The events of a command that are not its terminal one. */
  caused(done) {
    return this.evt.filter((record) => !record.terminal && record.raw.commandid === done.id, done.mark.evt);
  }
}

const encode = (body) => (typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body));

function toHeaders(plain) {
  const headers = newHeaders();
  for (const [key, value] of Object.entries(plain)) headers.set(key, value);
  return headers;
}
