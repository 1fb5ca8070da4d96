// Subjects, names and identifiers of PROTOCOL §1, §2 and §4.
import { createHash, randomBytes, randomUUID } from 'node:crypto';

export const ROOT = 'virt.v1';
export const STREAMS = { cmd: 'VIRT_CMD', run: 'VIRT_RUN', evt: 'VIRT_EVT' };
export const BUCKETS = [
  'virt_nodes',
  'virt_leases',
  'virt_domains',
  'virt_owners',
  'virt_specs',
  'virt_admin',
  'virt_cursors',
];
const NAMESPACE = '7b6f5f0e-6a3c-5b1e-9d0a-766972746275';

export const subjects = {
  api: (project, domain, verb) => `${ROOT}.api.${project}.${domain}.${verb}`,
  cmd: (project, domain, verb) => `${ROOT}.cmd.${project}.${domain}.${verb}`,
  run: (node, project, uuid, verb) => `${ROOT}.run.${node}.${project}.${uuid}.${verb}`,
  ask: (node, project, domain, query) => `${ROOT}.ask.${node}.${project}.${domain}.${query}`,
  res: (node, project, id) => `${ROOT}.res.${node}.${project}.${id}`,
};

let counter = 0;
const run = randomBytes(4).toString('hex');
export const fresh = (stem) => `${stem}-${run}-${(counter += 1)}`;
export const freshUuid = () => randomUUID();

/** The UUID of a domain that was created with none: UUIDv5 over `<project>/<id>`. */
export function derivedUuid(project, id) {
  const digest = createHash('sha1')
    .update(Buffer.from(NAMESPACE.replaceAll('-', ''), 'hex'))
    .update(`${project}/${id}`)
    .digest();
  const bytes = digest.subarray(0, 16);
  bytes[6] = (bytes[6] & 0x0f) | 0x50;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

export const MEMORY_KIB = { test: 8192, qemu: 65536, lxc: 65536 };

let containerRoot = '';
/** Containers live on the file system at `root`. */
export function containersOn(root) {
  containerRoot = root ?? '';
}

const BODIES = {
  test: () => '<memory unit="KiB">8192</memory><os><type>hvm</type></os>',
  qemu: () => '<memory unit="MiB">64</memory><os><type arch="x86_64" machine="pc">hvm</type></os><devices/>',
  lxc: () =>
    '<memory unit="MiB">64</memory><os><type>exe</type><init>/init</init></os><devices><console type="pty"/>' +
    `<filesystem type="mount"><source dir="${containerRoot}"/><target dir="/"/></filesystem></devices>`,
};

/** A smallest domain; a name or UUID that is not given is left out of the XML. */
export function domainXml(type, { name, uuid, doctype = '' } = {}) {
  const head = `${name ? `<name>${name}</name>` : ''}${uuid ? `<uuid>${uuid}</uuid>` : ''}`;
  return `${doctype}<domain type="${type}">${head}${BODIES[type]()}</domain>`;
}
