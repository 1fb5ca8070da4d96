// Fleet verbs: nodes, domains, command; lists in pages (PROTOCOL §2).
import { Mismatch, equal, fields, holds, is, listOf, match, show } from '../lib/check.mjs';
import { answered, failedAnswer } from '../lib/laws.mjs';
import { failure, nodeRecord, observed } from '../lib/schema.mjs';

const PAGES = 100;

/** Follows `next` through a list; gives all items. */
async function pages(bus, project, verb, list, limit) {
  const items = [];
  let after;
  for (let page = 0; page < PAGES; page += 1) {
    const result = answered(await bus.api(project, '_', verb, { limit, ...(after === undefined ? {} : { after }) }));
    holds(Array.isArray(result[list]), `result.${list}, a list`, result);
    holds(result[list].length <= limit, `at most ${limit} ${list}`, result[list].length);
    items.push(...result[list]);
    if (result.next === undefined || result.next === null || result.next === '') return items;
    after = result.next;
  }
  throw new Mismatch('an end of the list', `${PAGES} pages`);
}

export async function fleetSuite({ bus, tap }, { project, uuids, command }) {
  await tap.law('api _._.nodes: records of §7, with this node', async () => {
    const { nodes } = answered(await bus.api('_', '_', 'nodes'));
    match(nodes, listOf(nodeRecord()));
    const mine = nodes.filter((one) => one.node === bus.node);
    equal(mine.length, 1, `records of ${bus.node}:`);
  });
  await tap.law('api _._.nodes: limit, after and next reach each node once', async () => {
    const names = (await pages(bus, '_', 'nodes', 'nodes', 1)).map((one) => one.node);
    equal(names.length, new Set(names).size, 'distinct nodes:');
    holds(names.includes(bus.node), bus.node, names);
  });
  await tap.law('api <project>._.domains: that project only, records of §6', async () => {
    const { domains } = answered(await bus.api(project, '_', 'domains'));
    match(domains, listOf(observed({ project })));
    equal(domains.map((one) => one.uuid).sort(), [...uuids].sort());
  });
  await tap.law('api <project>._.domains: limit, after and next reach each domain once', async () => {
    for (const limit of [1, 2]) {
      const found = (await pages(bus, project, 'domains', 'domains', limit)).map((one) => one.uuid);
      equal(found.sort(), [...uuids].sort(), `limit ${limit}:`);
    }
  });
  await tap.law('api _._.domains: every project', async () => {
    const found = (await pages(bus, '_', 'domains', 'domains', 500)).map((one) => one.uuid);
    holds(
      uuids.every((uuid) => found.includes(uuid)),
      `with ${uuids.join(' ')}`,
      found,
    );
  });
  await tap.law('api lists: a limit above 500 is invalid, or held to 500', async () => {
    const reply = await bus.api('_', '_', 'domains', { limit: 501 });
    if (reply.body?.ok)
      return holds(reply.body.result.domains.length <= 500, 'at most 500', reply.body.result.domains.length);
    failedAnswer(reply, failure({ codes: ['invalid'] }));
  });
  for (const token of ['_', command.uuid]) {
    await tap.law(
      `api <project>.${token === '_' ? '_' : '<domain>'}.command: what is recorded of a command`,
      async () => {
        const { body, error } = await bus.api(command.project, token, 'command', { id: command.id });
        // The place of the record in the answer is not laid down: any object with that id and its outcome will do.
        const record = find(
          body,
          (one) => one.id === command.id && (one.ok === true || show(one).includes('succeeded')),
        );
        if (!record)
          throw new Mismatch(`a record with id ${command.id} and its outcome in the answer`, error ?? show(body));
      },
    );
  }
  await tap.law('api <project>._.command, unknown id: not_found', async () => {
    const reply = await bus.api(command.project, '_', 'command', { id: `${command.id}-none` });
    failedAnswer(reply, failure({ codes: ['not_found'], outcomes: ['none', 'unknown'] }));
  });
  await tap.law('api _._.nodes: answer in the form of §4', async () => {
    const reply = await bus.api('_', '_', 'nodes');
    match(reply.body, fields({ ok: is(true), result: fields({ nodes: listOf(fields({})) }) }));
  });
}

function find(value, fits) {
  if (typeof value !== 'object' || value === null) return undefined;
  if (fits(value)) return value;
  for (const inner of Object.values(value)) {
    const found = find(inner, fits);
    if (found) return found;
  }
  return undefined;
}
