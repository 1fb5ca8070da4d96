// Reading VIRT_EVT: each message through the official CloudEvents SDK, in structured mode (PROTOCOL §5).
import { HTTP } from 'cloudevents';

export const TERMINAL = ['succeeded', 'failed', 'cancelled', 'expired'];

export const LIBVIRT_EVENTS = [
  'lifecycle',
  'reboot',
  'rtc-change',
  'watchdog',
  'io-error',
  'graphics',
  'io-error-reason',
  'control-error',
  'block-job',
  'disk-change',
  'tray-change',
  'pm-wakeup',
  'pm-suspend',
  'balloon-change',
  'pm-suspend-disk',
  'device-removed',
  'block-job-2',
  'tunable',
  'agent-lifecycle',
  'device-added',
  'migration-iteration',
  'job-completed',
  'device-removal-failed',
  'metadata-change',
  'block-threshold',
  'memory-failure',
  'memory-device-size-change',
  'nic-mac-change',
  'network',
  'pool',
  'nodedev',
  'secret',
];
export const DETAILED = ['lifecycle', 'network', 'pool', 'nodedev', 'secret'];
export const OWN_EVENTS = {
  command: [...TERMINAL, 'progress', 'settled', 'accepted', 'started'],
  node: ['online', 'offline', 'degraded', 'cordoned', 'drained', 'fenced', 'removed'],
  stream: ['gap', 'resync'],
  health: ['slow-call', 'stuck-domain', 'duplicate-domain'],
  state: ['changed'],
};

export const headersOf = (message) => {
  const headers = message.headers;
  return headers ? Object.fromEntries(headers.keys().map((key) => [key.toLowerCase(), headers.get(key)])) : {};
};

/** The server's time stamp in milliseconds, with fractions. */
const stampOf = (message) => Number(message.timestampNanos / 1000n) / 1000;

/** What the official SDK makes of the message; throws where it is no valid CloudEvent. */
export function parseCloudEvent(headers, body) {
  const event = HTTP.toEvent({ headers, body });
  event.validate();
  return event;
}

/** A message of VIRT_EVT as a record. It never throws: what is wrong is in `error`, for the laws to tell. */
export function readEvent(message) {
  const body = message.string();
  const headers = headersOf(message);
  const [, , , node, project, domain, ...event] = message.subject.split('.');
  const record = {
    seq: message.seq,
    stamp: stampOf(message),
    subject: message.subject,
    node,
    project,
    domain,
    event,
    headers,
  };
  try {
    record.raw = JSON.parse(body);
    record.parsed = parseCloudEvent(headers, body);
  } catch (error) {
    record.error = String(error.message ?? error);
  }
  record.raw ??= {};
  const data = record.parsed?.data ?? record.raw.data ?? {};
  record.data = data;
  record.commandId = record.raw.commandid ?? (event[0] === 'command' ? data.id : undefined);
  record.terminal = event[0] === 'command' && TERMINAL.includes(event[1]);
  record.lifecycle = event[0] === 'lifecycle' ? event[1] : undefined;
  record.byWorker = node !== '_';
  return record;
}

/** A message of KV_virt_domains as a record. */
export function readKey(message) {
  const headers = headersOf(message);
  const record = {
    seq: message.seq,
    stamp: stampOf(message),
    key: message.subject.split('.').slice(2).join('.'),
    headers,
    operation: headers['kv-operation'] ?? (headers['nats-marker-reason'] ? 'PURGE' : 'PUT'),
  };
  try {
    record.value = record.operation === 'PUT' ? message.json() : undefined;
  } catch (error) {
    record.error = String(error.message ?? error);
  }
  return record;
}
