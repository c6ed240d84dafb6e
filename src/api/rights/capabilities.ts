import { DAEMON_CALLS } from "../../contract/daemon.ts";
import { CLIENT_VERBS, LIBRARY_VERBS } from "../../contract/index.ts";
import type { Entries, Notes } from "../../contract/schema.ts";
import type { Verb } from "../../contract/verb.ts";

/** The one table of who may make which call, with which options. */

/** Members of a call's options, as they come. */
export type Options = Readonly<Record<string, unknown>> | undefined;

export interface Capability {
  /** It only looks: any number go on at once, and beside one that changes something. */
  looks?: true;
  /** Also for those who may write to a folder that is not theirs: they get no content, and remove no points. */
  writers?: true;
  /** For operators alone, whom no token narrows. An agent is let through where it has the options below. */
  operators?: true;
  /** For callers whom the kernel names, and not for agents. */
  named?: true;
  /** It concerns nothing that lasts, or lasts as long as its caller likes: no job, and no key counts. */
  passing?: true;
  /** Options that an agent may give, none of which loses or weakens anything. Absent: the call is not for agents. */
  agents?: string;
}

const LOOK = { looks: true, writers: true, agents: "" } as const;
const OPERATOR = { operators: true } as const;
const TOKEN = { named: true, passing: true } as const;
const FREEZE = { passing: true } as const;

/** Options of a restore and its plan. `method`, `throughSqlite`, `to` and `allow` are a person's. */
const RESTORE = "target paths keepPresent cause";

const CAPABILITIES: Readonly<Record<string, Capability>> = {
  // Options that leave something out of a point, or capture a database otherwise, are a person's.
  save: { writers: true, agents: "message tags id cause onDetached skipUnchanged reread" },
  restore: { writers: true, agents: RESTORE },
  planRestore: { ...LOOK, agents: RESTORE },
  undo: { writers: true, agents: "" },
  planUndo: LOOK,
  restoreLatest: { writers: true, agents: "" },
  history: { ...LOOK, agents: "grep tag since until path all" },
  why: { ...LOOK, agents: "limit" },
  latestSavePoint: LOOK,
  hasSavePoints: LOOK,
  resolve: LOOK,
  status: LOOK,
  diff: { ...LOOK, agents: "paths" },
  show: LOOK,
  walk: LOOK,
  verify: { ...LOOK, agents: "deep throwOnDamage" },
  shortIds: LOOK,
  diffDatabase: { looks: true },
  read: { looks: true, agents: "" },
  policy: { looks: true, agents: "" },
  previewCleanup: { looks: true, agents: "retention only" },
  store: { looks: true },
  seal: { looks: true },
  doctor: { looks: true },
  verifyAll: { looks: true },
  pin: {},
  unpin: {},
  tag: {},
  runCleanup: {},
  setPolicy: {},
  fork: { operators: true, agents: "name" },
  importTree: OPERATOR,
  exportPoint: { looks: true, operators: true },
  view: OPERATOR,
  listViews: { looks: true, operators: true },
  closeView: OPERATOR,
  backupRepository: { looks: true, operators: true },
  setBackupRepository: OPERATOR,
  setEngine: OPERATOR,
  workspacePath: { looks: true, operators: true },
  daemon: { passing: true, agents: "" },
  at: { passing: true, agents: "" },
  list: { passing: true, agents: "" },
  register: { agents: "" },
  release: {},
  recover: {},
  freezeOffer: FREEZE,
  freezeBegin: FREEZE,
  frozen: FREEZE,
  freezeEnd: FREEZE,
  reload: { ...OPERATOR, passing: true },
  reconcile: OPERATOR,
  tokenCreate: TOKEN,
  tokenList: TOKEN,
  tokenRevoke: TOKEN,
};

const ITS_OWN = "it gives something that is open in its caller's own process";
const A_PROGRAM = "it runs a program, which is its caller's to run";

/** Verbs that nobody can have done by a daemon, and why. */
export const UNSERVED: Readonly<Record<string, string>> = {
  open: "`register` opens a folder that is kept, and keeps it",
  adopt: "`register` keeps a folder",
  openOrAdopt: "`register` opens a folder, or keeps it",
  init: "it makes a folder for a process that opens it: call it there, then `register` its `main`",
  openOrInit: "it makes a folder for a process that opens it: call it there, then `register` its `main`",
  initRepository: ITS_OWN,
  openRepository: ITS_OWN,
  createBackup: "it takes a repository that is open in its caller's own process",
  restoreBackup: "it takes a repository that is open in its caller's own process",
  run: A_PROGRAM,
  createMachine: A_PROGRAM,
  startMachine: A_PROGRAM,
  cloneMachine: A_PROGRAM,
  restoreMachine: A_PROGRAM,
  sealWhenIdle: "a daemon seals what is asked for alone",
};

export function rowOf(name: string): Capability | undefined {
  if (Object.hasOwn(CAPABILITIES, name)) return CAPABILITIES[name];
  return Object.hasOwn(LIBRARY_VERBS, name) && !Object.hasOwn(UNSERVED, name) ? OPERATOR : undefined;
}

/** A verb, or a call of the daemon's own; undefined where there is none of the name. */
export function callOf(name: string): Verb | undefined {
  for (const table of [DAEMON_CALLS, CLIENT_VERBS, LIBRARY_VERBS] as const)
    if (Object.hasOwn(table, name)) return (table as Readonly<Record<string, Verb>>)[name];
  return undefined;
}

/** True for a verb that takes the path of a workspace beside its own arguments. */
export function isOfWorkspace(name: string): boolean {
  return Object.hasOwn(CLIENT_VERBS, name) && !Object.hasOwn(DAEMON_CALLS, name);
}

/** Names of the calls that somebody may make. */
export function servedCalls(): string[] {
  const all = [...Object.keys(DAEMON_CALLS), ...Object.keys(CLIENT_VERBS), ...Object.keys(LIBRARY_VERBS)];
  return [...new Set(all)].filter((name) => rowOf(name) !== undefined).toSorted();
}

/** A sentence on who may make a call. */
export function whoMay(name: string): string {
  const { operators, writers, named, agents } = rowOf(name)!;
  const people =
    operators === true
      ? "For operators, whom no token narrows"
      : writers === true
        ? "For whoever may write to the folder"
        : named === true
          ? "For callers on the Unix socket without a token"
          : "For the owner of the folder and for operators";
  const forAgents =
    agents === undefined
      ? "not for agents"
      : agents === ""
        ? "and for agents"
        : `and for agents with ${agents.replaceAll(" ", ", ")}`;
  return `${people}; ${forAgents}.`;
}

export function looks(name: string): boolean {
  return rowOf(name)?.looks === true;
}

/** True for a call that changes something, which is done once for one idempotency key. */
export function isChanging(name: string): boolean {
  return isJob(name) && !looks(name);
}

/** True for a call that has one answer worth waiting for, so that it can be a job. */
export function isJob(name: string): boolean {
  const row = rowOf(name);
  return row !== undefined && row.passing !== true && callOf(name)!.how !== "stream";
}

/** True for a verb that the daemon does for the owners of a folder, and not for operators alone. */
export function isForOwners(name: string, options: Options): boolean {
  const row = rowOf(name);
  return (
    row !== undefined && row.operators !== true && Object.keys(options ?? {}).every((each) => !isPlaceOf(name, each))
  );
}

export function isForWriters(name: string): boolean {
  return rowOf(name)?.writers === true;
}

/** True for an option that names a place which the daemon would write to or read from. */
export function isPlaceOf(name: string, option: string): boolean {
  const schema = (callOf(name)?.options?.entries as Entries | undefined)?.[option] as
    | (Notes & { wrapped?: Notes })
    | undefined;
  return (schema?.wrapped ?? schema)?.as === "place";
}
