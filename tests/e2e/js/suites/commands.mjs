// Ids, repeats, preconditions, deadlines, headers and naming of commands (PROTOCOL §1, §3, §4).
import { equal, fields, holds, instant, is, match, ulid } from '../lib/check.mjs';
import { failed, oneResult, pick, present, terminalEvent } from '../lib/laws.mjs';
import { sleep } from '../lib/log.mjs';
import { derivedUuid, domainXml, fresh, freshUuid } from '../lib/names.mjs';
import { success } from '../lib/schema.mjs';

const NO_SECOND_EVENT_MS = 300;

const changed = (done, value) => {
  const { ok, changed: got } = present(done.answer, 'an answer', done);
  equal({ ok, changed: got }, { ok: true, changed: value });
};

const terminals = (bus, id) => bus.evt.filter((record) => record.terminal && record.commandId === id);

/** The same command again, in the same way: the first outcome, no second effect, no second event. */
export async function repeatSuite({ bus, tap }, way, { project, uuid }) {
  const send = (verb, body, expect) => bus.command(way, { project, domain: uuid, verb, body, expect });
  const body = bus.body();
  const first = await send('destroy', body);
  await tap.law(`${way} repeat: the first one takes effect`, () => changed(first, true));
  await send('start', bus.body());
  const second = await send('destroy', body, way === 'api' ? 'answer' : 'res');
  await tap.law(`${way} repeat: answered with the first outcome`, () => {
    const { duration_ms: _, ...again } = pick(present(second.answer, 'an answer', second));
    const { duration_ms: __, ...before } = pick(present(first.answer, 'an answer', first));
    equal(again, before);
  });
  await sleep(NO_SECOND_EVENT_MS);
  await tap.law(`${way} repeat: no second effect, no second event`, async () => {
    match((await bus.stateKey(project, uuid))?.value, fields({ state: is('running') }));
    equal(terminals(bus, body.id).length, 1, 'terminal events:');
    equal(
      bus.caused({ ...first, id: body.id }).filter((record) => record.lifecycle === 'stopped').length,
      1,
      'lifecycle.stopped:',
    );
  });
  bus.exempt.add(body.id);
  const others = [
    ['another body', 'destroy', { ...body, timeout_s: body.timeout_s + 1 }],
    ['another subject', 'suspend', body],
  ];
  for (const [title, verb, changedBody] of others) {
    const done = await send(verb, changedBody, way === 'api' ? 'answer' : 'res');
    await tap.law(`${way}, same id with ${title}: conflict, nothing done`, async () => {
      // On `cmd` two results tell of it: under the id it got for itself, and under the one that was taken.
      const id = way === 'cmd' ? undefined : body.id;
      failed({ ...done, terminal: undefined }, { id, codes: ['conflict'] });
      match((await bus.stateKey(project, uuid))?.value, fields({ state: is('running') }));
    });
  }
  const count = terminals(bus, body.id).length;
  if (count !== 1)
    tap.note(
      `${way}: ids used again with another body or subject made ${count - 1} further terminal events (tolerated)`,
    );
}

/** `if` is judged at the head of the queue; not met: conflict, nothing done. The domain is stopped before and after. */
export async function preconditionSuite({ bus, tap }, way, { project, uuid }) {
  const send = (verb, condition) =>
    bus.command(way, { project, domain: uuid, verb, body: bus.body({ if: condition }) });
  const unmet = [
    { state: 'running' },
    { generation: 7 },
    { incarnation: '01ARZ3NDEKTSV4RRFFQ69G5FAV' },
    { state: 'shutoff', generation: 7 },
  ];
  for (const condition of unmet) {
    const done = await send('start', condition);
    await tap.law(`${way}, if ${JSON.stringify(condition)} not met: conflict, nothing done`, async () => {
      failed(done, { codes: ['conflict'] });
      terminalEvent(bus, done, 'failed', { byWorker: done.terminal?.byWorker });
      match((await bus.stateKey(project, uuid))?.value, fields({ state: is('shutoff') }));
    });
  }
  const started = await send('start', { state: 'shutoff' });
  await tap.law(`${way}, if state met: done`, () => changed(started, true));
  const incarnation = (await bus.stateKey(project, uuid))?.value.incarnation;
  const stopped = await send('destroy', { state: 'running', incarnation });
  await tap.law(`${way}, if state and incarnation met: done`, () => {
    match(incarnation, ulid);
    changed(stopped, true);
  });
  const again = await bus.command(way, { project, domain: uuid, verb: 'destroy' });
  await tap.law(`${way} destroy (stopped): changed false`, () => changed(again, false));
}

/** Where the id comes from, what headers do, how the domain is named. The domain runs before and after. */
export async function envelopeSuite(ctx, way, { project, uuid, name }) {
  const { bus, tap } = ctx;
  const send = (change) => bus.command(way, { project, domain: uuid, verb: 'start', body: '', ...change });
  const empty = await send({});
  await tap.law(`${way}, empty body: all defaults`, () => changed(empty, false));
  await tap.law(`${way}, no id: ${way === 'api' ? 'a fresh one' : `m-${way}-<sequence>`}`, () => {
    const { id } = present(empty.answer, 'an answer', empty);
    if (way === 'api') return holds(/^[A-Za-z0-9_-]{1,64}$/.test(id), 'an id', id);
    equal(id, `m-${way}-${empty.seq}`);
    equal(empty.terminal?.raw.commandid, id, 'commandid:');
  });
  const id = fresh('c');
  const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
  const headers = { 'Virt-Id': id, traceparent: `00-${traceId}-00f067aa0ba902b7-01` };
  const traced = await send({ headers, body: { actor: 'conformance' } });
  await tap.law(`${way}, id in header Virt-Id`, () => {
    equal(present(traced.answer, 'an answer', traced).id, id);
    oneResult(traced);
  });
  await tap.law(`${way}, traceparent: the same trace on the events`, () => {
    const { traceparent } = present(traced.terminal, 'a terminal event', traced).raw;
    if (traceparent === undefined) return tap.note(`${way}: terminal event without traceparent (tolerated)`);
    equal(traceparent.split('-')[1], traceId);
  });
  const upper = await send({ domain: uuid.toUpperCase() });
  await tap.law(`${way}, upper-case UUID: the same domain, lower case on evt`, () => {
    changed(upper, false);
    terminalEvent(bus, upper, 'succeeded', { uuid });
  });
  if (way !== 'run') {
    const named = await send({ domain: name });
    await tap.law(`${way}, by name: the same domain, its UUID on evt`, () => {
      changed(named, false);
      terminalEvent(bus, named, 'succeeded', { uuid });
    });
  }
  await delivery(ctx, way, traced, { project, uuid });
  if (way === 'run') await expired(ctx, { project, uuid });
}

/** VIRT_RUN's republish, and on what the coordinator routes the mark of where it came from. */
async function delivery({ bus, tap }, way, done, { project, uuid }) {
  if (way === 'api') return;
  const mark = way === 'run' ? 'nats-sequence' : 'virt-cmd';
  await tap.law(
    `${way}: republished on virt.v1.dlv with ${mark} ${way === 'run' ? 'and Nats-Time-Stamp' : 'of its copy'}`,
    async () => {
      const subject = `virt.v1.dlv.${bus.node}.${project}.${uuid}.start`;
      const mine = (record) => record.subject === subject && record.headers[mark] === String(done.seq);
      const copy = present(await bus.dlv.wait(mine, bus.bound), `a message on ${subject} with ${mark} ${done.seq}`);
      match(copy.headers['nats-time-stamp'], instant);
      const id = copy.headers['virt-id'] ?? copy.body.id;
      equal(id, done.id, 'id:');
    },
  );
}

async function expired({ bus, tap }, { project, uuid }) {
  const headers = { 'Virt-Deadline': '2020-01-01T00:00:00Z' };
  const done = await bus.command('run', { project, domain: uuid, verb: 'destroy', headers });
  await tap.law('run, Virt-Deadline in the past: expired, deadline, nothing done', async () => {
    terminalEvent(bus, done, 'expired', { uuid });
    failed(done, { codes: ['deadline'] });
    match((await bus.stateKey(project, uuid))?.value, fields({ state: is('running') }));
  });
}

/** What the XML lacks is filled in from the subject, and the UUID from project and id; UUIDs compare without case. */
export async function namingSuite(ctx, way) {
  const { bus, tap, type, ownProject: project } = ctx;
  const create = async (title, token, uuid, name, xml, body) => {
    ctx.remember(project, uuid);
    const args = { xml, ...(way === 'run' ? {} : { node: bus.node }) };
    const request = { ...body, args };
    const done = await bus.command(way, { project, domain: token, verb: 'create-xml', body: request });
    await tap.law(`${way} create-xml, ${title}`, () => {
      match(
        present(done.answer, 'an answer', done),
        success({
          id: body.id,
          verb: 'create-xml',
          node: bus.node,
          project,
          changed: true,
          uuid,
          name,
          state: 'running',
        }),
      );
      terminalEvent(bus, done, 'succeeded', { uuid });
    });
    return request;
  };
  const [uuid, upper] = [freshUuid(), fresh('upper')];
  await create(
    'upper-case UUID in the XML',
    uuid,
    uuid,
    upper,
    domainXml(type, { name: upper, uuid: uuid.toUpperCase() }),
    bus.body(),
  );
  if (way === 'run') return;
  const [body, filled] = [bus.body(), fresh('filled')];
  const derived = derivedUuid(project, body.id);
  const request = await create(
    'no name in the XML: that of the subject; no UUID: UUIDv5',
    filled,
    derived,
    filled,
    domainXml(type),
    body,
  );
  const again = await bus.command(way, {
    project,
    domain: filled,
    verb: 'create-xml',
    body: request,
    expect: way === 'api' ? 'answer' : 'res',
  });
  await tap.law(`${way} create-xml repeated: the same domain, the first outcome`, () => {
    changed(again, true);
    equal(again.answer.domain.uuid, derived);
    equal(terminals(bus, body.id).length, 1, 'terminal events:');
  });
}
