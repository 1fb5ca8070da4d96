// Laws over everything that was seen on VIRT_EVT and in virt_domains (PROTOCOL §5, §6).
import {
  Mismatch,
  any,
  digits16,
  either,
  equal,
  fields,
  holds,
  is,
  match,
  object,
  optional,
  string,
  text,
  ulid,
  utcMicros,
  uuid,
} from '../lib/check.mjs';
import { DETAILED, LIBVIRT_EVENTS, OWN_EVENTS } from '../lib/events.mjs';
import { namedEvent } from '../lib/laws.mjs';
import { observed } from '../lib/schema.mjs';

const ZERO = '0'.repeat(16);
const number = (sequence) => Number.parseInt(sequence, 10);

export async function streamSuite({ bus, tap }) {
  const events = bus.evt.records.filter((record) => !record.broken);
  const workers = events.filter((record) => record.byWorker);
  /** One law over many records: the first that breaks it is told, with its subject and place. */
  const each = (name, records, check) =>
    tap.law(`${name} (${records.length} seen)`, () => {
      holds(records.length > 0, 'at least one', 'none');
      for (const record of records) {
        try {
          check(record);
        } catch (error) {
          if (!(error instanceof Mismatch)) throw error;
          throw new Mismatch(`at ${record.subject ?? record.key} (${record.seq}): ${error.message}`, 'that');
        }
      }
    });

  await each('event: Content-Type application/cloudevents+json', events, ({ headers }) => {
    equal(headers['content-type']?.split(';')[0], 'application/cloudevents+json');
  });
  await each('event: parsed and validated by the CloudEvents SDK, structured mode', events, (record) => {
    holds(record.parsed, 'a CloudEvent', record.error);
    equal([record.parsed.specversion, record.parsed.id, record.parsed.type], ['1.0', record.raw.id, record.raw.type]);
  });
  await each('event: Nats-Msg-Id is the id', events, ({ headers, raw }) => equal(headers['nats-msg-id'], raw.id));
  await each('event: id is <node>.<epoch>.<sequence>', events, ({ raw, byWorker, node }) => {
    if (byWorker) return equal(raw.id, `${node}.${raw.epoch}.${raw.sequence}`);
    holds(raw.id.split('.').length === 3, 'three tokens', raw.id);
  });
  await tap.law('event: no id twice', () => equal(new Set(events.map((record) => record.raw.id)).size, events.length));
  await each('event: type is virt.v1.<event>, the tokens after the domain', events, ({ raw, event }) => {
    equal(raw.type, `virt.v1.${event.join('.')}`);
  });
  await each('event: its name is in the list', events, ({ event: [kind, detail, ...rest] }) => {
    if (OWN_EVENTS[kind])
      return holds(OWN_EVENTS[kind].includes(detail) && rest.length === 0, `${kind}.<known>`, `${kind}.${detail}`);
    holds(LIBVIRT_EVENTS.includes(kind), 'a name of virsh event --list', kind);
    equal([detail, ...rest].filter(Boolean).length, DETAILED.includes(kind) ? 1 : 0, `detail tokens of ${kind}:`);
  });
  await each('event: node, project and subject as in the tokens', events, ({ raw, node, project, domain }) => {
    equal(raw.node ?? '_', node, 'node:');
    equal(raw.project ?? '_', project, 'project:');
    if (domain !== '_') equal(raw.subject, domain, 'subject:');
  });
  await each('event: required attributes', events, ({ raw }) =>
    match(
      raw,
      fields({
        specversion: is('1.0'),
        source: text,
        time: utcMicros,
        datacontenttype: is('application/json'),
        data: object,
        domainname: optional(either(string, is(null))),
        commandid: optional(text),
        incarnation: optional(ulid),
        traceparent: optional(text),
        synthetic: optional(any),
      }),
    ),
  );
  await each('event of a worker: source, epoch, sequence, previous', workers, ({ raw, node }) =>
    match(
      raw,
      fields({
        source: is(`/virt/nodes/${node}`),
        epoch: ulid,
        sequence: digits16,
        previous: digits16,
      }),
    ),
  );
  const coordinators = events.filter((record) => !record.byWorker);
  if (coordinators.length > 0) {
    await each('event of a coordinator: source', coordinators, ({ raw }) =>
      holds(/^\/virt\/coordinators\/.+/.test(raw.source), 'its source', raw.source),
    );
  }
  const lifecycle = events.filter((record) => record.lifecycle);
  await each("lifecycle event: a UUID, the domain's name, data.event and data.detail", lifecycle, (record) => {
    match(record.domain, uuid);
    match(record.raw, fields({ domainname: text, data: fields({ event: is(record.lifecycle), detail: string }) }));
  });
  await continuity(tap, each, workers);
  await commands(bus, tap, events);
  await keys(bus, each);
}

async function continuity(tap, each, workers) {
  const reached = new Map(); // node -> {epoch, sequence}
  await each('worker: sequence contiguous in stream order, epochs follow each other', workers, ({ raw, node }) => {
    const last = reached.get(node);
    reached.set(node, { epoch: raw.epoch, sequence: number(raw.sequence) });
    if (!last) return;
    if (last.epoch === raw.epoch) return equal(number(raw.sequence), last.sequence + 1, 'sequence:');
    holds(raw.epoch > last.epoch, `an epoch after ${last.epoch}`, raw.epoch);
    equal(number(raw.sequence), 1, 'first sequence of an epoch:');
  });
  const first = workers.filter((record) => number(record.raw.sequence) === 1);
  if (first.length > 0) {
    await each('worker: sequence 1 is node.online with data.previous', first, ({ event, data, raw, node, domain }) => {
      equal([event.join('.'), domain, raw.subject, data.node], ['node.online', '_', node, node]);
      holds('previous' in data, 'data.previous', data);
    });
  }
  const start = new Map(); // node.epoch -> first sequence in view
  const chain = new Map(); // node.epoch.project.domain -> last sequence
  await each(
    'worker: previous chains the events of each (node, project, domain)',
    workers,
    ({ raw, node, project, domain }) => {
      const epoch = `${node}.${raw.epoch}`;
      if (!start.has(epoch)) start.set(epoch, raw.sequence);
      const key = `${epoch}.${project}.${domain}`;
      const before = chain.get(key);
      chain.set(key, raw.sequence);
      if (before) return equal(raw.previous, before, 'previous:');
      const from = start.get(epoch);
      if (number(from) === 1) return equal(raw.previous, ZERO, 'previous of the first:');
      holds(raw.previous < from, `previous before ${from}, where our view begins`, raw.previous);
    },
  );
}

async function commands(bus, tap, events) {
  const terminal = events.filter((record) => record.terminal);
  await tap.law(`command: exactly one terminal event (${terminal.length} seen)`, () => {
    const seen = new Map();
    for (const record of terminal) {
      const key = `${record.project}/${record.commandId}`;
      holds(!seen.has(key) || bus.exempt.has(record.commandId), `one terminal event of ${key}`, [
        seen.get(key),
        record.subject,
      ]);
      seen.set(key, record.subject);
      equal(record.data.id, record.commandId, 'data.id and commandid:');
    }
  });
  await tap.law('command: no lifecycle event of it after its terminal event', () => {
    const ended = new Map();
    for (const record of events) {
      const key = `${record.project}/${record.raw.commandid}`;
      if (record.terminal) ended.set(key, record.seq);
      else if (record.lifecycle && record.raw.commandid)
        holds(!ended.has(key), `nothing after ${ended.get(key)}`, `${record.subject} (${record.seq})`);
    }
  });
}

async function keys(bus, each) {
  const puts = bus.keys.records.filter((record) => !record.broken && record.operation === 'PUT');
  await each('state key: a document of §6, its key node.project.uuid', puts, (record) => {
    match(record.value, observed());
    equal(record.key, `${record.value.node}.${record.value.project}.${record.value.uuid}`);
  });
  await each('state key: stored after the event it names', puts, (record) => namedEvent(bus, record));
  const reached = new Map();
  await each('state key: epoch and sequence never move back', puts, ({ key, value }) => {
    const now = `${value.epoch}.${value.sequence}`;
    holds(now >= (reached.get(key) ?? ''), `at or after ${reached.get(key)}`, now);
    reached.set(key, now);
  });
}
