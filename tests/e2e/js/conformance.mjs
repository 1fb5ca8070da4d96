#!/usr/bin/env node
// Black-box conformance client of the wire contract v1: node conformance.mjs --server nats://127.0.0.1:4222 --node n1 --type test
import { parseArgs } from 'node:util';
import { Bus } from './lib/bus.mjs';
import { equal, match } from './lib/check.mjs';
import { present } from './lib/laws.mjs';
import { containersOn, domainXml, fresh, freshUuid } from './lib/names.mjs';
import { success } from './lib/schema.mjs';
import { Tap } from './lib/tap.mjs';
import { envelopeSuite, namingSuite, preconditionSuite, repeatSuite } from './suites/commands.mjs';
import { discoverySuite } from './suites/discovery.mjs';
import { badInputSuite, refusedSuite } from './suites/errors.mjs';
import { fleetSuite } from './suites/fleet.mjs';
import { lifecycleSuite } from './suites/lifecycle.mjs';
import { logsSuite } from './suites/logs.mjs';
import { queriesSuite } from './suites/queries.mjs';
import { streamSuite } from './suites/stream.mjs';

const USAGE = `usage: conformance.mjs --server URL --node NAME --type test|qemu|lxc
  [--via api|cmd|run|all]  ways to send commands; with run alone nothing is asked of a coordinator (default all)
  [--project NAME]         project of the domains that are led through their life (default "default")
  [--root DIR]             file system of containers, with an /init; needed for lxc
  [--bound SECONDS]        how long each wait may take (default 10 for test, 60 for the others)`;
const BOUND_MS = { test: 10_000, qemu: 60_000, lxc: 60_000 };
const WAYS = ['api', 'cmd', 'run'];

function options() {
  const option = { type: 'string' };
  const { values } = parseArgs({
    options: {
      server: option,
      node: option,
      type: option,
      via: { ...option, default: 'all' },
      project: { ...option, default: 'default' },
      root: option,
      bound: option,
    },
  });
  const ways = values.via === 'all' ? WAYS : WAYS.filter((way) => way === values.via);
  const bound = values.bound ? Number(values.bound) * 1000 : BOUND_MS[values.type];
  if (!values.server || !values.node || !bound || ways.length === 0)
    throw new Error('--server, --node, --type or --via is missing or wrong');
  containersOn(values.root);
  return { ...values, ways, bound };
}

/** A domain made by `run`, which needs no coordinator; `state` as asked for. */
async function make(ctx, stem, project, state = 'running') {
  const { bus, tap, type } = ctx;
  const domain = { project, name: fresh(stem), uuid: freshUuid() };
  ctx.remember(project, domain.uuid);
  const body = bus.body({ args: { xml: domainXml(type, { name: domain.name }) } });
  const done = await bus.command('run', { project, domain: domain.uuid, verb: 'create-xml', body });
  if (state === 'shutoff') await bus.command('run', { project, domain: domain.uuid, verb: 'destroy' });
  await tap.law(`set-up: a domain ${domain.name} in project ${project}`, () => {
    match(
      present(done.answer, 'an answer', done),
      success({
        id: body.id,
        verb: 'create-xml',
        node: bus.node,
        project,
        changed: true,
        uuid: domain.uuid,
        name: domain.name,
        state: 'running',
      }),
    );
  });
  return { ...domain, id: body.id };
}

async function conformance(ctx) {
  const { ways, coordinator } = ctx;
  await logsSuite(ctx);
  await discoverySuite(ctx);
  for (const way of ways) await lifecycleSuite(ctx, way);
  const running = await make(ctx, 'running', ctx.ownProject);
  const stopped = await make(ctx, 'stopped', ctx.ownProject, 'shutoff');
  const third = await make(ctx, 'third', ctx.ownProject);
  await queriesSuite(ctx, running);
  if (coordinator) {
    await fleetSuite(ctx, {
      project: ctx.ownProject,
      uuids: [running.uuid, stopped.uuid, third.uuid],
      command: running,
    });
  }
  for (const way of ways) {
    await envelopeSuite(ctx, way, running);
    await repeatSuite(ctx, way, third);
    await preconditionSuite(ctx, way, stopped);
    await namingSuite(ctx, way);
    await refusedSuite(ctx, way, { running, stopped });
    await badInputSuite(ctx, way, running);
  }
}

/** Leaves nothing behind, whatever failed before. */
async function cleanUp({ bus, tap, made }) {
  await tap.law('clean-up: nothing is left', async () => {
    const left = [];
    const remove = async ([uuid, project]) => {
      await bus.command('run', { project, domain: uuid, verb: 'destroy', expect: 'res' });
      const done = await bus.command('run', { project, domain: uuid, verb: 'undefine', expect: 'res' });
      if (!done.answer?.ok) left.push(`${uuid} ${done.answer?.error?.code ?? 'no answer'}`);
    };
    await Promise.all([...made].map(remove));
    equal(left, []);
  });
}

async function main() {
  let chosen;
  try {
    chosen = options();
  } catch (error) {
    process.stderr.write(`${error.message}\n${USAGE}\n`);
    return 2;
  }
  const tap = new Tap();
  let bus;
  const connected = await tap.law(`connects to ${chosen.server}; the logs and buckets are there`, async () => {
    bus = await Bus.open(chosen);
  });
  if (!connected) return tap.end();
  const made = new Map();
  const ctx = {
    ...chosen,
    bus,
    tap,
    made,
    coordinator: chosen.via !== 'run',
    ownProject: fresh('conf'),
    otherProject: fresh('other'),
    remember: (project, uuid) => made.set(uuid, project),
  };
  try {
    await tap.law('the suites run to their end', () => conformance(ctx));
    await cleanUp(ctx);
    await streamSuite(ctx);
  } finally {
    await bus.close();
  }
  return tap.end();
}

process.exitCode = await main();
