// An append-only list of what was received, which can be waited on for a bounded time.

export class Log {
  #waiters = new Set();
  records = [];

  get length() {
    return this.records.length;
  }

  push(record) {
    record.index = this.records.length;
    this.records.push(record);
    for (const waiter of [...this.#waiters]) waiter(record);
  }

  filter(predicate, from = 0) {
    return this.records.slice(from).filter(predicate);
  }

  /** The first record from index `from` on that fits, or undefined after `ms` milliseconds. */
  wait(predicate, ms, from = 0) {
    const known = this.records.slice(from).find(predicate);
    if (known) return Promise.resolve(known);
    return new Promise((resolve) => {
      const finish = (record) => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
        resolve(record);
      };
      const waiter = (record) => predicate(record) && finish(record);
      const timer = setTimeout(finish, ms, undefined);
      this.#waiters.add(waiter);
    });
  }
}

/** Follows a stream from a sequence on with an ordered consumer; `read` turns each message into a record. */
export async function tail(js, stream, sequence, read) {
  const log = new Log();
  const consumer = await js.consumers.get(stream, { deliver_policy: 'by_start_sequence', opt_start_seq: sequence });
  const messages = await consumer.consume();
  (async () => {
    for await (const message of messages) log.push(read(message));
  })().catch((error) => log.push({ broken: error }));
  log.stop = () => messages.close();
  return log;
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Calls `probe` until it gives something that fits, for a bounded time; returns the last value. */
export async function poll(probe, fits, ms) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await probe();
    if (fits(value) || Date.now() >= end) return value;
    await sleep(50);
  }
}
