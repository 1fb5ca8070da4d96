// One line a law, TAP style.
import { Mismatch } from './check.mjs';

export class Tap {
  #write;
  passed = 0;
  failed = 0;

  constructor(write = (line) => process.stdout.write(`${line}\n`)) {
    this.#write = write;
  }

  /** Runs a check; it holds if the check does not throw. Never throws itself. Returns whether it held. */
  async law(name, check) {
    try {
      await check();
    } catch (error) {
      this.failed += 1;
      const why = error instanceof Mismatch ? error.message : `expected no exception got ${error?.stack ?? error}`;
      this.#write(`not ok - ${name}: ${why.replace(/\s*\n\s*/g, ' | ')}`);
      return false;
    }
    this.passed += 1;
    this.#write(`ok - ${name}`);
    return true;
  }

  /** What the document leaves open, or what was tolerated: to read, not to count. */
  note(text) {
    this.#write(`# ${text}`);
  }

  end() {
    this.#write(`1..${this.passed + this.failed}`);
    this.#write(`${this.passed} passed, ${this.failed} failed`);
    return this.failed === 0 ? 0 : 1;
  }
}
