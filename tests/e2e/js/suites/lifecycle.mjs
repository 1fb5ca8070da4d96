// One domain through its life, in one of the three ways; every effect is looked at in every place where it shows.
import { equal, holds, is, match, ulid } from '../lib/check.mjs';
import {
  domainState,
  lifecycle,
  oneResult,
  order,
  present,
  readable,
  resSubject,
  terminalEvent,
} from '../lib/laws.mjs';
import { poll } from '../lib/log.mjs';
import { MEMORY_KIB, derivedUuid, domainXml, fresh, freshUuid } from '../lib/names.mjs';
import { owner, success } from '../lib/schema.mjs';

const STEPS = [
  { verb: 'create-xml', changed: true, state: 'running', events: ['started'] },
  { verb: 'suspend', changed: true, state: 'paused', events: ['suspended'] },
  { verb: 'resume', changed: true, state: 'running', events: ['resumed'] },
  { verb: 'start', changed: false, state: 'running', events: [], title: 'start (already running)' },
  { verb: 'destroy', changed: true, state: 'shutoff', events: ['stopped'] },
  { verb: 'start', changed: true, state: 'running', events: ['started'], title: 'start (again)' },
  { verb: 'destroy', changed: true, state: 'shutoff', events: ['stopped'], title: 'destroy (again)' },
  { verb: 'undefine', changed: true, state: null, events: ['undefined'] },
];

/** How the domain is named at its creation differs by way, so that each form of naming is seen. */
function newDomain(way, project, body) {
  const name = fresh(`life-${way}`);
  if (way === 'api') return { project, name, token: name, uuid: derivedUuid(project, body.id) };
  const uuid = freshUuid();
  return { project, name, token: uuid, uuid };
}

export async function lifecycleSuite(ctx, way) {
  const { bus, type, project } = ctx;
  const seen = {};
  const body = bus.body();
  const domain = { ...newDomain(way, project, body), type, memory: MEMORY_KIB[type] };
  ctx.remember(project, domain.uuid);
  for (const step of STEPS) {
    const label = `${way} ${step.title ?? step.verb}`;
    const creates = step.verb === 'create-xml';
    const args = { xml: domainXml(type, { name: domain.name }), ...(way === 'run' ? {} : { node: bus.node }) };
    const request = creates ? { ...body, args } : bus.body();
    const done = await bus.command(way, { project, domain: domain.token, verb: step.verb, body: request });
    done.uuid = domain.uuid;
    await checkStep({ ctx, label, step, domain, done, seen });
    if (creates && ctx.coordinator) await ownerLaw(ctx, label, domain, way === 'run' ? undefined : body.id);
  }
  await incarnationLaws(ctx, way, seen);
  await absoluteUndefine(ctx, way, domain);
}

async function checkStep({ ctx, label, step, domain, done, seen }) {
  const { bus, tap } = ctx;
  const { uuid, name, project } = domain;
  const gone = step.state === null;
  await tap.law(`${label}: result, field by field (§4)`, () => {
    match(
      present(done.answer, 'an answer', done),
      success({
        id: done.body.id,
        verb: step.verb,
        node: bus.node,
        project,
        changed: step.changed,
        uuid,
        name,
        state: step.state,
      }),
    );
  });
  // The state is read before anything else is waited for: who has the answer can read it.
  if (gone) {
    await tap.law(`${label}: state key removed when the answer came (§6)`, async () => {
      const found = await bus.stateKey(project, uuid);
      equal(found?.value, undefined, 'state key:');
      const key = `${bus.node}.${project}.${uuid}`;
      const removal = await bus.keys.wait(
        (one) => one.key === key && one.operation !== 'PUT',
        bus.bound,
        done.mark.keys,
      );
      equal(present(removal, 'the removal in the bucket').operation, 'PURGE', 'operation:');
      holds(removal.headers['nats-ttl'], 'a marker TTL', removal.headers);
    });
  } else {
    await tap.law(`${label}: state key, field by field, when the answer came (§6)`, async () => {
      const state = await readable(bus, done, domainState(bus, { ...domain, state: step.state }));
      seen[step.title ?? step.verb] = state;
      if (step.state === 'running' || step.state === 'paused') match(state.incarnation, ulid);
    });
  }
  await tap.law(`${label}: res on virt.v1.res.<node>.<project>.<id>`, () => resSubject(done, bus.node));
  await tap.law(`${label}: one terminal event, command.succeeded`, () =>
    terminalEvent(bus, done, 'succeeded', { uuid }),
  );
  await tap.law(`${label}: answer, res and terminal event are one document`, () => oneResult(done));
  const events = step.events.length > 0 ? step.events.join(', ') : 'none';
  await tap.law(`${label}: lifecycle events (${events}) with commandid, before the terminal event`, () => {
    lifecycle(bus, done, step.events, { uuid, running: step.state === 'running' });
  });
  await tap.law(`${label}: events stored, then the state key, then res`, () =>
    order(bus, tap, done, { label, uuid, gone }),
  );
}

async function ownerLaw(ctx, label, domain, id) {
  const { bus, tap } = ctx;
  await tap.law(`${label}: owner record`, async () => {
    const found = await poll(() => bus.key('virt_owners', domain.uuid), Boolean, bus.bound);
    match(found?.value, owner({ node: bus.node, project: domain.project, id }));
  });
}

async function incarnationLaws({ tap }, way, seen) {
  await tap.law(`${way}: one incarnation from start to stop, a new one for the next start`, () => {
    const first = seen['create-xml']?.incarnation;
    for (const title of ['suspend', 'resume', 'start (already running)']) {
      match(seen[title]?.incarnation, is(first));
    }
    match(seen['start (again)']?.incarnation, ulid);
    holds(seen['start (again)'].incarnation !== first, 'another incarnation', first);
  });
}

/** Undefined by this very ledger: undefine with a new id changes nothing, start finds nothing. */
async function absoluteUndefine(ctx, way, { project, uuid }) {
  const { bus, tap } = ctx;
  const again = await bus.command(way, {
    project,
    domain: uuid,
    verb: 'undefine',
    expect: way === 'api' ? 'answer' : 'event',
  });
  await tap.law(`${way} undefine (no longer there): succeeds, changed false`, () => {
    const { ok, changed } = present(again.answer, 'an answer', again);
    equal({ ok, changed }, { ok: true, changed: false });
  });
}
