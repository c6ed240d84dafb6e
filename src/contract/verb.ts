import type { ErrorCode } from "../errors.ts";
import type { AnySchema, Entries, Of } from "./schema.ts";
import type * as v from "valibot";

/** An argument of a call by position. */
export interface Argument<N extends string = string, S extends v.GenericSchema = v.GenericSchema> {
  readonly name: N;
  readonly schema: S;
}

/** `promise`: one answer; `stream`: one after the other; `at once`: without waiting. */
export type How = "promise" | "stream" | "at once";

/** Rules for calls over the socket, over HTTP and by tokens; a process that has the library in it may make every call. */
export interface Rights {
  /**
   * The people who may make the call: `owners` of the folder and operators; `writers`: also anybody who may write to the folder;
   * `operators` whom no token narrows; `kernel`: callers on the Unix socket without a token.
   */
  readonly by?: "owners" | "writers" | "operators" | "kernel";
  /** Options that an agent may give, none of which loses or weakens anything. Absent: the call is not for agents. */
  readonly agents?: readonly string[];
  /** It only reads: any number of such calls run at once, and beside a call that changes something. */
  readonly looks?: true;
  /** It changes nothing that lasts, or lasts as long as its caller likes: it is no job, and takes no idempotency key. */
  readonly passing?: true;
  /** Reason why no daemon does it. */
  readonly unserved?: string;
  /** The daemon checks its places itself, so that people may name them. */
  readonly checksPlaces?: true;
  /** The kind of cause that the points of an agent's call have. */
  readonly agentCause?: "tool_call";
  /** It opens files in the folder by their paths, by which whoever may write there could lead a daemon elsewhere. */
  readonly opensPaths?: true | ((call: Readonly<Record<string, unknown>>) => boolean);
  /** It gives content, of which a caller gets what the bits in the point let them read. */
  readonly givesContent?: true;
  /** It makes a folder and serves it: an agent's beside the workspace alone. */
  readonly makesFolder?: true;
  /** It tells that a folder has moved, which is served at its new place from then on. */
  readonly movesFolder?: true;
  /** The point that it makes: by it an interrupted call with an idempotency key is known to be done. */
  readonly makesPoint?: "save" | "undo";
  /** It adds or removes points. */
  readonly changesPoints?: true;
  /** Applications that offered to are asked to write nothing meanwhile. */
  readonly freezes?: true;
  /** The daemon adds to its answer if it watches the folder. */
  readonly addsWatched?: true;
  /** It lasts as long as its caller likes, and counts as no call meanwhile. */
  readonly lasts?: true;
  /** It has a line in the daemon's log, though it changes no workspace. */
  readonly logged?: true;
}

/** A thing that Cairn can do: its input, its output, its errors, and who may ask for it. */
export interface Verb extends Rights {
  /** one sentence */
  readonly about: string;
  readonly takes: readonly Argument[];
  /** the last argument; null where there is none */
  readonly options: { readonly entries: Entries } | null;
  readonly output: v.GenericSchema;
  /** codes that a caller may want to tell apart */
  readonly errors: readonly ErrorCode[];
  readonly how: How;
  /** The event that its answer is; null where it changed nothing. */
  readonly event?: (answer: never) => VerbEvent | null;
  /** The line of its command, whose `--json` data is the output; or the data by line. */
  readonly command?: string | Readonly<Record<string, AnySchema>>;
}

export function arg<const N extends string, S extends v.GenericSchema>(name: N, schema: S): Argument<N, S> {
  return { name, schema };
}

/** Type and data of an event, as `service.ts` describes them. */
export interface VerbEvent {
  type: string;
  data: object;
}

/** A verb as its file declares it: everything but what carries it out. */
export interface Declared<
  T extends readonly Argument[],
  O extends v.GenericSchema | null,
  R extends v.GenericSchema,
  H extends How,
> extends Omit<Rights, "agents"> {
  about: string;
  takes?: T;
  options?: O;
  output: R;
  errors?: readonly ErrorCode[];
  how?: H;
  command?: Verb["command"];
  event?: (answer: Of<R>) => VerbEvent | null;
  agents?: readonly (O extends v.GenericSchema ? keyof Of<O> & string : never)[];
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

export type Answer<R extends v.GenericSchema, H extends How> = H extends "stream"
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
