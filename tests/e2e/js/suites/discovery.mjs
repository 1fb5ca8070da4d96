// Node record, lease, NATS micro discovery (PROTOCOL §7, §8).
import { equal, fields, holds, is, match, that } from '../lib/check.mjs';
import { present } from '../lib/laws.mjs';
import { poll } from '../lib/log.mjs';
import { lease, nodeRecord, service } from '../lib/schema.mjs';

const RENEWED_WITHIN_MS = 8000; // every 5 s, §2
const GATHER_MS = 500;

export async function discoverySuite({ bus, tap, type, coordinator }) {
  let record;
  await tap.law('node record, field by field (§7)', async () => {
    record = (await bus.key('virt_nodes', bus.node))?.value;
    match(record, nodeRecord({ node: bus.node }));
    const types = record.hypervisors.filter((one) => one.connected).flatMap((one) => one.types);
    holds(types.includes(type), `a connected hypervisor with type ${type}`, types);
  });
  await tap.law('lease: epoch, cursor, done; renewed by compare-and-set (§2)', async () => {
    const first = await bus.key('virt_leases', bus.node);
    match(first?.value, lease(record?.epoch));
    const later = await poll(
      () => bus.key('virt_leases', bus.node),
      (now) => now?.revision > first.revision,
      RENEWED_WITHIN_MS,
    );
    holds(later?.revision > first.revision, `a renewal within ${RENEWED_WITHIN_MS} ms`, `revision ${later?.revision}`);
    match(later.value, lease(record?.epoch));
    holds(later.value.cursor >= first.value.cursor, 'cursor does not move back', later.value);
    holds(later.value.done <= later.value.cursor, 'done <= cursor', later.value);
  });
  await services({
    bus,
    tap,
    name: 'virt-worker',
    metadata: { node: is(bus.node), epoch: is(record?.epoch) },
    mine: bus.node,
  });
  if (!coordinator) return;
  await services({ bus, tap, name: 'virt-api', metadata: {} });
  await tap.law('$SRV.INFO virt-api: one wildcard endpoint on virt.v1.api, with a queue group (§2)', async () => {
    const [info] = await bus.gather('$SRV.INFO.virt-api', GATHER_MS);
    const api = present(info, 'an answer', {}).endpoints.filter((one) => one.subject.startsWith('virt.v1.api.'));
    equal(api.length, 1, 'endpoints on virt.v1.api:');
    match(
      api[0],
      fields({
        subject: that('a wildcard over project, domain and verb', (value) =>
          ['virt.v1.api.>', 'virt.v1.api.*.*.*'].includes(value),
        ),
        queue_group: that('a queue group', (value) => typeof value === 'string' && value !== ''),
      }),
    );
  });
}

async function services({ bus, tap, name, metadata, mine }) {
  for (const kind of ['PING', 'INFO', 'STATS']) {
    await tap.law(`$SRV.${kind} ${name} (§8)`, async () => {
      const [all, named] = await Promise.all([
        bus.gather(`$SRV.${kind}`, GATHER_MS),
        bus.gather(`$SRV.${kind}.${name}`, GATHER_MS),
      ]);
      const pick = (answers) => answers.find((one) => one.name === name && (!mine || one.metadata?.node === mine));
      const answer = present(pick(all), `an answer of ${name} to $SRV.${kind}`, {});
      match(answer, service[kind](name, metadata));
      const instance = present(pick(named), `an answer of ${name} to $SRV.${kind}.${name}`, {});
      const [direct] = await bus.gather(`$SRV.${kind}.${name}.${instance.id}`, GATHER_MS / 2);
      equal(direct?.id, instance.id, 'answer to the instance subject:');
    });
  }
}
