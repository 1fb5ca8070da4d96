// A nats-server of our own on a free port of 127.0.0.1, with a store that goes with it.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from '@nats-io/transport-node';
import { poll } from '../lib/log.mjs';

/** NATS_SERVER, the one in a .venv of a folder above, or the one in PATH. */
function binary() {
  if (process.env.NATS_SERVER) return process.env.NATS_SERVER;
  for (let folder = import.meta.dirname; folder !== join(folder, '..'); folder = join(folder, '..')) {
    const candidate = join(folder, '.venv', 'bin', 'nats-server');
    if (existsSync(candidate)) return candidate;
  }
  return execFileSync('sh', ['-c', 'command -v nats-server'], { encoding: 'utf8' }).trim();
}

const freePort = () =>
  new Promise((resolve, reject) => {
    const probe = createServer()
      .on('error', reject)
      .listen(0, '127.0.0.1', () => {
        const { port } = probe.address();
        probe.close(() => resolve(port));
      });
  });

/** Starts it; gives its URL and a function that ends it. */
export async function startServer() {
  const port = await freePort();
  const store = mkdtempSync(join(tmpdir(), 'conformance-'));
  const child = spawn(binary(), ['--addr', '127.0.0.1', '--port', String(port), '--jetstream', '--store_dir', store], {
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const stop = async () => {
    child.kill('SIGTERM');
    await ended;
    rmSync(store, { recursive: true, force: true });
  };
  const url = `nats://127.0.0.1:${port}`;
  const up = await poll(
    () => connect({ servers: url, timeout: 500, reconnect: false }).catch(() => null),
    Boolean,
    10_000,
  );
  if (!up) {
    await stop();
    throw new Error('nats-server did not come up');
  }
  await up.close();
  return { url, stop };
}
