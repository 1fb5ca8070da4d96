// The toy's worker: one node, domains in memory.
import { randomBytes } from 'node:crypto';
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

const TRANSITIONS = {
  start: { to: 'running', event: 'started', detail: 'booted', same: ['running', 'paused'], from: ['shutoff'] },
  suspend: { to: 'paused', event: 'suspended', detail: 'paused', same: ['paused'], from: ['running'] },
  resume: { to: 'running', event: 'resumed', detail: 'unpaused', same: ['running'], from: ['paused'] },
  destroy: { to: 'shutoff', event: 'stopped', detail: 'destroyed', same: ['shutoff'], from: ['running', 'paused'] },
};

export class ToyWorker {
  domains = new Map();
  ledger = new Map();
  #queue = Promise.resolve();

  constructor({ nc, js, kv, node, type, faults }) {
    Object.assign(this, { nc, js, kv, node, type, faults });
    this.epoch = newUlid();
    this.done = 0;
    this.events = new EventWriter(js, { node, source: `/virt/nodes/${node}`, epoch: this.epoch, faults });
  }

  async start() {
    const { node } = this;
    await this.events.write('_', '_', 'node.online', { node, previous: null }, { subject: node });
    await this.kv.virt_nodes.put(node, JSON.stringify(this.record()));
    await this.renew();
    this.timer = setInterval(() => this.renew(), 2000);
    this.subscription = this.nc.subscribe(`virt.v1.dlv.${node}.>`, {
      callback: (_, message) => this.#enqueue(message),
    });
    this.nc.subscribe(`virt.v1.ask.${node}.>`, { callback: (_, message) => this.#ask(message) });
  }

  renew = () =>
    this.kv.virt_leases.put(this.node, JSON.stringify({ epoch: this.epoch, cursor: this.done, done: this.done }));

  record = () => ({
    node: this.node,
    epoch: this.epoch,
    version: '0.0.1',
    arch: 'x86_64',
    cpus: 1,
    memory_kib: 1024,
    free_memory_kib: 1,
    hypervisors: [
      {
        uri: 'test:///default',
        types: [this.type],
        version: '1',
        verbs: VERBS,
        events: ['lifecycle'],
        connected: true,
      },
    ],
    allocated: { vcpus: 0, memory_kib: 0 },
    domain_count: this.domains.size,
    labels: {},
    schedulable: true,
    updated: new Date().toISOString(),
  });

  async stop() {
    clearInterval(this.timer);
    this.subscription.unsubscribe();
    await this.#queue;
  }

  #enqueue(message) {
    if (this.faults.has('silent')) return;
    this.#queue = this.#queue.then(() => this.#handle(message)).catch((error) => console.error('toy worker', error));
  }

  async #handle(message) {
    const [, , , , project, token, verb] = message.subject.split('.');
    const { headers } = message;
    const seq = Number(headers.get('Nats-Sequence'));
    const command = readCommand(message, verb, headers.get('Virt-Internal-Id') || `m-run-${seq}`, VERBS);
    const uuid = UUID.test(token) ? token.toLowerCase() : '_';
    const place = { project: TOKEN.test(project) ? project : '_', uuid };
    if (uuid === '_' || place.project === '_') command.problem ??= new Refusal('invalid', 'bad token');
    const { data: bytes } = message;
    const print = `${uuid}.${verb}.${Buffer.from(bytes).toString('base64')}`;
    const known = this.ledger.get(`${project}/${command.id}`);
    if (known && !this.faults.has('repeat')) {
      const conflict = { ...known.result, ok: false, changed: undefined, error: new Refusal('conflict').document };
      return this.#answer(place.project, command.id, known.print === print ? known.result : conflict);
    }
    const result = await this.#run({
      ...place,
      verb,
      command,
      headers,
      subject: message.subject.replace('.dlv.', '.run.'),
    });
    this.ledger.set(`${project}/${command.id}`, { print, result });
    this.done = seq;
  }

  async #run({ project, uuid, verb, command, headers, subject }) {
    const { id, body } = command;
    const result = {
      id,
      verb,
      ok: true,
      changed: false,
      node: this.node,
      project,
      domain: { uuid },
      result: {},
      duration_ms: 1.5,
    };
    const extra = { commandid: id, traceparent: headers.get('traceparent') || undefined };
    let kind = 'succeeded';
    try {
      if (command.problem) throw command.problem;
      const deadline = headers.get('Virt-Deadline');
      if (deadline && Date.parse(deadline) < Date.now()) {
        kind = 'expired';
        throw new Refusal('deadline');
      }
      result.changed = await this.#act(project, uuid, verb, body, extra);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (kind === 'succeeded') kind = 'failed';
      Object.assign(result, { ok: false, error: error.document });
      if (command.problem) result.subject = subject;
    }
    const domain = this.domains.get(uuid);
    if (domain) Object.assign(result.domain, { name: domain.name, state: domain.state });
    else result.domain.name = this.lastName ?? '';
    if (this.faults.has('early-res')) this.#answer(project, id, result);
    if (this.faults.has('early-res')) await new Promise((resolve) => setTimeout(resolve, 20));
    await this.events.write(project, uuid, `command.${kind}`, result, extra);
    if (this.faults.has('two-terminals')) await this.events.write(project, uuid, `command.${kind}`, result, extra);
    if (domain && result.ok && !this.faults.has('no-key')) await this.#store(domain);
    this.#answer(project, id, result);
    return result;
  }

  #answer(project, id, result) {
    this.nc.publish(`virt.v1.res.${this.node}.${project}.${id}`, JSON.stringify(result));
  }

  async #act(project, uuid, verb, body, extra) {
    const domain = this.domains.get(uuid);
    if (domain && domain.project !== project) throw new Refusal('not_found');
    if (verb === 'create-xml') return this.#create(project, uuid, body, extra);
    if (!domain) {
      if (verb === 'undefine') return false;
      throw new Refusal('not_found');
    }
    for (const [key, value] of Object.entries(body.if ?? {}))
      if (domain[key] !== value) throw new Refusal('conflict', `if.${key}`);
    if (verb === 'undefine') return this.#undefine(domain, extra);
    const { to, event, detail, same, from } = TRANSITIONS[verb];
    if (same.includes(domain.state)) return false;
    if (!from.includes(domain.state)) throw new Refusal('hypervisor', 'operation invalid');
    if (verb === 'start') domain.incarnation = newUlid();
    await this.#lifecycle(domain, event, detail, extra);
    domain.state = to;
    if (to === 'shutoff') domain.incarnation = null;
    return true;
  }

  async #create(project, uuid, body, extra) {
    const { xml } = body.args;
    const name = xmlField(xml, 'name');
    const inner = xmlField(xml, 'uuid');
    if (!name || (inner && inner.toLowerCase() !== uuid)) throw new Refusal('invalid', 'name or UUID of the XML');
    if (this.domains.has(uuid) || [...this.domains.values()].some((one) => one.name === name))
      throw new Refusal('already_exists');
    const domain = { uuid, name, project, xml, state: 'running', incarnation: newUlid(), generation: 0 };
    this.domains.set(uuid, domain);
    await this.#lifecycle({ ...domain, incarnation: undefined }, 'defined', 'added', extra);
    await this.#lifecycle(domain, 'started', 'booted', extra);
    return true;
  }

  async #undefine(domain, extra) {
    if (domain.state !== 'shutoff') throw new Refusal('conflict');
    await this.#lifecycle(domain, 'undefined', 'removed', extra);
    this.domains.delete(domain.uuid);
    this.lastName = domain.name;
    const key = `${this.node}.${domain.project}.${domain.uuid}`;
    await this.js.publish(`$KV.virt_domains.${key}`, '', {
      headers: makeHeaders({ 'KV-Operation': 'PURGE', 'Nats-Rollup': 'sub', 'Nats-TTL': '60s' }),
    });
    return true;
  }

  async #lifecycle(domain, event, detail, extra) {
    const all = { ...extra, domainname: domain.name, incarnation: domain.incarnation ?? undefined };
    domain.sequence = await this.events.write(
      domain.project,
      domain.uuid,
      `lifecycle.${event}`,
      { event, detail },
      all,
    );
    const kept = this.domains.get(domain.uuid);
    if (kept) kept.sequence = domain.sequence;
  }

  observed(domain) {
    const { uuid, name, project, state, incarnation, generation, sequence } = domain;
    return {
      uuid,
      name,
      project,
      node: this.node,
      hypervisor: 'test:///default',
      type: this.type,
      state,
      reason: '',
      persistent: true,
      autostart: false,
      vcpus: 1,
      memory_kib: this.type === 'qemu' ? 65536 : 8192,
      labels: {},
      generation,
      incarnation: incarnation ?? null,
      role: 'owner',
      epoch: this.epoch,
      sequence,
      updated: new Date().toISOString(),
    };
  }

  #store(domain) {
    return this.kv.virt_domains.put(
      `${this.node}.${domain.project}.${domain.uuid}`,
      JSON.stringify(this.observed(domain)),
    );
  }

  query(project, uuid, query) {
    if (!UUID.test(uuid) || !['get', 'xml', 'stats'].includes(query)) throw new Refusal('invalid');
    const domain = this.domains.get(uuid.toLowerCase());
    if (domain?.project !== project) throw new Refusal('not_found');
    if (query === 'get') return { domain: this.observed(domain) };
    return query === 'xml'
      ? { xml: domain.xml.replace('</name>', `</name><uuid>${domain.uuid}</uuid>`) }
      : { stats: {} };
  }

  #ask(message) {
    if (message.reply?.startsWith('$JS.ACK')) return;
    const [, , , , project, uuid, query] = message.subject.split('.');
    const answer = { id: randomBytes(8).toString('hex'), ok: true, result: {} };
    try {
      answer.result = this.query(project, uuid, query);
    } catch (error) {
      Object.assign(answer, { ok: false, error: error.document });
    }
    message.respond(JSON.stringify(answer), { headers: errorHeaders(answer.error) });
  }
}
