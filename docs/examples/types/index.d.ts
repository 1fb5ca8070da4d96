// What travels on virtbus's subjects. Made by `virtbus schema --typescript`; changes belong into the structs it is made from.

/** An object whose fields this contract leaves open. */
export type JsonObject = { [name: string]: any };

/** A command's body as it travels. */
export interface Body {
  id?: string | null;
  args?: JsonObject;
  timeout_s?: number | null;
  if?: Condition | null;
  actor?: string | null;
}

/** What must hold at the head of the domain's queue, else `conflict` and nothing done. */
export interface Condition {
  state?: "blocked" | "crashed" | "nostate" | "paused" | "pmsuspended" | "running" | "shutdown" | "shutoff" | "unknown" | null;
  generation?: number | null;
  incarnation?: string | null;
}

/**
 * How a command ended: answer of `api`, message on `res`, `data` of the terminal event.
 *
 * changed: False where the goal held already. final: False where the answer ends only the waiting.
 * cmd: sequence in `VIRT_CMD`, in coordinators' events. subject: as received, where it was malformed.
 */
export interface Result {
  id: string;
  verb: string;
  ok: boolean;
  changed?: boolean;
  node: string;
  project: string;
  domain?: DomainRef | null;
  result?: JsonObject;
  error?: Failure;
  final?: boolean;
  duration_ms: number;
  cmd?: number;
  subject?: string;
}

/** The domain that a result speaks of. */
export interface DomainRef {
  uuid: string;
  name?: string | null;
  state?: "blocked" | "crashed" | "nostate" | "paused" | "pmsuspended" | "running" | "shutdown" | "shutoff" | "unknown" | null;
}

/** The `error` object of a result. */
export interface Failure {
  code: string;
  message: string;
  retryable?: boolean;
  outcome?: "applied" | "none" | "partial" | "unknown";
  libvirt?: LibvirtCode | null;
}

/** Libvirt's own verdict: `virErrorNumber` and `virErrorDomain`. */
export interface LibvirtCode {
  code: number;
  domain: number;
}

/** An answer that says no. final: False where it ends only the waiting, and what was asked may still happen. */
export interface Refusal {
  ok: boolean;
  error: Failure;
  final?: boolean;
}

/**
 * One event as it stands in the log; attribute names are CloudEvents', all lower case.
 *
 * Terminal events of a worker say which order they end, so that a ledger can be rebuilt from them: commandsequence: its place
 * in `VIRT_RUN`. commanddigest: the fingerprint of its domain, verb and arguments, by which a repeat is told from another command
 * under the same id. commandfence: the owner epoch that it came with, if any.
 */
export interface Event {
  specversion: string;
  id: string;
  source: string;
  type: string;
  subject: string;
  time: string;
  datacontenttype: string;
  node: string;
  project: string;
  domainname?: string | null;
  epoch: string;
  sequence: string;
  previous: string;
  incarnation?: string | null;
  commandid?: string | null;
  commandsequence?: string | null;
  commanddigest?: string | null;
  commandfence?: string | null;
  traceparent?: string | null;
  tracestate?: string | null;
  synthetic?: boolean;
  data: any | JsonObject;
}

/** A domain as its hypervisor says it is: the value in `virt_domains`. */
export interface Observed {
  uuid: string;
  name: string;
  project: string;
  node: string;
  hypervisor: string;
  type: string;
  state: "blocked" | "crashed" | "nostate" | "paused" | "pmsuspended" | "running" | "shutdown" | "shutoff" | "unknown";
  reason: string;
  persistent: boolean;
  autostart: boolean;
  vcpus: number;
  memory_kib: number;
  labels: { [name: string]: string };
  generation: number;
  incarnation: string | null;
  role: "former" | "incoming" | "owner";
  epoch: string;
  sequence: string;
  updated: string;
  saved?: boolean;
}

/**
 * Where a domain lives: the value in `virt_owners`.
 *
 * epoch rises by one with each change of node and fences orders of the owner before;
 * id is the command that made the record, so that its repeat goes to the same node;
 * name is what that command calls the domain, known before the node has seen it.
 */
export interface Owner {
  project: string;
  node: string;
  epoch: number;
  id: string;
  name?: string | null;
  former?: Array<Former>;
}

/** A node that owned the domain, and until when (RFC 3339). */
export interface Former {
  node: string;
  until: string;
}

/**
 * A worker's own description: the value in `virt_nodes`. Written after the scan that follows each start.
 *
 * projects: those whose domains it serves, none: of any.
 */
export interface Node {
  node: string;
  epoch: string;
  version: string;
  hypervisors: Array<Hypervisor>;
  arch: string;
  cpus: number;
  memory_kib: number;
  free_memory_kib: number;
  allocated: Allocated;
  domain_count: number;
  labels: { [name: string]: string };
  schedulable: boolean;
  updated: string;
  projects?: Array<string>;
}

/** One hypervisor of a node and what it can really do. */
export interface Hypervisor {
  uri: string;
  types: Array<string>;
  version: string;
  verbs: Array<string>;
  events: Array<string>;
  connected: boolean;
}

/** What the domains that run on a node may use together. */
export interface Allocated {
  vcpus: number;
  memory_kib: number;
}

/**
 * Proof of life: the value in `virt_leases`.
 *
 * cursor: sequence in `VIRT_RUN` up to which every command is in the worker's ledger.
 * done: sequence up to which every command has its terminal event stored; what may be trimmed.
 */
export interface Lease {
  node: string;
  epoch: string;
  cursor: number;
  done: number;
  updated: string;
}

/** Whether the hypervisor starts the domain when the host boots. */
export interface AutostartArgs {
  /** start the domain when its host boots */
  enabled?: boolean;
}

/** Answer of `command`. */
export interface CommandAnswer {
  command: Recorded;
}

/**
 * A command as a ledger has it.
 *
 * phase: `received`, `begun`, `ended`, `stored` (its terminal event is in the log). result: once it has ended.
 */
export interface Recorded {
  id: string;
  project: string;
  node: string;
  phase: string;
  verb?: string;
  subject?: string;
  sequence?: number;
  result?: Result | null;
}

/** Which command is meant. */
export interface CommandIdArgs {
  /** the command's id */
  id: string;
}

/** Answer of `get`. */
export interface DomainAnswer {
  domain: Observed;
}

/** Answer of `domains`: a page; `next` is the `after` of the one that follows. */
export interface DomainsAnswer {
  domains: Array<Observed>;
  next?: string;
}

/** A page of a list: `after` is the `next` of the page before. */
export interface ListArgs {
  limit?: number;
  after?: string;
}

/** The verb takes no arguments. */
export type NoArgs = { [name: string]: never };

/** Answer of `nodes`: a page; `next` is the `after` of the one that follows. */
export interface NodesAnswer {
  nodes: Array<Node>;
  next?: string;
}

/** Answer of `stats`: figures under libvirt's bulk-stats names. */
export interface StatsAnswer {
  stats: JsonObject;
}

/** Answer of `xml`. */
export interface XmlAnswer {
  xml: string;
}

/** A domain as libvirt XML; `node` and `hypervisor` choose where it shall live. */
export interface XmlArgs {
  /** domain XML, see https://libvirt.org/formatdomain.html */
  xml: string;
  /** worker that shall host it; else one is chosen */
  node?: string | null;
  /** URI or type, where a node has several */
  hypervisor?: string | null;
}

/** What each verb takes as `args`, and what it is answered with. */
export interface Verbs {
  /** define a persistent domain from XML, or redefine it */
  "define-xml": { args: XmlArgs; answer: Result };
  /** define a persistent domain from XML and start it */
  "create-xml": { args: XmlArgs; answer: Result };
  /** boot a domain */
  "start": { args: NoArgs; answer: Result };
  /** ask the guest to shut down, and wait until it has */
  "shutdown": { args: NoArgs; answer: Result };
  /** stop a domain at once, as if the power were cut */
  "destroy": { args: NoArgs; answer: Result };
  /** ask the guest to reboot */
  "reboot": { args: NoArgs; answer: Result };
  /** reset a domain, as if the reset button were pressed */
  "reset": { args: NoArgs; answer: Result };
  /** pause a domain's processors */
  "suspend": { args: NoArgs; answer: Result };
  /** let a paused domain run on */
  "resume": { args: NoArgs; answer: Result };
  /** remove a domain's definition; a running one becomes transient */
  "undefine": { args: NoArgs; answer: Result };
  /** save a domain's memory to its host and stop it; start goes on from there */
  "managed-save": { args: NoArgs; answer: Result };
  /** remove what managed-save saved, so that start boots */
  "managed-save-remove": { args: NoArgs; answer: Result };
  /** say whether the host starts a domain when it boots */
  "set-autostart": { args: AutostartArgs; answer: Result };
  /** show a domain's observed state */
  "get": { args: NoArgs; answer: DomainAnswer };
  /** show a domain's XML */
  "xml": { args: NoArgs; answer: XmlAnswer };
  /** show a domain's figures: processor, memory, disks, interfaces */
  "stats": { args: NoArgs; answer: StatsAnswer };
  /** show what is recorded of a command */
  "command": { args: CommandIdArgs; answer: CommandAnswer };
  /** cancel a command that has not begun, or a job that runs */
  "cancel": { args: CommandIdArgs; answer: Result };
  /** list domains */
  "domains": { args: ListArgs; answer: DomainsAnswer };
  /** list nodes */
  "nodes": { args: ListArgs; answer: NodesAnswer };
}

/** Everything that can be asked, by its name. */
export type Verb = keyof Verbs;

/** Verbs that change a domain; they are answered with a `Result`. */
export type Command = { [V in Verb]: Verbs[V]["answer"] extends Result ? V : never }[Verb];

/** The body of a request for `V`. */
export type Request<V extends Verb> = Omit<Body, "args"> & { args?: Verbs[V]["args"] };

/** The body of the answer to `V`. */
export type Reply<V extends Verb> = (V extends Command ? Result : { ok: true; result: Verbs[V]["answer"]; error?: undefined }) | Refusal;

/** A subject on which `V` is answered: prefix, version, `api`, project, domain (`_`: none), verb. */
export type ApiSubject<V extends Verb> = `${string}.v1.api.${string}.${string}.${V}`;

/** Codes that a failure may bear. */
export type ErrorCode = "invalid" | "denied" | "not_found" | "already_exists" | "conflict" | "busy" | "no_capacity" | "cancelled" | "internal" | "unsupported" | "hypervisor" | "node_unavailable" | "deadline";
