// Bad input and what is refused: one `failed`, with the right code, and the log goes on (PROTOCOL §4).
import { equal, fields, holds, is, match } from '../lib/check.mjs';
import { failed, present, terminalEvent } from '../lib/laws.mjs';
import { domainXml, fresh, freshUuid } from '../lib/names.mjs';
import { success } from '../lib/schema.mjs';

const TOO_LARGE = 600 * 1024; // above 512 KiB, below 768 KiB
const INVALID = ['invalid'];

/** Input that is invalid whatever the fleet looks like: [title, changes to a good command]. */
function badInput(bus) {
  const raw = (text) => ({ body: text, headers: { 'Virt-Id': fresh('c') } });
  const body = (extra) => ({ body: bus.body(extra) });
  return [
    ['unknown verb', { verb: 'frobnicate' }],
    ['not JSON', raw('{oops')],
    ['JSON, but no object', raw('["start"]')],
    ['unknown field', body({ bogus: 1 })],
    ['unknown argument', body({ args: { bogus: 1 } })],
    ['unknown field in if', body({ if: { bogus: 1 } })],
    ['timeout_s of a wrong type', body({ timeout_s: 'soon' })],
    ['timeout_s 0', body({ timeout_s: 0 })],
    ['args of a wrong type', body({ args: [] })],
    ['if.state of a wrong type', body({ if: { state: 5 } })],
    ['id with a bad character', { ...body({ id: 'no dots.no spaces' }) }],
    ['id of 65 characters', body({ id: 'x'.repeat(65) })],
    ['id that begins with m-', body({ id: `m-${fresh('c')}` })],
    ['id of body and header differ', { ...body(), headers: { 'Virt-Id': fresh('c') } }],
    ['too large', raw(`{${' '.repeat(TOO_LARGE)}}`)],
    ['bad project token', { project: 'bad~project' }],
    ['bad domain token', { domain: 'bad~domain' }],
  ];
}

function badXml(type) {
  const uuid = freshUuid();
  const name = fresh('bad');
  const create = (xml, args = {}) => ({ domain: uuid, verb: 'create-xml', args: { xml, ...args } });
  return [
    ['DOCTYPE in XML', create(domainXml(type, { name, doctype: '<!DOCTYPE domain [<!ENTITY e "x">]>' }))],
    ['XML that is not well-formed', create('<domain type="test"><name>x</name>')],
    ['XML whose UUID contradicts the subject', create(domainXml(type, { name, uuid: freshUuid() }))],
    ['no xml', { domain: uuid, verb: 'create-xml', args: {} }],
    ['xml of a wrong type', create(5)],
    ['unknown argument beside xml', create(domainXml(type, { name }), { bogus: 1 })],
  ];
}

async function refuse(ctx, way, title, change, { codes = INVALID, outcomes, domain, expect } = {}) {
  const { bus, tap } = ctx;
  const { args, ...rest } = change;
  const body = args ? bus.body({ args }) : bus.body();
  const request = { project: domain.project, domain: domain.uuid, verb: 'start', body, ...rest };
  // The answer of a bad `api` request may or may not be an event as well: the document leaves it open.
  const done = await bus.command(way, { expect: way === 'api' ? 'answer' : 'event', ...request, ...expect });
  await tap.law(`${way}, ${title}: ${codes.join(' or ')}`, () => failed(done, { codes, outcomes }));
  if (way === 'api') return done;
  await tap.law(`${way}, ${title}: one event command.failed, data as on res`, () => {
    terminalEvent(bus, done, 'failed', { byWorker: done.terminal?.byWorker });
    const { terminal, res } = done;
    equal(res?.body?.error, terminal.data.error, 'error:');
    equal(res.tokens.slice(3, 5), [terminal.node, terminal.project], 'node and project of res:');
    holds(['_', bus.node].includes(terminal.node), `node ${bus.node} or _`, terminal.node);
    if (!terminal.byWorker && way === 'cmd') equal(Number(terminal.data.cmd), done.seq, 'data.cmd:');
  });
  return done;
}

export async function badInputSuite(ctx, way, domain) {
  const { bus, tap } = ctx;
  for (const [title, change] of badInput(bus)) {
    const done = await refuse(ctx, way, title, change, { domain });
    if (way === 'api' || !title.endsWith('token')) continue;
    await tap.law(`${way}, ${title}: _ in its place on evt and res, data.subject as received`, () => {
      const terminal = present(done.terminal, 'a terminal event', done);
      const place = title.includes('project') ? terminal.project : terminal.domain;
      equal(place, '_', 'token:');
      match(terminal.data, fields({ subject: is(done.subject) }));
    });
  }
  for (const [title, change] of badXml(ctx.type)) await refuse(ctx, way, title, change, { domain });
  const name = fresh('bad');
  if (way === 'run') {
    await refuse(
      ctx,
      way,
      'XML without a name',
      { domain: freshUuid(), verb: 'create-xml', args: { xml: domainXml(ctx.type) } },
      { domain },
    );
    await refuse(ctx, way, 'a name as domain token', { domain: domain.name }, { domain });
  } else {
    const change = { domain: name, verb: 'create-xml', args: { xml: domainXml(ctx.type, { name: fresh('other') }) } };
    await refuse(ctx, way, 'XML whose name contradicts the subject', change, { domain });
  }
  await tap.law(`${way}: after all that the log goes on`, async () => {
    const done = await bus.command(way, { project: domain.project, domain: domain.uuid, verb: 'start' });
    match(
      present(done.answer, 'an answer', done),
      success({
        id: done.body.id,
        verb: 'start',
        node: bus.node,
        project: domain.project,
        changed: false,
        uuid: domain.uuid,
        name: domain.name,
        state: 'running',
      }),
    );
  });
}

export async function refusedSuite(ctx, way, { running, stopped }) {
  const { bus, tap, type, otherProject } = ctx;
  const nowhere = way === 'run' ? ['not_found'] : ['not_found', 'node_unavailable'];
  const outcomes = ['none', 'unknown'];
  await refuse(
    ctx,
    way,
    'start of a domain that is nowhere',
    { domain: freshUuid() },
    { codes: nowhere, outcomes, domain: running },
  );
  if (way !== 'run') {
    await refuse(
      ctx,
      way,
      'start of a name that is nowhere',
      { domain: fresh('none') },
      { codes: nowhere, outcomes, domain: running },
    );
  }
  await refuse(
    ctx,
    way,
    'start in another project',
    { project: otherProject },
    { codes: ['not_found'], domain: running },
  );
  const placed = way === 'run' ? {} : { node: bus.node };
  const same = domainXml(type, { name: fresh('twice') });
  await refuse(
    ctx,
    way,
    'create-xml of a UUID that exists',
    { verb: 'create-xml', args: { xml: same, ...placed } },
    {
      codes: ['already_exists', 'conflict'],
      domain: running,
    },
  );
  const uuid = freshUuid();
  await refuse(
    ctx,
    way,
    'create-xml of a name that exists',
    {
      domain: uuid,
      verb: 'create-xml',
      args: { xml: domainXml(type, { name: running.name }), ...placed },
    },
    { codes: ['already_exists', 'conflict', 'hypervisor'], domain: running },
  );
  await tap.law(`${way}: what was refused left nothing behind`, async () => {
    equal(await bus.stateKey(running.project, uuid), undefined, 'state key:');
    match(
      (await bus.stateKey(running.project, running.uuid))?.value,
      fields({ name: is(running.name), state: is('running') }),
    );
  });
  const stopFirst = await refuse(
    ctx,
    way,
    'suspend of a stopped domain',
    { domain: stopped.uuid, verb: 'suspend' },
    {
      codes: ['hypervisor', 'conflict'],
      domain: stopped,
    },
  );
  await tap.law(`${way}: an error of the hypervisor has libvirt's code and domain inside`, () => {
    const { error } = present(stopFirst.answer, 'an answer', stopFirst);
    if (error.code !== 'hypervisor') return;
    holds(
      Number.isInteger(error.libvirt?.code) && Number.isInteger(error.libvirt.domain),
      'libvirt {code, domain}',
      error.libvirt,
    );
  });
  await tap.law(
    `${way}: undefine of a domain that is nowhere: changed false, or not_found, or node_unavailable`,
    async () => {
      const done = await bus.command(way, {
        project: running.project,
        domain: freshUuid(),
        verb: 'undefine',
        expect: way === 'api' ? 'answer' : 'event',
      });
      const answer = present(done.answer, 'an answer', done);
      if (answer.ok) return equal(answer.changed, false, 'changed:');
      failed(done, { codes: nowhere, outcomes });
    },
  );
}
