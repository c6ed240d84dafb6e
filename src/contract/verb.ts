import type { ErrorCode } from "../errors.ts";
import type { Entries, Of, Schema } from "./schema.ts";
import type * as v from "valibot";

/** An argument of a call by position. */
export interface Argument<N extends string = string, S extends v.GenericSchema = v.GenericSchema> {
  readonly name: N;
  readonly schema: S;
}

/** `promise`: one answer; `stream`: one after the other; `at once`: without waiting. */
export type How = "promise" | "stream" | "at once";

/** A thing that Cairn can do: its input, its output and its errors. */
export interface Verb {
  /** one sentence */
  readonly about: string;
  readonly takes: readonly Argument[];
  /** the last argument; null where there is none */
  readonly options: { readonly entries: Entries } | null;
  readonly output: v.GenericSchema;
  /** codes that a caller may want to tell apart */
  readonly errors: readonly ErrorCode[];
  readonly how: How;
}

export function arg<const N extends string, S extends v.GenericSchema>(name: N, schema: S): Argument<N, S> {
  return { name, schema };
}

interface Said<T extends readonly Argument[], O, R extends v.GenericSchema, H extends How> {
  about: string;
  takes?: T;
  options?: O;
  output: R;
  errors?: readonly ErrorCode[];
  how?: H;
}

export function verb<
  const T extends readonly Argument[] = [],
  O extends v.GenericSchema | null = null,
  R extends v.GenericSchema = Schema<void>,
  H extends How = "promise",
>(said: Said<T, O, R, H>) {
  const { about, takes = [] as unknown as T, options = null as O, output, errors = [], how = "promise" as H } = said;
  return { about, takes, options, output, errors, how };
}

/** A verb's arguments by position. */
type Given<T extends readonly Argument[]> = T extends readonly [
  infer A extends Argument,
  ...infer Rest extends readonly Argument[],
]
  ? undefined extends Of<A["schema"]>
    ? [given?: Of<A["schema"]>, ...Given<Rest>]
    : [given: Of<A["schema"]>, ...Given<Rest>]
  : [];

type Options<O> = O extends v.GenericSchema ? ({} extends Of<O> ? [options?: Of<O>] : [options: Of<O>]) : [];

type Answer<R extends v.GenericSchema, H extends How> = H extends "stream"
  ? AsyncIterable<Of<R>>
  : H extends "at once"
    ? Of<R>
    : Promise<Of<R>>;

/** The method that a verb is in the library. */
export type Method<V> = V extends {
  takes: infer T extends readonly Argument[];
  options: infer O;
  output: infer R extends v.GenericSchema;
  how: infer H extends How;
}
  ? (...given: [...Given<T>, ...Options<O>]) => Answer<R, H>
  : never;

/** All that such a method is given once it was checked, its options too. */
export type Call<V> = V extends { takes: infer T extends readonly Argument[]; options: infer O }
  ? [...Given<T>, ...(O extends v.GenericSchema ? [options: Of<O>] : [])]
  : never;

export type Methods<Table> = { [Name in keyof Table]: Method<Table[Name]> };
