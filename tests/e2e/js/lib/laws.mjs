// Laws that hold for every command, shared by the suites.
import { Mismatch, equal, fields, holds, is, match, show, string, ulid } from './check.mjs';
import { subjects } from './names.mjs';
import { CODES, RESULT_FIELDS, failure, observed } from './schema.mjs';

const CLOCK_SLACK_MS = 3; // client's and server's clocks are one: the precision of Date.now() and of the stamps
const ZERO_SEQUENCE = '0'.repeat(16);

export const pick = (result) =>
  Object.fromEntries(
    RESULT_FIELDS.filter((key) => result?.[key] !== undefined && result[key] !== null).map((key) => [key, result[key]]),
  );

export function present(value, what, done) {
  if (value === undefined) throw new Mismatch(what, done?.refused ?? done?.reply?.error ?? 'nothing in time');
  return value;
}

/** The answer, the message on `res` and the data of the terminal event are one document. */
export function oneResult(done) {
  const data = pick(present(done.terminal, 'a terminal event', done).data);
  equal(pick(present(done.res, 'a message on res', done).body), data, 'res as the terminal event:');
  if (done.way === 'api') equal(pick(done.reply.body), data, 'answer as the terminal event:');
}

/** `virt.v1.res.<node>.<project>.<id>`. */
export function resSubject(done, node = done.terminal?.node) {
  equal(present(done.res, 'a message on res', done).subject, subjects.res(node, done.project, done.id));
}

/** The terminal event: its type, who wrote it, and that there is no second one by now. */
export function terminalEvent(bus, done, kind, { uuid, byWorker = true } = {}) {
  const event = present(done.terminal, `event command.${kind} of ${done.id}`, done);
  match(
    event.raw,
    fields({
      type: is(`virt.v1.command.${kind}`),
      commandid: is(done.id),
      source: byWorker ? is(`/virt/nodes/${bus.node}`) : string,
    }),
  );
  if (uuid) equal([event.node, event.project, event.domain], [bus.node, done.project, uuid], 'tokens');
  const all = bus.evt.filter(
    (record) => record.terminal && record.commandId === done.id && record.project === event.project,
  );
  equal(all.length, 1, 'terminal events of the command:');
}

/** The lifecycle events a command caused: those it must cause, each with detail and command id, before the terminal one. */
export function lifecycle(bus, done, expected, { uuid, running }) {
  const terminal = present(done.terminal, 'a terminal event', done);
  const seen = bus.evt.filter(
    (record) => record.lifecycle && record.domain === uuid && record.seq < terminal.seq,
    done.mark.evt,
  );
  for (const name of expected) {
    const event = present(
      seen.find((record) => record.lifecycle === name),
      `lifecycle.${name} before the terminal event`,
      done,
    );
    match(
      event.raw,
      fields({
        type: is(`virt.v1.lifecycle.${name}`),
        commandid: is(done.id),
        subject: is(uuid),
        project: is(done.project),
        data: fields({ event: is(name), detail: string }),
        ...(running ? { incarnation: ulid } : {}),
      }),
    );
  }
  if (expected.length === 0)
    equal(
      seen.map((record) => record.lifecycle),
      [],
      'lifecycle events:',
    );
  const late = bus.evt.filter(
    (record) => record.lifecycle && record.raw.commandid === done.id && record.seq > terminal.seq,
  );
  equal(
    late.map((record) => record.lifecycle),
    [],
    'lifecycle events of the command after its terminal event:',
  );
}

/** Who has the answer can read the state. Gives the state read. */
export async function readable(bus, done, spec) {
  const found = await bus.stateKey(done.project, done.uuid);
  match(found?.value, spec);
  return found.value;
}

/** events stored -> state key stored -> res, by the broker's time stamps. */
export async function order(bus, tap, done, { label, uuid, gone }) {
  const terminal = present(done.terminal, 'a terminal event', done);
  const res = present(done.res, 'a message on res', done);
  const latest = res.at + CLOCK_SLACK_MS;
  holds(terminal.stamp <= latest, `terminal event stored before res (${latest})`, terminal.stamp);
  const effect = bus
    .caused(done)
    .filter((record) => record.lifecycle && record.domain === uuid)
    .at(-1);
  if (!effect) return;
  const key = `${bus.node}.${done.project}.${uuid}`;
  const shows = (record) =>
    record.key === key &&
    (gone
      ? record.operation !== 'PUT'
      : record.value?.epoch === effect.raw.epoch && record.value.sequence >= effect.raw.sequence);
  const stored = present(
    await bus.keys.wait(shows, bus.bound, done.mark.keys),
    `state key ${key} that shows lifecycle.${effect.lifecycle}`,
  );
  holds(effect.stamp <= stored.stamp, `state key stored after ${effect.stamp}, its event`, stored.stamp);
  holds(stored.stamp <= latest, `state key stored before res (${latest})`, stored.stamp);
  if (done.way === 'api' && stored.stamp > done.reply.at + CLOCK_SLACK_MS) {
    tap.note(`${label}: state key stored after the api answer (tolerated)`);
  }
  const last = bus.keys.filter((record) => shows(record) && record.stamp <= latest, done.mark.keys).at(-1);
  if (last.stamp < terminal.stamp)
    tap.note(`${label}: state key stored after its event but before the terminal event (tolerated)`);
}

/** The state key names an event that had been stored when the key was (checked over all that was seen). */
export function namedEvent(bus, record) {
  const { epoch, sequence, node } = record.value;
  if (sequence === ZERO_SEQUENCE) return;
  const inView = bus.evt.records.some((event) => event.raw.epoch === epoch && event.raw.sequence <= sequence);
  if (!inView) return;
  const event = bus.evt.records.find(
    (one) => one.raw.epoch === epoch && one.raw.sequence === sequence && one.node === node,
  );
  holds(event, `event ${node}.${epoch}.${sequence} of state key ${record.key}`, 'no such event');
  holds(event.stamp <= record.stamp, `state key ${record.key} stored after its event (${event.stamp})`, record.stamp);
}

/** A failure in the form of §4, in each place where it shows. */
export function failed(done, { id = done.id, codes, outcomes }) {
  const spec = failure({ id, codes, outcomes });
  if (done.way === 'api') return failedAnswer(done.reply, spec);
  match(present(done.res, 'a message on res', done).body, spec);
  if (done.terminal) match(done.terminal.data, spec);
}

/** A failed answer of a service: the document and the two headers of NATS micro. */
export function failedAnswer(reply, spec) {
  match(present(reply.body, 'an answer', { reply }), spec);
  const { code } = reply.body.error;
  equal(reply.headers['nats-service-error'], code, 'Nats-Service-Error:');
  equal(Number(reply.headers['nats-service-error-code']), CODES[code], 'Nats-Service-Error-Code:');
}

export const answered = (reply) => {
  if (reply.body?.ok !== true) throw new Mismatch('an answer with ok: true', reply.error ?? show(reply.body));
  return reply.body.result;
};

export const domainState = (bus, { uuid, name, project, type, state, memory }) =>
  observed({
    uuid,
    name,
    project,
    node: bus.node,
    type,
    state,
    memory_kib: memory,
    role: 'owner',
    persistent: true,
  });
