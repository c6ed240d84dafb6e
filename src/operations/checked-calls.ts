import { CairnError, toCairnError } from "../errors.ts";
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

type Method = (this: unknown, ...given: unknown[]) => unknown;

/**
 * Makes the methods of a class the boundary that they are promised to be: arguments that do not look as the table says are
 * `usage`, and whatever else a method fails with is a `CairnError`. The one place where calls of other programs come in.
 */
export function checkCalls(of: { prototype: object }, calls: Readonly<Record<string, Call>>): void {
  const methods = of.prototype as Record<string, Method>;
  for (const [name, { takes, how }] of Object.entries(calls)) {
    const whole = methods[name]!;
    const called: Method = function (...given) {
      checkArguments(name, takes, given);
      return whole.apply(this, given);
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
