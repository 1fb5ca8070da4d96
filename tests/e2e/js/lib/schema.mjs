// The JSON documents of PROTOCOL §4 to §8 as matchers.
import {
  absent,
  any,
  bool,
  commandId,
  digits16,
  either,
  fields,
  instant,
  integer,
  is,
  listOf,
  mapOf,
  nullable,
  number,
  object,
  oneOf,
  optional,
  positive,
  string,
  text,
  that,
  ulid,
  uuid,
} from './check.mjs';

export const CODES = {
  invalid: 400,
  denied: 403,
  not_found: 404,
  already_exists: 409,
  conflict: 409,
  busy: 429,
  no_capacity: 429,
  cancelled: 499,
  internal: 500,
  unsupported: 501,
  hypervisor: 502,
  node_unavailable: 503,
  deadline: 504,
};

export const STATES = [
  'running',
  'blocked',
  'paused',
  'shutdown',
  'shutoff',
  'crashed',
  'pmsuspended',
  'nostate',
  'unknown',
];

export const RESULT_FIELDS = [
  'id',
  'verb',
  'ok',
  'changed',
  'node',
  'project',
  'domain',
  'result',
  'error',
  'duration_ms',
];

/** §4, success. `domain.state` is left open where the domain is gone (state null). */
export const success = ({ id, verb, node, project, changed, uuid: domain, name, state }) =>
  fields({
    id: id === undefined ? commandId : is(id),
    verb: is(verb),
    ok: is(true),
    error: absent,
    changed: is(changed),
    node: is(node),
    project: is(project),
    domain: fields({ uuid: is(domain), name: is(name), state: state === null ? any : is(state) }),
    result: object,
    duration_ms: number,
  });

const libvirt = fields({ code: integer, domain: integer });

/** §4, failure. Fields beside the error may be missing where the input did not give them. */
export const failure = ({ id, codes, outcomes = ['none'] }) =>
  fields({
    id: id === undefined ? optional(nullable(string)) : is(id),
    ok: is(false),
    verb: optional(nullable(string)),
    changed: optional(nullable(is(false))),
    node: optional(nullable(string)),
    project: optional(nullable(string)),
    domain: optional(nullable(object)),
    duration_ms: optional(nullable(number)),
    error: fields({
      code: oneOf(...codes),
      message: text,
      retryable: bool,
      outcome: oneOf(...outcomes),
      libvirt: optional(nullable(libvirt)),
    }),
  });

/** §6. */
export const observed = (expected = {}) =>
  fields({
    uuid,
    name: text,
    project: text,
    node: text,
    hypervisor: text,
    type: text,
    state: oneOf(...STATES),
    reason: string,
    persistent: bool,
    autostart: bool,
    vcpus: positive,
    memory_kib: positive,
    labels: mapOf(string),
    generation: integer,
    incarnation: nullable(ulid),
    role: oneOf('owner', 'incoming', 'former'),
    epoch: ulid,
    sequence: digits16,
    updated: instant,
    ...Object.fromEntries(Object.entries(expected).map(([key, value]) => [key, value?.problems ? value : is(value)])),
  });

/** §7. */
export const nodeRecord = (expected = {}) =>
  fields({
    node: text,
    epoch: ulid,
    version: text,
    hypervisors: listOf(
      fields({
        uri: text,
        types: listOf(text),
        version: either(text, integer),
        verbs: listOf(text),
        events: listOf(text),
        connected: bool,
      }),
    ),
    arch: text,
    cpus: positive,
    memory_kib: positive,
    free_memory_kib: integer,
    allocated: fields({ vcpus: integer, memory_kib: integer }),
    domain_count: integer,
    labels: mapOf(string),
    schedulable: bool,
    updated: instant,
    ...Object.fromEntries(Object.entries(expected).map(([key, value]) => [key, is(value)])),
  });

/** §2, virt_leases. */
export const lease = (epoch) => fields({ epoch: is(epoch), cursor: integer, done: integer });

/** §2, virt_owners. */
export const owner = ({ node, project, id }) =>
  fields({
    project: is(project),
    node: is(node),
    epoch: either(integer, text),
    id: id === undefined ? optional(nullable(string)) : is(id),
    migration: optional(nullable(object)),
    former: optional(nullable(listOf(fields({ node: text, until: any })))),
  });

const serviceIdentity = (name, kind, metadata) => ({
  type: is(`io.nats.micro.v1.${kind}_response`),
  name: is(name),
  id: text,
  version: that('a semantic version', (value) => /^\d+\.\d+\.\d+/.test(value)),
  metadata: fields(metadata),
});

/** §8, answers to $SRV.PING, $SRV.INFO and $SRV.STATS (ADR-32). */
export const service = {
  PING: (name, metadata) => fields(serviceIdentity(name, 'ping', metadata)),
  INFO: (name, metadata) =>
    fields({
      ...serviceIdentity(name, 'info', metadata),
      description: string,
      endpoints: listOf(fields({ name: text, subject: text, queue_group: optional(string) })),
    }),
  STATS: (name, metadata) =>
    fields({
      ...serviceIdentity(name, 'stats', metadata),
      started: instant,
      endpoints: listOf(
        fields({ name: text, subject: text, num_requests: integer, num_errors: integer, processing_time: integer }),
      ),
    }),
};
