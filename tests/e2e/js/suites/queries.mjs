// get, xml and stats through `ask` and `api`; names and UUIDs; projects (PROTOCOL §1, §2).
import { equal, holds, match, object, string } from '../lib/check.mjs';
import { answered, domainState, failedAnswer, present } from '../lib/laws.mjs';
import { MEMORY_KIB, fresh } from '../lib/names.mjs';
import { failure } from '../lib/schema.mjs';

export async function queriesSuite(ctx, domain) {
  const { bus, tap, type, coordinator } = ctx;
  const spec = domainState(bus, { ...domain, type, state: 'running', memory: MEMORY_KIB[type] });
  const results = {
    get: (result) => match(result.domain, spec),
    xml: (result) => {
      match(result.xml, string);
      holds(
        result.xml.includes(domain.uuid) && result.xml.includes(`<name>${domain.name}</name>`),
        'XML with name and UUID',
        result.xml,
      );
    },
    stats: (result) => match(result.stats, object),
  };
  const before = bus.evt.length;
  const forms = { uuid: domain.uuid, name: domain.name, 'upper-case UUID': domain.uuid.toUpperCase() };
  for (const [query, check] of Object.entries(results)) {
    await tap.law(`ask ${query} by uuid (§2)`, async () =>
      check(answered(await bus.ask(domain.project, domain.uuid, query))),
    );
  }
  await tap.law('ask get by upper-case UUID', async () =>
    results.get(answered(await bus.ask(domain.project, forms['upper-case UUID'], 'get'))),
  );
  await byName(ctx, domain, results.get);
  await failures(ctx, 'ask', (project, token, query) => bus.ask(project, token, query), domain);
  if (coordinator) {
    for (const [form, token] of Object.entries(forms)) {
      await tap.law(`api get by ${form} (§1)`, async () =>
        results.get(answered(await bus.api(domain.project, token, 'get'))),
      );
    }
    for (const query of ['xml', 'stats']) {
      await tap.law(`api ${query}: as ask, or invalid (§2 names get only)`, async () => {
        const reply = await bus.api(domain.project, domain.uuid, query);
        if (reply.body?.ok) return results[query](reply.body.result);
        tap.note(`api ${query} is not served: ${reply.body?.error?.message ?? reply.error}`);
        failedAnswer(reply, failure({ codes: ['invalid', 'unsupported'] }));
      });
    }
    await failures(ctx, 'api', (project, token, query) => bus.api(project, token, query), domain);
  }
  await tap.law('queries make no events', () => {
    // An unknown verb may have been meant as a command: one `invalid` event may tell of it.
    const made = bus.evt.filter((record) => record.domain === domain.uuid && record.event[0] === 'command', before);
    const strange = made.filter((record) => record.data?.error?.code !== 'invalid');
    equal(
      strange.map((record) => record.subject),
      [],
    );
  });
}

/** §2 gives `ask` a `<domain>` token, §1 allows the name "in api and cmd": either a result or a clean refusal. */
async function byName({ bus, tap }, domain, check) {
  await tap.law('ask get by name: the domain, or a clean refusal (§1)', async () => {
    const reply = await bus.ask(domain.project, domain.name, 'get');
    if (reply.body?.ok) return check(reply.body.result);
    tap.note(`ask by name is refused: ${reply.body?.error?.message ?? reply.error}`);
    failedAnswer(reply, failure({ codes: ['invalid', 'not_found'] }));
  });
}

async function failures({ bus, tap, otherProject }, way, query, domain) {
  const outcomes = ['none', 'unknown'];
  await tap.law(`${way} get, domain that is nowhere: not_found, error headers (§4)`, async () => {
    const reply = await query(domain.project, '00000000-0000-4000-8000-000000000001', 'get');
    failedAnswer(reply, failure({ codes: ['not_found'], outcomes }));
  });
  await tap.law(`${way} get, other project: not_found (§1)`, async () => {
    failedAnswer(await query(otherProject, domain.uuid, 'get'), failure({ codes: ['not_found'], outcomes }));
  });
  await tap.law(`${way} unknown query: invalid`, async () => {
    failedAnswer(await query(domain.project, domain.uuid, fresh('frob')), failure({ codes: ['invalid'], outcomes }));
  });
  await tap.law(`${way} get, bad domain token: invalid`, async () => {
    failedAnswer(await query(domain.project, 'bad~name', 'get'), failure({ codes: ['invalid'], outcomes }));
  });
  await tap.law(`${way}: a message whose reply is a $JS.ACK subject is ignored (§4)`, async () => {
    const reply = `$JS.ACK.X.Y.1.${Date.now()}.1.1.0`;
    let heard = 0;
    const subscription = bus.nc.subscribe(reply, {
      callback: () => {
        heard += 1;
      },
    });
    const subject =
      way === 'api'
        ? `virt.v1.api.${domain.project}.${domain.uuid}.get`
        : `virt.v1.ask.${bus.node}.${domain.project}.${domain.uuid}.get`;
    bus.nc.publish(subject, '', { reply });
    await bus.nc.flush();
    present((await query(domain.project, domain.uuid, 'get')).body, 'an answer to the next message', {});
    await new Promise((resolve) => setTimeout(resolve, 200));
    subscription.unsubscribe();
    equal(heard, 0, 'answers:');
  });
}
