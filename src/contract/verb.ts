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

/** Rules by which a daemon serves a verb over its socket, HTTP and MCP. A process that loads the library may call every verb. */
export interface Rights {
  /**
   * People who may make the call. `owners`: the folder's owner and operators. `writers`: also users with write access to the folder.
   * `operators`: those without a narrowed token. `kernel`: callers on the Unix socket without a token.
   */
  readonly by?: "owners" | "writers" | "operators" | "kernel";
  /** Options that an agent may give; none of them loses or weakens anything. If absent, agents may not make the call. */
  readonly agents?: readonly string[];
  /** The call only reads: it can run beside every other call, and is tried again if another process moved a pack away. */
  readonly looks?: true;
  /** Options with which a call of a verb that `looks` changes something. */
  readonly changesWith?: readonly string[];
  /** The call needs nothing of the folder: it works while the folder's mount does not answer. */
  readonly withoutFolder?: true;
  /** The call writes to the control directory, though it `looks`: a result, or the content of a clone. */
  readonly stores?: true;
  /** The call changes nothing durable, or lasts as long as its caller wants: it cannot be a job and takes no idempotency key. */
  readonly passing?: true;
  /** Reason why no daemon serves the verb. */
  readonly unserved?: string;
  /** The page of `cairn ui` makes the call in its own process, with the rights of its user, though no daemon serves the verb. */
  readonly forPage?: true;
  /** The daemon checks the paths in the options itself, so people may name paths. */
  readonly checksPlaces?: true;
  /** The kind of cause that the save points of an agent's call have. */
  readonly agentCause?: "tool_call";
  /**
   * The call opens files in the folder by path. A user with write access to the folder could redirect a daemon by a link, so agents
   * and other users are refused.
   */
  readonly opensPaths?: true | ((call: Readonly<Record<string, unknown>>) => boolean);
  /** The call returns content of a file; its mode bits in the save point decide if the caller may read it. */
  readonly givesContent?: true;
  /** The call makes a folder that the daemon serves afterwards. An agent's folder must be beside the workspace. */
  readonly makesFolder?: true;
  /** The call records that a folder was moved; the daemon serves it at the new path afterwards. */
  readonly movesFolder?: true;
  /**
   * The save point that the call makes. The point proves whether a call with an idempotency key was done before a kill.
   */
  readonly makesPoint?: "save" | "undo";
  /** The call adds or removes save points. */
  readonly changesPoints?: true;
  /** The call waits for the folder's turn itself, only while it saves. */
  readonly takesTurns?: true;
  /** The daemon asks applications that offered a freeze to stop writing during the call. */
  readonly freezes?: true;
  /** The daemon adds `watched` to the answer. */
  readonly addsWatched?: true;
  /** The call lasts until its caller ends it, and does not count against the limit of concurrent calls. */
  readonly lasts?: true;
  /** The daemon logs the call, though it changes no workspace. */
  readonly logged?: true;
}

/** An operation of Cairn: its input, output, errors and rights. */
export interface Verb extends Rights {
  /** one sentence */
  readonly about: string;
  readonly takes: readonly Argument[];
  /** the last argument; null if there is none */
  readonly options: { readonly entries: Entries } | null;
  readonly output: v.GenericSchema;
  /** codes that a caller may want to tell apart */
  readonly errors: readonly ErrorCode[];
  readonly how: How;
  /** Returns the event of an answer; null if the call changed nothing. */
  readonly event?: (answer: never) => VerbEvent | null;
  /** The verb's command line, if the command's `--json` data is the output; else the data by command line. */
  readonly command?: string | Readonly<Record<string, AnySchema>>;
}

export function arg<const N extends string, S extends v.GenericSchema>(name: N, schema: S): Argument<N, S> {
  return { name, schema };
}

/** Type and data of an event, as `service.ts` describes them. */
interface VerbEvent {
  type: string;
  data: object;
}

/** Fields of a verb without its function. */
export interface Declared<
  T extends readonly Argument[],
  O extends v.GenericSchema | null,
  R extends v.GenericSchema,
  H extends How,
> extends Omit<Rights, "agents" | "changesWith"> {
  about: string;
  takes?: T;
  options?: O;
  output: R;
  errors?: readonly ErrorCode[];
  how?: H;
  command?: Verb["command"];
  event?: (answer: Of<R>) => VerbEvent | null;
  agents?: readonly OptionOf<O>[];
  changesWith?: readonly OptionOf<O>[];
}

type OptionOf<O> = O extends v.GenericSchema ? keyof Of<O> & string : never;

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

/** The method of a verb in the library. */
export type Method<V> = V extends {
  takes: infer T extends readonly Argument[];
  options: infer O;
  output: infer R extends v.GenericSchema;
  how: infer H extends How;
}
  ? (...given: [...Given<T>, ...Options<O>]) => Answer<R, H>
  : never;

/** The checked arguments of such a method, with its options. */
export type Call<V> = V extends { takes: infer T extends readonly Argument[]; options: infer O }
  ? [...Given<T>, ...(O extends v.GenericSchema ? [options: Of<O>] : [])]
  : never;

export type Methods<Table> = { [Name in keyof Table]: Method<Table[Name]> };
