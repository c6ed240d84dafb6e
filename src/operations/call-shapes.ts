/**
 * What the arguments of the library's calls look like. A shape says what is wrong with a value, if anything; absent is
 * right wherever it may be left out. What a value means is checked by the operation itself.
 */
export interface Shape {
  (value: unknown, name: string): string | null;
  /** Members of it that are callbacks. */
  readonly callbacks?: readonly string[];
  /** It has a member `signal`, which ends the call. */
  readonly hasSignal?: boolean;
}

function shape(wanted: string, fits: (value: unknown) => boolean): Shape {
  return (value, name) => (fits(value) ? null : `${name} is to be ${wanted}; found ${shown(value)}`);
}

const MOST_SHOWN = 60;

function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, MOST_SHOWN));
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "an object";
  return typeof value === "function" ? "a function" : String(value);
}

/** As many characters as a record's text may have. */
const MOST_TEXT = 1 << 20;

export const text = shape("text", (value) => typeof value === "string");
export const message = shape(
  `text of at most ${MOST_TEXT} characters`,
  (value) => typeof value === "string" && value.length <= MOST_TEXT,
);
/** A path of the system. */
export const place = shape("a path", (value) => typeof value === "string" && !value.includes("\0"));
/** A path as text or as raw bytes. */
export const path = shape("a path", (value) => value instanceof Uint8Array || place(value, "") === null);
export const flag = shape("true or false", (value) => typeof value === "boolean");
export const number = shape("a number", (value) => typeof value === "number" && !Number.isNaN(value));
/** A function of the caller's that is only told something; what it answers, or fails with, is no part of the call. */
export const callback = shape("a function", (value) => typeof value === "function");
export const object = shape(
  "an object",
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
);
export const signal = shape(
  "an AbortSignal",
  (value) => object(value, "") === null && typeof (value as AbortSignal).addEventListener === "function",
);
export const stream = shape(
  "an async iterable",
  (value) => typeof value === "object" && value !== null && Symbol.asyncIterator in value,
);
export const password = shape(
  "text, bytes or a function",
  (value) => typeof value === "string" || value instanceof Uint8Array || typeof value === "function",
);
export const anything: Shape = () => null;

export function oneOf(...names: readonly string[]): Shape {
  return shape(`one of ${names.join(", ")}`, (value) => names.includes(value as string));
}

export function list(of: Shape): Shape {
  return (value, name) => {
    if (!Array.isArray(value)) return `${name} is to be a list; found ${shown(value)}`;
    for (const [i, each] of value.entries()) {
      const problem = of(each, `${name}[${i}]`);
      if (problem !== null) return problem;
    }
    return null;
  };
}

/** A list that chooses. Where it is left out everything is meant, so one that came out empty would mean the opposite of what it says. */
export function some(of: Shape): Shape {
  const each = list(of);
  return (value, name) => {
    const problem = each(value, name);
    if (problem !== null || (value as unknown[]).length > 0) return problem;
    return `${name} names nothing; leave it out where everything is meant`;
  };
}

export function either(first: Shape, second: Shape): Shape {
  return (value, name) => (first(value, name) === null ? null : second(value, name));
}

export function orNull(of: Shape): Shape {
  return (value, name) => (value === null ? null : of(value, name));
}

/** May be left out. */
export function optional(of: Shape): Shape {
  const whole: Shape = (value, name) => (value === undefined ? null : of(value, name));
  return Object.assign(whole, { callbacks: of.callbacks ?? [], hasSignal: of.hasSignal === true });
}

/** An object by its members, each of which may be left out unless it is `needed`. Others are left alone, or wrong where `only` these are known. */
export function members<T>(
  of: { readonly [Name in keyof T]-?: Shape },
  { needed = [], only = false }: { needed?: readonly (keyof T)[]; only?: boolean } = {},
): Shape {
  const shapes = Object.entries<Shape>(of);
  const whole: Shape = (value, name) => {
    const problem = object(value, name);
    if (problem !== null) return problem;
    const given = value as Record<string, unknown>;
    for (const each of needed as readonly string[])
      if (given[each] === undefined) return `${name} needs the member ${each}`;
    const unknown = only ? Object.keys(given).find((each) => !Object.hasOwn(of, each)) : undefined;
    if (unknown !== undefined) return `${name} knows no member ${JSON.stringify(unknown.slice(0, MOST_SHOWN))}`;
    for (const [each, shaped] of shapes) {
      const wrong = given[each] === undefined ? null : shaped(given[each], `${name}.${each}`);
      if (wrong !== null) return wrong;
    }
    return null;
  };
  const callbacks = shapes.flatMap(([each, shaped]) => (shaped === callback ? [each] : []));
  return Object.assign(whole, { callbacks, hasSignal: shapes.some(([, shaped]) => shaped === signal) });
}
