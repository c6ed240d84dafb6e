import { inspect } from "node:util";
import type * as v from "valibot";
import { adviceOf, CairnError, type Hint, reworded, throwIfAborted, toCairnError, worded } from "../errors.ts";
import { checkValue, type Entries, type Notes, refuseUnknown } from "./schema.ts";
import type { How, Verb } from "./verb.ts";
import type { Cause } from "./words.ts";

type Callback = (...given: unknown[]) => unknown;
type Method = (this: unknown, ...given: unknown[]) => unknown;

/** The verbs of a table that answer otherwise than with a promise, with their kind of answer. */
type Others<T> = {
  readonly [Name in keyof T as T[Name] extends { how: "promise" } ? never : Name]: T[Name] extends { how: infer H }
    ? H
    : never;
};

/**
 * Adds a method for each verb to a class. The method checks the arguments and calls the class's own method of that name, or else
 * `perform`. Throws `usage` for wrong arguments and closed objects, `interrupted` after an abort, and only `CairnError`s; a callback
 * that throws changes nothing. The file of a verb, with its schemas, is loaded by the first call.
 */
export function makeCalls<V extends Verb, T extends Readonly<Record<string, Verb>>>(
  of: { prototype: { perform(verb: V, given: unknown[]): unknown; isClosed?: boolean } },
  verbs: T,
  others: Others<T>,
): void {
  const methods = of.prototype as unknown as Record<string, Method>;
  const { perform } = of.prototype;
  for (const name of Object.keys(verbs)) {
    const own = methods[name];
    let verb: Verb | undefined;
    const called: Method = function (...given) {
      // A promise among the arguments may be rejected before the call awaits it, or without being awaited.
      for (const each of given) if (each instanceof Promise) each.catch(() => undefined);
      if ((this as { isClosed?: boolean }).isClosed === true)
        throw new CairnError("usage", `${name}: the object was closed; open it again`);
      verb ??= verbs[name]!;
      const checked = checkArguments(name, verb, given);
      return own === undefined ? perform.call(this, verb as V, checked) : own.apply(this, checked);
    };
    const failed: Failed = (error, given) => failure(error, verb && given[verb.takes.length]);
    const how = (others as Readonly<Record<string, How>>)[name];
    const made = how === "at once" ? atOnce : how === "stream" ? streamed : promised;
    methods[name] = made(called, failed);
  }
}

/** Returns the arguments checked by the verb's schemas, options last. Throws `usage`, or `interrupted` if their signal has fired. */
function checkArguments(call: string, { takes, options }: Verb, given: readonly unknown[]): unknown[] {
  const named = (place: number): string => `${call}: argument ${place + 1}`;
  const all: unknown[] = takes.map(({ schema }, i) => {
    if (schema.type === "strict_object") refuseUnknown(schema, given[i], named(i));
    return checkValue(schema, given[i], named(i));
  });
  if (options === null) return all;
  const isLeftOut = given[takes.length] === undefined && Object.values(options.entries).every(isOptional);
  const last = isLeftOut ? {} : given[takes.length];
  refuseUnknown(options as unknown as v.GenericSchema, last, named(takes.length));
  const checked = checkValue(options as unknown as v.GenericSchema, last, named(takes.length)) as Record<
    string,
    unknown
  >;
  throwIfAborted((checked as { signal?: AbortSignal }).signal);
  for (const name of callbacksOf(options.entries)) {
    const told = checked[name] as Callback | undefined;
    if (told !== undefined) checked[name] = safeCallback(`${name} of ${call}`, told.bind(last));
  }
  return [...all, checked];
}

const isOptional = ({ type }: v.GenericSchema): boolean => type === "optional";

function callbacksOf(entries: Entries): string[] {
  const isCallback = (schema: v.GenericSchema): boolean =>
    ((schema as { wrapped?: Notes }).wrapped ?? (schema as unknown as Notes)).as === "callback";
  return Object.keys(entries).filter((name) => isCallback(entries[name]!));
}

/**
 * Makes a callback that never throws. Its first failure becomes a warning of the process. If thrown, it would end up in
 * a timer or a `finally` block, and end the process, keep a lock, or hide the call's result.
 */
function safeCallback(name: string, told: Callback): Callback {
  let isSaid = false;
  const failed = (error: unknown): void => {
    if (isSaid) return;
    isSaid = true;
    process.emitWarning(`${name} failed, and the call continues: ${inspect(error)}`, "CairnWarning");
  };
  return (...given) => {
    try {
      void Promise.resolve(told(...given)).catch(failed);
    } catch (error) {
      failed(error);
    }
  };
}

let isForPrograms = false;

/**
 * From now on hints name calls, and saves have the cause of a program: the caller in this process is not the command.
 */
export function speakOfCalls(): void {
  isForPrograms = true;
}

/** The cause of a point whose maker gives none. */
export function ownCause(): Cause {
  return { kind: isForPrograms ? "program" : "person" };
}

type Failed = (error: unknown, given: readonly unknown[]) => CairnError;

/** Makes the error of a call. If the call's signal stopped it, the error has the signal's reason, wherever the call stopped. */
function failure(error: unknown, options: unknown): CairnError {
  const failed = toCairnError(error);
  const { aborted = false, reason } = (options as { signal?: AbortSignal } | null | undefined)?.signal ?? {};
  const cause: unknown = aborted && failed.code === "interrupted" ? reason : failed.cause;
  const advice = adviceOf(failed);
  const hint = advice && inCalls(advice);
  return cause === failed.cause && hint === advice ? failed : reworded(failed, { cause, hint });
}

/** Returns a hint in the words of the callers of this process. */
export function inCalls(advice: Hint): Hint {
  return isForPrograms ? worded(advice, ({ called }) => called) : advice;
}

function promised(called: Method, failed: Failed): Method {
  return async function (...given) {
    try {
      return await called.apply(this, given);
    } catch (error) {
      throw failed(error, given);
    }
  };
}

function atOnce(called: Method, failed: Failed): Method {
  return function (...given) {
    try {
      return called.apply(this, given);
    } catch (error) {
      throw failed(error, given);
    }
  };
}

function streamed(called: Method, failed: Failed): Method {
  return async function* (...given) {
    try {
      yield* called.apply(this, given) as AsyncIterable<unknown>;
    } catch (error) {
      throw failed(error, given);
    }
  };
}
