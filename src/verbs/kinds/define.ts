import type { OpenRepository } from "../../backup/open/open-repository.ts";
import type { GenericSchema, Of, Schema } from "../../contract/schema.ts";
import type { Argument, Call, Declared, How, Rights, Verb } from "../../contract/verb.ts";
import type { Hand, LibraryHand, Opened, RepositoryHand } from "../../keep/hand.ts";
import type { Tool } from "./tool.ts";
import type { ControlPaths } from "../../workspace/place/control-layout.ts";

/** Constructors of verbs. The code behind `run` is imported when the verb is called. */

type Given<T, O> = Call<{ takes: T; options: O }>;

/** Result of `run`. */
type Carried<R extends GenericSchema, H> = H extends "stream"
  ? AsyncIterable<Of<R>> | Promise<AsyncIterable<Of<R>>>
  : Of<R> | Promise<Of<R>>;

type Known<T, O, R, H> = Rights &
  Pick<Verb, "command" | "event"> & {
    about: string;
    takes: T;
    options: O;
    output: R;
    errors: Verb["errors"];
    how: H;
    tool?: Tool;
  };

/** Needs of each kind of verb, and the function that carries it out. */
interface Kinds<T, O, R extends GenericSchema, H> {
  workspace: { tool?: Tool } & (
    | {
        needs?: undefined;
        /** The verb may need contents or digests. A save point that only a clone holds is sealed first. */
        seals?: boolean | ((...given: Given<T, O>) => boolean);
        /** Absent if the client class has the method itself. */
        run?: (hand: Hand, ...given: Given<T, O>) => Carried<R, H>;
      }
    | { needs: "control"; run(control: ControlPaths, ...given: Given<T, O>): Carried<R, H> }
    | { needs: "nothing"; run(opened: Opened, ...given: Given<T, O>): Carried<R, H> }
  );
  library: { run(hand: LibraryHand, ...given: Given<T, O>): Carried<R, H> };
  /** `access` is the call's own view of the repository. A verb that streams passes each piece to `hand`. */
  repository:
    | {
        needs?: undefined;
        run: H extends "stream"
          ? (access: OpenRepository, hand: (piece: Of<R>) => Promise<void>, ...given: Given<T, O>) => Promise<void>
          : (access: OpenRepository, ...given: Given<T, O>) => Carried<R, H>;
      }
    | { needs: "workspaces"; run(hand: RepositoryHand, ...given: Given<T, O>): Carried<R, H> };
  daemon: unknown;
}

type Kind = keyof Kinds<unknown, unknown, GenericSchema, unknown>;

type Constructor<K extends Kind> = <
  const T extends readonly Argument[] = [],
  O extends GenericSchema | null = null,
  R extends GenericSchema = Schema<void>,
  H extends How = "promise",
>(
  declared: Declared<T, O, R, H> & Kinds<T, O, R, H>[K],
) => Known<T, O, R, H>;

/** Makes the constructor of one kind, which adds `usual` and the defaults to the fields of a verb's file. */
function constructorOf<K extends Kind>(usual: Rights = {}): Constructor<K> {
  const fill = (declared: Partial<Verb>) => ({
    ...usual,
    takes: [],
    options: null,
    errors: [],
    how: "promise",
    ...declared,
  });
  return fill as unknown as Constructor<K>;
}

/** A verb of an open workspace. For its owners unless `by` says otherwise. */
export const workspaceVerb = constructorOf<"workspace">();

/** A verb that needs no open workspace. For operators unless `by` says otherwise. */
export const libraryVerb = constructorOf<"library">({ by: "operators" });

/** A verb of an open repository. No daemon offers it: the repository is open in its caller's process. */
export const repositoryVerb = constructorOf<"repository">();

/** A call of a daemon about its own affairs. */
export const daemonCall = constructorOf<"daemon">();
