// What worker and coordinator of the toy share: identifiers, commands, XML. The toy speaks the wire contract from memory only,
// without a hypervisor; it exists so that the conformance client can be tried out, and knows nothing of the real system.
import { randomBytes } from 'node:crypto';
import { headers as newHeaders } from '@nats-io/transport-node';
import { CODES } from '../lib/schema.mjs';

export const VERBS = ['create-xml', 'start', 'suspend', 'resume', 'destroy', 'undefine'];
export const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
export const TOKEN = /^[A-Za-z0-9_-]{1,63}$/;
const ID = /^[A-Za-z0-9_-]{1,64}$/;
const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';

export function newUlid() {
  let time = Date.now();
  let head = '';
  for (let index = 0; index < 10; index += 1) {
    head = ALPHABET[time % 32] + head;
    time = Math.floor(time / 32);
  }
  return head + [...randomBytes(16)].map((byte) => ALPHABET[byte % 32]).join('');
}

export class Refusal extends Error {
  constructor(code, message = code, outcome = 'none') {
    super(message);
    this.document = {
      code,
      message,
      retryable: false,
      outcome,
      ...(code === 'hypervisor' ? { libvirt: { code: 55, domain: 10 } } : {}),
    };
  }
}

export const errorHeaders = (error) =>
  makeHeaders(error ? { 'Nats-Service-Error': error.code, 'Nats-Service-Error-Code': String(CODES[error.code]) } : {});

export function makeHeaders(plain) {
  const headers = newHeaders();
  for (const [key, value] of Object.entries(plain)) if (value) headers.set(key, value);
  return headers;
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const ARGS = {
  'create-xml': ['xml', 'node', 'hypervisor'],
  command: ['id'],
  domains: ['limit', 'after'],
  nodes: ['limit', 'after'],
};
const CHECKS = {
  id: (value) => typeof value === 'string' && ID.test(value) && !value.startsWith('m-'),
  timeout_s: (value) => typeof value === 'number' && value > 0,
  args: isObject,
  if: (value) =>
    isObject(value) &&
    Object.entries(value).every(([key, one]) =>
      key === 'generation' ? Number.isInteger(one) : ['state', 'incarnation'].includes(key) && typeof one === 'string',
    ),
  actor: (value) => typeof value === 'string',
};

/** Reads a command: `{id, body, problem}`; the id is one to answer under, whatever the problem is. */
export function readCommand(message, verb, fallback, verbs) {
  const header = message.headers?.get('Virt-Id') || undefined;
  let body = {};
  let problem;
  try {
    if (message.data.length > 512 * 1024) throw new Error('too large');
    if (message.data.length > 0) body = message.json();
    if (!isObject(body)) throw new Error('no object');
    for (const [key, value] of Object.entries(body)) if (!CHECKS[key]?.(value)) throw new Error(`bad field ${key}`);
    if (body.id && header && body.id !== header) throw new Error('two ids');
    if (!verbs.includes(verb)) throw new Error('unknown verb');
    for (const key of Object.keys(body.args ?? {}))
      if (!ARGS[verb]?.includes(key)) throw new Error(`unknown argument ${key}`);
    if (verb === 'create-xml') checkXml(body.args?.xml);
  } catch (error) {
    problem = new Refusal('invalid', error.message);
  }
  const id = header ?? (CHECKS.id(body?.id) ? body.id : fallback);
  return { id, body: isObject(body) ? body : {}, problem };
}

function checkXml(xml) {
  if (typeof xml !== 'string' || /<!DOCTYPE/.test(xml) || !/^<domain.*<\/domain>$/s.test(xml))
    throw new Error('bad XML');
}

export const xmlField = (xml, tag) => new RegExp(`<${tag}>(.*?)</${tag}>`).exec(xml)?.[1];

/** CloudEvents of one writer: `/virt/nodes/<name>` or `/virt/coordinators/<name>`. */
export class EventWriter {
  #sequence = 0;
  #previous = new Map();

  constructor(js, { node, source, epoch, faults }) {
    Object.assign(this, { js, node, source, epoch, faults });
  }

  async write(project, domain, event, data, extra = {}) {
    this.#sequence += this.faults.has('gap') && event === 'lifecycle.resumed' ? 2 : 1;
    const sequence = String(this.#sequence).padStart(16, '0');
    const key = `${project}.${domain}`;
    const previous = this.faults.has('chain') ? '0'.repeat(16) : (this.#previous.get(key) ?? '0'.repeat(16));
    this.#previous.set(key, sequence);
    const id = `${this.node === '_' ? 'c1' : this.node}.${this.epoch}.${sequence}`;
    const document = {
      specversion: '1.0',
      id,
      source: this.source,
      type: `virt.v1.${event}`,
      time: new Date().toISOString(),
      ...(domain === '_' ? {} : { subject: domain }),
      datacontenttype: 'application/json',
      node: this.node,
      project,
      epoch: this.epoch,
      sequence,
      previous,
      ...extra,
      data,
    };
    if (this.faults.has('no-commandid') && event.startsWith('lifecycle.')) delete document.commandid;
    await this.js.publish(`virt.v1.evt.${this.node}.${project}.${domain}.${event}`, JSON.stringify(document), {
      headers: makeHeaders({
        'Content-Type': 'application/cloudevents+json',
        'Nats-Msg-Id': this.faults.has('msg-id') ? `${id}x` : id,
      }),
    });
    return sequence;
  }
}
