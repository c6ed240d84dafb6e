import { inspect } from "node:util";
import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import type { Shape } from "./call-shapes.ts";

/** Names of an interface's methods. */
export type CallsOf<T> = {
  [Name in keyof T & string]: T[Name] extends (...given: never) => unknown ? Name : never;
}[keyof T & string];

/** What a call takes, in order; `how` it answers where that is no promise. */
export interface Call {
  readonly takes: readonly Shape[];
  readonly how?: "at once" | "stream";
}

type Callback = (...given: unknown[]) => unknown;
type Method = (this: unknown, ...given: unknown[]) => unknown;

/**
 * Makes the methods of a class the boundary that they are promised to be: arguments that do not look as the table says are
 * `usage`, a call whose signal has fired is `interrupted` before it has done anything, whatever else a method fails with is
 * a `CairnError`, and what a callback fails with changes nothing of the call. The one place where calls of other programs
 * come in.
 */
export function checkCalls(of: { prototype: object }, calls: Readonly<Record<string, Call>>): void {
  const methods = of.prototype as Record<string, Method>;
  for (const [name, { takes, how }] of Object.entries(calls)) {
    const whole = methods[name]!;
    const called: Method = function (...given) {
      // What was promised to the call may fail before it is waited for, or when it never is.
      for (const each of given) if (each instanceof Promise) each.catch(() => undefined);
      checkArguments(name, takes, given);
      for (const [i, { hasSignal }] of takes.entries())
        if (hasSignal === true) throwIfAborted((given[i] as { signal?: AbortSignal } | undefined)?.signal);
      const safe = given.map((each, i) => withSafeCallbacks(name, takes[i]?.callbacks ?? [], each));
      return whole.apply(this, safe);
    };
    methods[name] = how === "at once" ? atOnce(called) : how === "stream" ? streamed(called) : promised(called);
  }
}

function checkArguments(call: string, takes: readonly Shape[], given: readonly unknown[]): void {
  for (const [i, shape] of takes.entries()) {
    const problem = shape(given[i], `argument ${i + 1}`);
    if (problem !== null) throw new CairnError("usage", `${call}: ${problem}`);
  }
}

/** The same options with callbacks that never fail. */
function withSafeCallbacks(call: string, callbacks: readonly string[], given: unknown): unknown {
  if (given === undefined) return given;
  const options = given as Record<string, Callback | undefined>;
  const safe = callbacks.flatMap((name) => {
    const told = options[name];
    return told === undefined ? [] : [[name, safeCallback(`${name} of ${call}`, told.bind(options))] as const];
  });
  return safe.length === 0 ? given : { ...options, ...Object.fromEntries(safe) };
}

/**
 * What a callback throws, or its promise fails with, would end up in a timer or a `finally` block: it would end the process,
 * keep a lock, or hide what the call has come to. So the first time it is a warning of the process, and that is all.
 */
function safeCallback(name: string, told: Callback): Callback {
  let isSaid = false;
  const failed = (error: unknown): void => {
    if (isSaid) return;
    isSaid = true;
    process.emitWarning(`${name} failed, and the call goes on: ${inspect(error)}`, "CairnWarning");
  };
  return (...given) => {
    try {
      void Promise.resolve(told(...given)).catch(failed);
    } catch (error) {
      failed(error);
    }
  };
}

function promised(called: Method): Method {
  return async function (...given) {
    try {
      return await called.apply(this, given);
    } catch (error) {
      throw toCairnError(error);
    }
  };
}

function atOnce(called: Method): Method {
  return function (...given) {
    try {
      return called.apply(this, given);
    } catch (error) {
      throw toCairnError(error);
    }
  };
}

function streamed(called: Method): Method {
  return async function* (...given) {
    try {
      yield* called.apply(this, given) as AsyncIterable<unknown>;
    } catch (error) {
      throw toCairnError(error);
    }
  };
}
