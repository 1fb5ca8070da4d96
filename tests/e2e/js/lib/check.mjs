// Matchers: each says what it expects and lists the places where a value differs.
import { isDeepStrictEqual } from 'node:util';

export class Mismatch extends Error {
  constructor(expected, got) {
    super(`expected ${expected} got ${got}`);
  }
}

export function show(value) {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

const matcher = (label, test) => ({
  label,
  problems: (value, path) => (test(value) ? [] : [{ path, expected: label, got: show(value) }]),
});

const pattern = (label, regexp) => matcher(label, (value) => typeof value === 'string' && regexp.test(value));
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

export const any = matcher('anything', () => true);
export const is = (expected) => matcher(show(expected), (value) => isDeepStrictEqual(value, expected));
export const oneOf = (...values) => matcher(`one of ${values.map(show).join(' ')}`, (value) => values.includes(value));
export const that = matcher;
export const string = matcher('a string', (value) => typeof value === 'string');
export const text = matcher('a string, not empty', (value) => typeof value === 'string' && value !== '');
export const bool = matcher('true or false', (value) => typeof value === 'boolean');
export const number = matcher('a number >= 0', (value) => typeof value === 'number' && value >= 0);
export const integer = matcher('an integer >= 0', (value) => Number.isInteger(value) && value >= 0);
export const positive = matcher('an integer > 0', (value) => Number.isInteger(value) && value > 0);
export const object = matcher('an object', isObject);
export const absent = matcher('nothing', (value) => value === undefined || value === null);
export const ulid = pattern('a ULID', /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/);
export const digits16 = pattern('16 digits', /^\d{16}$/);
export const uuid = pattern('a UUID, lower case', /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
export const instant = pattern('an RFC 3339 time', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/);
export const utcMicros = pattern('a UTC time', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
export const commandId = pattern('a command id', /^[A-Za-z0-9_-]{1,64}$/);

export const optional = (inner) => ({
  label: `${inner.label}, or nothing`,
  problems: (value, path) => (value === undefined ? [] : inner.problems(value, path)),
});

export const nullable = (inner) => ({
  label: `${inner.label}, or null`,
  problems: (value, path) => (value === null ? [] : inner.problems(value, path)),
});

export const either = (...inner) => {
  const label = inner.map((one) => one.label).join(' or ');
  return matcher(label, (value) => inner.some((one) => one.problems(value, '').length === 0));
};

export const listOf = (inner) => ({
  label: `a list of ${inner.label}`,
  problems: (value, path) =>
    Array.isArray(value)
      ? value.flatMap((item, index) => inner.problems(item, `${path}[${index}]`))
      : [{ path, expected: 'a list', got: show(value) }],
});

export const mapOf = (inner) => ({
  label: `an object of ${inner.label}`,
  problems: (value, path) =>
    isObject(value)
      ? Object.entries(value).flatMap(([key, item]) => inner.problems(item, `${path}.${key}`))
      : [{ path, expected: 'an object', got: show(value) }],
});

/** An object with at least these fields; fields that are not named are ignored, as readers do. */
export const fields = (spec) => ({
  label: `an object with ${Object.keys(spec).join(', ')}`,
  problems: (value, path) =>
    isObject(value)
      ? Object.entries(spec).flatMap(([key, inner]) => inner.problems(value[key], path ? `${path}.${key}` : key))
      : [{ path, expected: `an object with ${Object.keys(spec).join(', ')}`, got: show(value) }],
});

/** Throws one Mismatch that names every place that differs (the first four in full). */
export function match(value, inner) {
  const problems = inner.problems(value, '');
  if (problems.length === 0) return;
  const at = ({ path, expected }) => (path ? `${path}: ${expected}` : expected);
  const some = problems.slice(0, 4);
  const more = problems.length > some.length ? ` (and ${problems.length - some.length} more)` : '';
  const got = some.map((one) => (one.path ? `${one.path}: ${one.got}` : one.got));
  throw new Mismatch(some.map(at).join('; '), got.join('; ') + more);
}

export function equal(got, expected, what = '') {
  if (!isDeepStrictEqual(got, expected)) throw new Mismatch(`${what && `${what} `}${show(expected)}`, show(got));
}

export function holds(condition, expected, got) {
  if (!condition) throw new Mismatch(expected, typeof got === 'string' ? got : show(got));
}
