import type { Methods, Verb } from "../contract/verb.ts";
import * as backups from "./backups/index.ts";
import * as bundles from "./bundles/index.ts";
import * as care from "./care/index.ts";
import * as context from "./context/index.ts";
import * as daemon from "./daemon/index.ts";
import * as databases from "./databases/index.ts";
import * as folders from "./folders/index.ts";
import * as looking from "./looking/index.ts";
import * as machines from "./machines/index.ts";
import * as points from "./points/index.ts";
import * as repositoryCare from "./repository-care/index.ts";
import * as snapshots from "./snapshots/index.ts";

/** Tables of all verbs, by their name in the library. Every surface of a verb is made from its row. */

/** The verbs of a group, whose schemas begin with a capital letter. */
type Verbs<G> = { [K in keyof G as K extends Capitalize<K & string> ? never : K]: G[K] };

/** Joins groups without reading their verbs: in the build the file of a verb runs when its row is first read. */
function joined<A, B, C = unknown, D = unknown, E = unknown>(
  a: A,
  b?: B,
  c?: C,
  d?: D,
  e?: E,
): Verbs<A & B & C & D & E> {
  const rows = [a, b, c, d, e].flatMap((group) => Object.entries(Object.getOwnPropertyDescriptors(group ?? {})));
  const verbs = rows.filter(([name]) => !/^[A-Z]/.test(name));
  return Object.defineProperties({}, Object.fromEntries(verbs)) as Verbs<A & B & C & D & E>;
}

/** Verbs of an open workspace. */
export const CLIENT_VERBS = joined(points, looking, care, backups);

/** Verbs that need no open workspace. */
export const LIBRARY_VERBS = joined(folders, bundles, context, machines, databases);

/** Verbs of an open repository. */
export const REPOSITORY_VERBS = joined(snapshots, repositoryCare);

/** Calls of a daemon about itself. */
export const DAEMON_CALLS = joined(daemon);

export const ALL_TABLES: readonly Readonly<Record<string, Verb>>[] = [
  DAEMON_CALLS,
  CLIENT_VERBS,
  LIBRARY_VERBS,
  REPOSITORY_VERBS,
];

declare module "../errors.ts" {
  interface VerbTables {
    all: Methods<typeof CLIENT_VERBS | typeof LIBRARY_VERBS | typeof REPOSITORY_VERBS | typeof DAEMON_CALLS>;
  }
}

declare module "../contract/index.ts" {
  interface Client extends Methods<typeof CLIENT_VERBS> {}
  interface CairnLibrary extends Methods<typeof LIBRARY_VERBS> {}
}

declare module "../contract/repositories.ts" {
  interface BackupRepository extends Methods<typeof REPOSITORY_VERBS> {}
}
