// The three logs and the buckets as the broker describes them (PROTOCOL §2, §3).
import { equal, fields, holds, is, match, oneOf, that } from '../lib/check.mjs';
import { BUCKETS, ROOT, STREAMS } from '../lib/names.mjs';

const SECOND = 1e9;
const DAY = 24 * 3600 * SECOND;

const microseconds = that('microseconds since 1970', (value) => value > 1.6e15 && value < 1e16);
const manyConsumers = that('above 1000, or -1', (value) => value === -1 || value > 1000);

const below = (root) =>
  that(
    `subjects below ${root}`,
    (value) => value?.length > 0 && [value].flat().every((one) => one.startsWith(`${root}.`)),
  );

const common = {
  retention: is('limits'),
  allow_direct: is(true),
  max_consumers: manyConsumers,
  first_seq: microseconds,
};
const inbound = {
  ...common,
  max_age: is(0),
  discard: is('new'),
  max_bytes: that('a limit', (value) => value > 0),
  duplicate_window: is(SECOND / 10),
};
const LOGS = {
  [STREAMS.cmd]: { ...inbound, subjects: below(`${ROOT}.cmd`) },
  [STREAMS.run]: {
    ...inbound,
    subjects: below(`${ROOT}.run`),
    republish: fields({ src: below(`${ROOT}.run`), dest: below(`${ROOT}.dlv`) }),
  },
  [STREAMS.evt]: {
    ...common,
    subjects: below(`${ROOT}.evt`),
    discard: is('old'),
    max_bytes: that('a limit', (value) => value > 0),
    max_age: that('24 h or more', (value) => value === 0 || value >= DAY),
  },
};

export async function logsSuite({ bus, tap }) {
  for (const [name, spec] of Object.entries(LOGS)) {
    await tap.law(`log ${name}: configuration (§3)`, async () => {
      const info = await bus.jsm.streams.info(name);
      match(info.config, fields(spec));
      holds(info.state.first_seq >= info.config.first_seq, 'state.first_seq from first_seq on', info.state.first_seq);
    });
  }
  for (const bucket of BUCKETS) {
    await tap.law(`bucket ${bucket}: exists, with max_consumers (§2)`, async () => {
      const { config } = await bus.jsm.streams.info(`KV_${bucket}`);
      match(config.max_consumers, manyConsumers);
    });
  }
  await tap.law('bucket virt_leases: max age 15 s, delete markers 60 s', async () => {
    const { config } = await bus.jsm.streams.info('KV_virt_leases');
    match(
      config,
      fields({ max_age: is(15 * SECOND), subject_delete_marker_ttl: is(60 * SECOND), allow_msg_ttl: is(true) }),
    );
  });
  await tap.law('bucket virt_domains: keys can be purged with a marker TTL', async () => {
    const { config } = await bus.jsm.streams.info('KV_virt_domains');
    match(config, fields({ allow_msg_ttl: is(true), storage: oneOf('file', 'memory') }));
  });
  await tap.law('no stream captures a subject that is answered (§1)', async () => {
    for (const kind of ['api', 'ask']) equal(await bus.jsm.streams.names(`${ROOT}.${kind}.>`).next(), [], `${kind}:`);
  });
}
