import * as v from "valibot";
import { CairnError } from "../errors.ts";

/**
 * The parts of which schemas are made. A schema gives the type of a value, its check, its option of the command and its
 * line in the documents.
 */
export type AnySchema = v.GenericSchema;
export type Schema<T = unknown> = v.GenericSchema<T> & Notes;
export type Entries = Readonly<Record<string, v.GenericSchema>>;
/** Any schema, of whatever type. */
export type GenericSchema = v.GenericSchema;
export type Of<S extends v.GenericSchema> = v.InferOutput<S>;

export interface Notes {
  /** a phrase that describes the value */
  readonly about?: string;
  /** how text becomes the value, and how a shell completes it */
  readonly as?:
    | "callback"
    | "signal"
    | "open"
    | "place"
    | "path"
    | "size"
    | "rate"
    | "count"
    | "count or all"
    | "span"
    | "share"
    | "part";
  /** the TypeScript type that declarations print, if the schema does not show it */
  readonly prints?: string;
  /** the same schema with its original phrase */
  readonly original?: object;
  /** a list that the library takes and never changes */
  readonly frozen?: boolean;
  /** options of the command, if they differ from the one made of the member's name and type */
  readonly line?: readonly Line[];
}

/** An option of a command that gives a member of a verb's options. */
export interface Line {
  /** in commander's form: `-m, --message <text>`; default: made of the member's name and type */
  readonly flags?: string;
  /** default: the schema's phrase */
  readonly text?: string;
  /** the value that the flag stands for; default `true` */
  readonly value?: unknown;
  readonly values?: readonly string[];
  /** the text has the items of a list, with commas between them */
  readonly split?: true;
}

function noted<S extends object>(schema: S, notes: Notes): S {
  return Object.assign(schema, notes);
}

/** Returns the schema with another phrase. */
export function about<S extends object>(schema: S, phrase: string): S {
  return { ...schema, about: phrase, original: (schema as Notes).original ?? schema };
}

/** Returns the phrase of a schema; for an optional or nullable schema that of the inner one. */
export function phraseOf(schema: v.GenericSchema): string {
  const { about: phrase, wrapped } = schema as unknown as Notes & { wrapped?: v.GenericSchema };
  return phrase ?? (wrapped === undefined ? "" : phraseOf(wrapped));
}

/** Returns the schema with its options of the command, or with its flags alone. */
export function named<S extends object>(schema: S, ...line: readonly (string | Line)[]): S {
  return { ...schema, line: line.map((each) => (typeof each === "string" ? { flags: each } : each)) };
}

/** A value of a type that only code can check; `wanted`: the expected value, for the error. */
export function custom<T>(prints: string, wanted: string, fits: (value: unknown) => boolean, notes: Notes = {}) {
  return noted(v.custom<T>(fits, wanted), { prints, ...notes });
}

const isText = (value: unknown): value is string => typeof value === "string";
const isPlace = (value: unknown): boolean => isText(value) && !value.includes("\0");
const isFunction = (value: unknown): boolean => typeof value === "function";

export const text = (phrase?: string) => noted(v.string("text"), { about: phrase });
const bounded = (most: number, about?: string) =>
  custom<string>("string", `text of at most ${most} characters`, (value) => isText(value) && value.length <= most, {
    about,
  });
/** Text with at most as many characters as a record's text may have. */
export const message = (phrase?: string) => bounded(1 << 20, phrase);
/** A command or query that Cairn stores; see `MOST_COMMAND`. */
export const storedCommand = (phrase?: string) => bounded(4096, phrase);
export const flag = (phrase?: string) => noted(v.boolean("true or false"), { about: phrase });
export const number = (phrase?: string) => noted(v.number("a number"), { about: phrase });
/** A whole number. */
export const count = (phrase?: string) => noted(v.number("a number"), { about: phrase, as: "count" });
/** Bytes; on the command line `500M` or `2GiB`. */
export const size = (phrase?: string) => noted(v.number("a number"), { about: phrase, as: "size" });
/** Bytes a second; on the command line as a size. */
export const rate = (phrase?: string) => noted(v.number("a number"), { about: phrase, as: "rate" });
/** A share from 0 to 1; on the command line a percentage. */
export const share = (phrase?: string) => noted(v.number("a number"), { about: phrase, as: "share" });
/** One of several equal parts; on the command line `n/m`, or a percentage for any part of that size. */
export const part = (phrase?: string) =>
  noted(v.object({ part: number(), of: number() }, "an object"), { about: phrase, as: "part" });
/** A time span such as `30d` or `1y6m`. */
export const span = (phrase?: string) =>
  custom<string>("string", "anything", () => true, { about: phrase, as: "span" });
/** Schema of a verb without an answer. */
export const nothing = () => v.void();
export const anything = (phrase?: string) => noted(v.unknown(), { about: phrase });
/** A path of the system, as text. */
export const place = (phrase?: string) => custom<string>("string", "a path", isPlace, { about: phrase, as: "place" });
/** A path inside a workspace or snapshot: text, or raw bytes if it is not UTF-8. */
export const path = (phrase?: string) =>
  custom<string | Uint8Array>(
    "string | Uint8Array",
    "a path",
    (value) => value instanceof Uint8Array || isPlace(value),
    {
      about: phrase,
      as: "path",
    },
  );
/** A callback. Its result and its errors do not affect the call. */
export const callback = <F>(prints: string, phrase?: string) =>
  custom<F>(prints, "a function", isFunction, { about: phrase, as: "callback" });

export function oneOf<const V extends readonly (string | null)[]>(values: V, phrase?: string) {
  return noted(v.picklist(values as readonly string[], `one of ${values.join(", ")}`), {
    about: phrase,
  }) as unknown as v.PicklistSchema<Extract<V, v.PicklistOptions>, string> & Notes;
}

/** A list as an argument. */
export function list<S extends v.GenericSchema>(of: S, phrase?: string) {
  return noted(v.array(of, "a list"), { about: phrase, frozen: true }) as unknown as Schema<readonly Of<S>[]> & {
    readonly item: S;
  };
}

/** A list that selects. Left out it selects everything, so an empty list is refused: it would mean the opposite of its content. */
export function some<S extends v.GenericSchema>(of: S, phrase?: string) {
  return noted(v.pipe(v.array(of, "a list"), v.minLength(1)), {
    about: phrase,
    frozen: true,
  }) as unknown as Schema<readonly Of<S>[]> & { readonly item: S };
}

/** A list in a result. */
export const rows = <S extends v.GenericSchema>(of: S, phrase?: string) =>
  noted(v.array(of, "a list"), { about: phrase });
/** An optional member, with its options of the command. */
export const opt = <S extends v.GenericSchema>(of: S, ...line: readonly (string | Line)[]) =>
  line.length === 0 ? v.optional(of) : named(v.optional(of), ...line);
export const orNull = <S extends v.GenericSchema>(of: S) => v.nullable(of);

/** An object by its members. Unknown members are dropped. */
export const object = <E extends v.ObjectEntries>(entries: E, phrase?: string) =>
  noted(v.object(entries, "an object"), { about: phrase });
/** An object without other members: a rule with a wrong name would be lost. */
export const strict = <E extends v.ObjectEntries>(entries: E, phrase?: string) =>
  noted(v.strictObject(entries, "an object"), { about: phrase });
export const record = (phrase?: string) =>
  noted(v.record(v.string(), v.unknown(), "an object"), { about: phrase, prints: "Record<string, unknown>" });

/** Texts by names that are not known in advance. */
export const texts = (phrase?: string) =>
  noted(v.record(v.string(), v.string(), "an object"), { about: phrase, prints: "Record<string, string>" });

export function pick<E extends Entries, K extends keyof E>(
  of: { readonly entries: E },
  ...names: readonly K[]
): Pick<E, K> {
  return Object.fromEntries(names.map((name) => [name, of.entries[name]])) as Pick<E, K>;
}

export function omit<E extends Entries, K extends keyof E>(
  of: { readonly entries: E },
  ...names: readonly K[]
): Omit<E, K> {
  const left = Object.entries(of.entries).filter(([name]) => !names.includes(name as K));
  return Object.fromEntries(left) as unknown as Omit<E, K>;
}

const MOST_SHOWN = 60;

function shown(value: unknown): string {
  if (isText(value)) return JSON.stringify(value.slice(0, MOST_SHOWN));
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "an object";
  return isFunction(value) ? "a function" : String(value);
}

/** Returns a value checked by its schema, without unknown members. Throws `usage`, which calls the value `name`. */
export function checkValue<S extends v.GenericSchema>(schema: S, value: unknown, name: string): Of<S> {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success && !(schema.type === "object" && Array.isArray(value))) return result.output;
  throw new CairnError("usage", problemOf(result.issues?.[0], value, name));
}

/**
 * Throws `usage` for an unknown member of an object of options, also in inner objects: a misspelt option would be lost.
 */
export function refuseUnknown(schema: v.GenericSchema, value: unknown, name: string): void {
  const { wrapped, entries } = schema as unknown as { wrapped?: v.GenericSchema; entries?: Entries };
  if (wrapped !== undefined) return refuseUnknown(wrapped, value, name);
  if (entries === undefined || typeof value !== "object" || value === null) return;
  for (const [key, member] of Object.entries(value)) {
    if (Object.hasOwn(entries, key)) refuseUnknown(entries[key]!, member, `${name}.${key}`);
    else if (member !== undefined) throw new CairnError("usage", unknownMember(name, key, Object.keys(entries)));
  }
}

/** The message for an unknown key. Proposes a known key with a similar spelling. */
export function unknownMember(name: string, key: unknown, known: readonly string[]): string {
  const nearest = known.toSorted((a, b) => distance(String(key), a) - distance(String(key), b))[0];
  const isNear = nearest !== undefined && distance(String(key), nearest) <= Math.max(1, nearest.length / 3);
  return `${name} has no member ${shown(key)}${isNear ? `; did you mean ${nearest}?` : ""}`;
}

/** Counts the letters to add, remove or replace to turn one word into the other. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (const [i, letter] of a.slice(0, MOST_SHOWN).toLowerCase().split("").entries()) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++)
      next.push(Math.min(row[j + 1]! + 1, next[j]! + 1, row[j]! + (letter === b[j]!.toLowerCase() ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}

function problemOf(issue: v.BaseIssue<unknown> | undefined, value: unknown, name: string): string {
  if (issue === undefined) return `${name} must be an object; found ${shown(value)}`;
  const keys = (issue.path ?? []).map(({ key }) => key as string | number);
  const pathTo = (some: readonly (string | number)[]): string =>
    name + some.map((key) => (typeof key === "number" ? `[${key}]` : `.${key}`)).join("");
  if (issue.type === "min_length") return `${pathTo(keys)} is an empty list; leave it out to mean everything`;
  if (issue.expected === "never") return `${pathTo(keys.slice(0, -1))} has no member ${shown(keys.at(-1))}`;
  if (issue.type.endsWith("object") && issue.expected?.startsWith('"') === true)
    return `${pathTo(keys.slice(0, -1))} needs the member ${keys.at(-1)}`;
  return `${pathTo(keys)} must be ${issue.message}; found ${shown(issue.input)}`;
}
