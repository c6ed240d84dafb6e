import type { OpenRepository } from "../../backup/open/open-repository.ts";
import type { GenericSchema, Of, Schema } from "../../contract/schema.ts";
import type { Argument, Call, Declared, How, Rights, Verb } from "../../contract/verb.ts";
import type { Hand, LibraryHand, Opened } from "../../operations/hand.ts";
import type { Tool } from "./tool.ts";
import type { ControlPaths } from "../../workspace/place/control-layout.ts";

/** Constructors of verbs. The code behind `run` is imported when the verb is called. */

type Given<T, O> = Call<{ takes: T; options: O }>;

/** Result of `run`. */
type Carried<R extends GenericSchema, H> = H extends "stream"
  ? AsyncIterable<Of<R>> | Promise<AsyncIterable<Of<R>>>
  : Of<R> | Promise<Of<R>>;

/** Needs of a verb of a workspace, and the function that carries it out. */
type WorkspaceRun<T, O, R extends GenericSchema, H> =
  | {
      /** a workspace */
      needs?: undefined;
      /** The verb may need contents or digests. A save point that only a clone holds is sealed first. */
      seals?: boolean | ((...given: Given<T, O>) => boolean);
      /** The verb only reads, so it is tried again if another process moved a pack away. */
      reads?: boolean;
      /** Absent if the client class has the method itself. */
      run?: (hand: Hand, ...given: Given<T, O>) => Carried<R, H>;
    }
  | { needs: "control"; run(control: ControlPaths, ...given: Given<T, O>): Carried<R, H> }
  | { needs: "nothing"; run(opened: Opened, ...given: Given<T, O>): Carried<R, H> };

/** `access` is the call's own view of the repository. A verb that streams passes each piece to `hand`. */
type RepositoryRun<T, O, R extends GenericSchema, H> = H extends "stream"
  ? (access: OpenRepository, hand: (piece: Of<R>) => Promise<void>, ...given: Given<T, O>) => Promise<void>
  : (access: OpenRepository, ...given: Given<T, O>) => Carried<R, H>;

/** A verb with the types of its schemas. */
type Known<T, O, R, H> = Rights &
  Pick<Verb, "command" | "event"> & {
    about: string;
    takes: T;
    options: O;
    output: R;
    errors: Verb["errors"];
    how: H;
  };

function known<T extends readonly Argument[], O extends GenericSchema | null, R extends GenericSchema, H extends How>(
  declared: Declared<T, O, R, H>,
): Known<T, O, R, H> {
  const { takes = [] as unknown as T, options = null as O, errors = [], how = "promise" as H, ...rest } = declared;
  return { ...rest, takes, options, errors, how };
}

/** A verb of an open workspace. For its owners unless `by` says otherwise. */
export function workspaceVerb<
  const T extends readonly Argument[] = [],
  O extends GenericSchema | null = null,
  R extends GenericSchema = Schema<void>,
  H extends How = "promise",
>(declared: Declared<T, O, R, H> & WorkspaceRun<T, O, R, H> & { tool?: Tool }): Known<T, O, R, H> & { tool?: Tool } {
  return known(declared);
}

/** A verb that needs no open workspace. For operators unless `by` says otherwise. */
export function libraryVerb<
  const T extends readonly Argument[] = [],
  O extends GenericSchema | null = null,
  R extends GenericSchema = Schema<void>,
  H extends How = "promise",
>(
  declared: Declared<T, O, R, H> & { run(hand: LibraryHand, ...given: Given<T, O>): Carried<R, H> },
): Known<T, O, R, H> {
  return known({ by: "operators", ...declared });
}

/** A verb of an open repository. No daemon does it: the repository is open in its caller's process. */
export function repositoryVerb<
  const T extends readonly Argument[] = [],
  O extends GenericSchema | null = null,
  R extends GenericSchema = Schema<void>,
  H extends How = "promise",
>(declared: Declared<T, O, R, H> & { run: RepositoryRun<T, O, R, H> }): Known<T, O, R, H> {
  return known(declared);
}

/** A call of a daemon about its own affairs. */
export function daemonCall<
  const T extends readonly Argument[] = [],
  O extends GenericSchema | null = null,
  R extends GenericSchema = Schema<void>,
  H extends How = "promise",
>(declared: Declared<T, O, R, H>): Known<T, O, R, H> {
  return known(declared);
}
