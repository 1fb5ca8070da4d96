#!/usr/bin/env node
// Tries out the conformance client itself: on an empty server it must end in time, on a toy of the contract everything must
// hold, and each fault put into the toy must be found. The system under test has no part in it.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { equal, holds } from './lib/check.mjs';
import { parseCloudEvent } from './lib/events.mjs';
import { Log } from './lib/log.mjs';
import { derivedUuid } from './lib/names.mjs';
import { Tap } from './lib/tap.mjs';
import { startToy } from './selfcheck/coordinator.mjs';
import { startServer } from './selfcheck/server.mjs';

/** Fault of the toy -> a law that must break. */
const FAULTS = {
  gap: /^not ok - worker: sequence contiguous/m,
  chain: /^not ok - worker: previous chains/m,
  'msg-id': /^not ok - event: Nats-Msg-Id is the id/m,
  'no-commandid': /^not ok - run suspend: lifecycle events/m,
  'two-terminals': /^not ok - command: exactly one terminal event/m,
  'early-res': /^not ok - run suspend: events stored, then the state key, then res/m,
  'no-key': /^not ok - run suspend: state key, field by field/m,
  silent: /^not ok - the suites run to their end: expected an answer, event or res got none/m,
  repeat: /^not ok - run repeat: no second effect, no second event/m,
};

function run(server, ...args) {
  const program = join(import.meta.dirname, 'conformance.mjs');
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [program, '--server', server, '--node', 'n1', ...args],
      { maxBuffer: 1 << 26 },
      (error, stdout, stderr) => {
        resolve({ code: error ? error.code : 0, stdout, stderr });
      },
    );
  });
}

async function withToy(options, use) {
  const server = await startServer();
  try {
    const stop = await startToy({ server: server.url, node: 'n1', ...options });
    try {
      return await use(server.url);
    } finally {
      await stop();
    }
  } finally {
    await server.stop();
  }
}

const unmet = (output) =>
  output
    .split('\n')
    .filter((line) => line.startsWith('not ok') || /passed|rror/.test(line))
    .slice(0, 20)
    .join('\n');
const tap = new Tap();

await tap.law('a wait ends in time, with nothing', async () => {
  const begin = performance.now();
  equal(await new Log().wait(() => true, 100), undefined);
  holds(performance.now() - begin < 1000, 'less than 1 s', performance.now() - begin);
});

await tap.law('the SDK takes a structured event, and refuses a broken one', () => {
  const headers = { 'content-type': 'application/cloudevents+json' };
  const event = {
    specversion: '1.0',
    id: 'a',
    source: '/virt/nodes/n1',
    type: 't',
    time: '2026-01-01T00:00:00.000000Z',
    data: { event: 'started' },
  };
  equal(parseCloudEvent(headers, JSON.stringify(event)).data, { event: 'started' });
  for (const broken of [
    { ...event, type: undefined },
    { ...event, Bad_Name: 1 },
    { ...event, specversion: '9' },
  ]) {
    let refused = false;
    try {
      refused = !parseCloudEvent(headers, JSON.stringify(broken)).validate();
    } catch {
      refused = true;
    }
    holds(refused, 'a refusal', broken);
  }
});

await tap.law('a derived UUID is a UUIDv5', () => equal(derivedUuid('default', 'x')[14], '5'));

await tap.law('on an empty server: one law fails, exit 1, in time', async () => {
  const server = await startServer();
  try {
    const { code, stdout } = await run(server.url, '--type', 'test', '--bound', '1');
    equal([code, stdout.trim().split('\n').at(-1)], [1, '0 passed, 1 failed']);
  } finally {
    await server.stop();
  }
});

await tap.law('no server at all: exit 1', async () =>
  equal((await run('nats://127.0.0.1:1', '--type', 'test', '--bound', '1')).code, 1),
);

for (const options of [
  ['--type', 'test'],
  ['--type', 'qemu'],
  ['--type', 'test', '--via', 'run'],
]) {
  await tap.law(`on the toy (${options.join(' ')}) every law holds, exit 0`, async () => {
    await withToy({ type: options[1] }, async (server) => {
      const { code, stdout, stderr } = await run(server, ...options, '--bound', '5');
      holds(code === 0 && /\d+ passed, 0 failed\n$/.test(stdout), 'exit 0', `${code}: ${unmet(stdout)} ${stderr}`);
    });
  });
}

for (const [fault, law] of Object.entries(FAULTS)) {
  await tap.law(`a toy with the fault ${fault} is found out, exit 1`, async () => {
    await withToy({ faults: [fault] }, async (server) => {
      const { code, stdout } = await run(server, '--type', 'test', '--via', 'run', '--bound', '2');
      holds(code === 1 && law.test(stdout), `exit 1 and ${law}`, `${code}: ${unmet(stdout)}`);
    });
  });
}

process.exitCode = tap.end();
