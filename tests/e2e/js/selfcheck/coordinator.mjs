// The toy's coordinator, streams, buckets and discovery.
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { connect } from '@nats-io/transport-node';
import { tail } from '../lib/log.mjs';
import { BUCKETS, derivedUuid, fresh } from '../lib/names.mjs';
import {
  EventWriter,
  Refusal,
  TOKEN,
  UUID,
  VERBS,
  errorHeaders,
  makeHeaders,
  newUlid,
  readCommand,
  xmlField,
} from './toy.mjs';
import { ToyWorker } from './worker.mjs';

const FLEET = ['nodes', 'domains', 'command'];
const SECOND = 1e9;

/** Starts the whole toy on a server; gives a function that ends it. */
export async function startToy({ server, node, type = 'test', faults = [] }) {
  const nc = await connect({ servers: server, name: 'toy' });
  const js = jetstream(nc);
  const jsm = await jetstreamManager(nc);
  await provision(jsm);
  const kvm = new Kvm(js);
  const kv = Object.fromEntries(
    await Promise.all(
      BUCKETS.map(async (name) => [
        name,
        await kvm.create(name, {
          ...(name === 'virt_leases' ? { ttl: 15_000, markerTTL: 60_000 } : { markerTTL: 60_000 }),
        }),
      ]),
    ),
  );
  const worker = new ToyWorker({ nc, js, kv, node, type, faults: new Set(faults) });
  await worker.start();
  const coordinator = new ToyCoordinator({ nc, js, kv, worker });
  const log = await tail(js, 'VIRT_CMD', 1, (message) => message);
  log.push = (message) => coordinator.route(message);
  nc.subscribe('virt.v1.api.*.*.*', { queue: 'q', callback: (_, message) => coordinator.answer(message) });
  discovery(nc, 'virt-worker', { node, epoch: worker.epoch }, `virt.v1.ask.${node}.>`);
  discovery(nc, 'virt-api', {}, 'virt.v1.api.*.*.*');
  await nc.flush();
  return async () => {
    clearInterval(coordinator.timer);
    await worker.stop();
    log.stop();
    await nc.close();
  };
}

async function provision(jsm) {
  const first_seq = Date.now() * 1000;
  const common = { retention: 'limits', allow_direct: true, max_consumers: -1, first_seq, max_bytes: 1 << 26 };
  const inbound = { ...common, discard: 'new', duplicate_window: SECOND / 10 };
  await jsm.streams.add({ name: 'VIRT_CMD', subjects: ['virt.v1.cmd.>'], ...inbound });
  await jsm.streams.add({
    name: 'VIRT_RUN',
    subjects: ['virt.v1.run.>'],
    ...inbound,
    republish: { src: 'virt.v1.run.>', dest: 'virt.v1.dlv.>' },
  });
  await jsm.streams.add({
    name: 'VIRT_EVT',
    subjects: ['virt.v1.evt.>'],
    ...common,
    discard: 'old',
    max_age: 24 * 3600 * SECOND,
  });
}

function discovery(nc, name, metadata, subject) {
  const identity = { name, id: newUlid(), version: '0.0.1', metadata };
  const endpoint = { name: 'main', subject, queue_group: 'q' };
  const bodies = {
    PING: {},
    INFO: { description: 'toy', endpoints: [endpoint] },
    STATS: {
      started: new Date().toISOString(),
      endpoints: [{ ...endpoint, num_requests: 0, num_errors: 0, processing_time: 0 }],
    },
  };
  for (const [kind, body] of Object.entries(bodies)) {
    const answer = JSON.stringify({ type: `io.nats.micro.v1.${kind.toLowerCase()}_response`, ...identity, ...body });
    for (const end of ['', `.${name}`, `.${name}.${identity.id}`]) {
      nc.subscribe(`$SRV.${kind}${end}`, { callback: (_, message) => message.respond(answer) });
    }
  }
}

class ToyCoordinator {
  constructor({ nc, js, kv, worker }) {
    Object.assign(this, { nc, js, kv, worker, node: worker.node });
    this.events = new EventWriter(js, {
      node: '_',
      source: '/virt/coordinators/c1',
      epoch: newUlid(),
      faults: new Set(),
    });
    this.timer = setInterval(() => this.#own(), 500);
  }

  async #own() {
    for (const domain of this.worker.domains.values()) {
      if (!(await this.kv.virt_owners.get(domain.uuid))) await this.#owner(domain.project, domain.uuid, null);
    }
  }

  #owner = (project, uuid, id) =>
    this.kv.virt_owners.put(uuid, JSON.stringify({ project, node: this.node, epoch: 1, id, former: [] }));

  #find(project, token) {
    const found = [...this.worker.domains.values()].find((one) => one.project === project && one.name === token);
    return found?.uuid;
  }

  /** The UUID that a command is for; throws where there is none. */
  #resolve(project, token, verb, { id, body, problem }) {
    if (problem) throw problem;
    if (!TOKEN.test(project) || !TOKEN.test(token)) throw new Refusal('invalid', 'bad token');
    if (UUID.test(token)) return token.toLowerCase();
    const name = xmlField(body.args?.xml ?? '', 'name');
    if (verb === 'create-xml' && name && name !== token) throw new Refusal('invalid', 'name');
    const uuid = this.#find(project, token) ?? (verb === 'create-xml' ? derivedUuid(project, id) : undefined);
    if (!uuid) throw new Refusal('not_found');
    return uuid;
  }

  async #toWorker(project, token, uuid, verb, { id, body }, headers, cmd) {
    if (verb === 'create-xml') await this.#owner(project, uuid, id);
    if (verb === 'create-xml' && !xmlField(body.args.xml, 'name'))
      body.args.xml = body.args.xml.replace('>', `><name>${token}</name>`);
    const machine = id.startsWith('m-');
    await this.js.publish(`virt.v1.run.${this.node}.${project}.${uuid}.${verb}`, JSON.stringify(body), {
      headers: makeHeaders({
        [machine ? 'Virt-Internal-Id' : 'Virt-Id']: id,
        'Virt-Cmd': cmd,
        traceparent: headers?.get('traceparent'),
      }),
    });
  }

  async route(message) {
    const [, , , project, token, verb] = message.subject.split('.');
    const command = readCommand(message, verb, `m-cmd-${message.seq}`, VERBS);
    try {
      const uuid = this.#resolve(project, token, verb, command);
      await this.#toWorker(project, token, uuid, verb, command, message.headers, String(message.seq));
    } catch (error) {
      const place = [TOKEN.test(project) ? project : '_', UUID.test(token) ? token.toLowerCase() : '_'];
      const result = {
        id: command.id,
        verb,
        ok: false,
        project: place[0],
        error: error.document,
        duration_ms: 0,
        cmd: message.seq,
        subject: message.subject,
      };
      await this.events.write(...place, 'command.failed', result, { commandid: command.id });
      this.nc.publish(`virt.v1.res._.${place[0]}.${command.id}`, JSON.stringify(result));
    }
  }

  async answer(message) {
    if (message.reply?.startsWith('$JS.ACK')) return;
    const [, , , project, token, verb] = message.subject.split('.');
    const command = readCommand(message, verb, fresh('api'), [...VERBS, ...FLEET, 'get', 'xml', 'stats']);
    const answer = { id: command.id, verb, ok: true, result: {} };
    try {
      if (FLEET.includes(verb)) answer.result = await this.#fleet(project, verb, command);
      else {
        const uuid = this.#resolve(project, token, verb, command);
        if (VERBS.includes(verb)) return await this.#forward(message, project, token, uuid, verb, command);
        answer.result = this.worker.query(project, uuid, verb);
      }
    } catch (error) {
      Object.assign(answer, { ok: false, error: error.document ?? new Refusal('internal', String(error)).document });
    }
    message.respond(JSON.stringify(answer), { headers: errorHeaders(answer.error) });
  }

  async #forward(message, project, token, uuid, verb, command) {
    this.nc.subscribe(`virt.v1.res.${this.node}.${project}.${command.id}`, {
      max: 1,
      callback: (_, res) => message.respond(res.data, { headers: errorHeaders(res.json().error) }),
    });
    await this.#toWorker(project, token, uuid, verb, command, message.headers);
  }

  #fleet(project, verb, { body, problem }) {
    if (problem) throw problem;
    const { limit = 500, after = '', id } = body.args ?? {};
    if (verb === 'command') {
      const known = this.worker.ledger.get(`${project}/${id}`);
      if (!known) throw new Refusal('not_found');
      return { command: known.result };
    }
    if (limit > 500) throw new Refusal('invalid');
    const [field, all] =
      verb === 'nodes'
        ? ['node', [this.worker.record()]]
        : ['uuid', [...this.worker.domains.values()].map((one) => this.worker.observed(one))];
    const left = all
      .filter((one) => (project === '_' || one.project === project) && one[field] > after)
      .sort((one, other) => (one[field] < other[field] ? -1 : 1));
    const page = left.slice(0, limit);
    return { [verb]: page, ...(left.length > limit ? { next: page.at(-1)[field] } : {}) };
  }
}
