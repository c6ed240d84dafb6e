import type { Entries, Notes } from "../../contract/schema.ts";
import type { Verb } from "../../contract/verb.ts";
import { CLIENT_VERBS, DAEMON_CALLS, LIBRARY_VERBS } from "../../verbs/index.ts";

/** Decides who may make which call with which options, from the fields of the verbs. */

/** Members of a call's options, unchecked. */
export type Options = Readonly<Record<string, unknown>> | undefined;

/** Returns a verb or a call of the daemon; undefined for an unknown name. */
export function callOf(name: string): Verb | undefined {
  for (const table of [DAEMON_CALLS, CLIENT_VERBS, LIBRARY_VERBS] as const)
    if (Object.hasOwn(table, name)) return (table as Readonly<Record<string, Verb>>)[name];
  return undefined;
}

/** Returns a verb that a daemon serves to some callers; undefined for any other name. */
export function servedCall(name: string): Verb | undefined {
  const verb = callOf(name);
  return verb?.unserved === undefined ? verb : undefined;
}

/** True for a verb that takes a workspace's path besides its own arguments. */
export function isOfWorkspace(name: string): boolean {
  return Object.hasOwn(CLIENT_VERBS, name) && !Object.hasOwn(DAEMON_CALLS, name);
}

/** Names of the calls that some caller may make. */
export function servedCalls(): string[] {
  const all = [...Object.keys(DAEMON_CALLS), ...Object.keys(CLIENT_VERBS), ...Object.keys(LIBRARY_VERBS)];
  return [...new Set(all)].filter((name) => servedCall(name) !== undefined).toSorted();
}

const PEOPLE = {
  operators: "For operators, whom no token narrows",
  writers: "For whoever may write to the folder",
  kernel: "For callers on the Unix socket without a token",
  owners: "For the owner of the folder and for operators",
};

/** Returns a sentence on who may make a call. */
export function whoMay(name: string): string {
  const { by = "owners", agents } = servedCall(name)!;
  const forAgents =
    agents === undefined
      ? "not for agents"
      : agents.length === 0
        ? "and for agents"
        : `and for agents with ${agents.join(", ")}`;
  return `${PEOPLE[by]}; ${forAgents}.`;
}

/** True for a call that only reads, with these options. */
export function looks(name: string, options: Options): boolean {
  const verb = callOf(name);
  return verb?.looks === true && !(verb.changesWith ?? []).some((each) => isGiven(options?.[each]));
}

/** Calls of the page of `cairn ui` besides the verbs of a workspace. */
const OF_PAGE: readonly string[] = ["listWorkspaces", "daemon", "running", "pastEvents", "register", "cancel"];
const CHANGES_OF_PAGE: readonly string[] = ["register", "cancel"];

export function isForPage(name: string): boolean {
  if (OF_PAGE.includes(name)) return true;
  return isOfWorkspace(name) && (servedCall(name) !== undefined || callOf(name)!.forPage === true);
}

/** True for a call that writes neither records of a workspace nor to a place that its caller chooses. */
export function onlyLooks(name: string, options: Options): boolean {
  if (OF_PAGE.includes(name)) return !CHANGES_OF_PAGE.includes(name);
  const { takes, stores } = callOf(name)!;
  return (
    looks(name, options) &&
    stores !== true &&
    !Object.keys(options ?? {}).some((each) => isPlaceOf(name, each)) &&
    !takes.some(({ schema }) => (schema as Notes).as === "place")
  );
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null && value !== false;
}

/** True for a call that changes something with these options, and runs once per idempotency key. */
export function isChanging(name: string, options: Options): boolean {
  return isJob(name) && !looks(name, options);
}

/** True for a call of a daemon or the page that is listed while it runs: one that changes something, or records its result. */
export function isListed(name: string, options: Options): boolean {
  const verb = callOf(name);
  const isMade = verb?.forPage === true || servedCall(name) !== undefined;
  return isMade && hasOneAnswer(verb) && (!looks(name, options) || verb!.stores === true);
}

/** True for a call with a single answer, which can be a job. */
export function isJob(name: string): boolean {
  return hasOneAnswer(servedCall(name));
}

function hasOneAnswer(verb: Verb | undefined): boolean {
  return verb !== undefined && verb.passing !== true && verb.how !== "stream";
}

/** True for a verb that owners of a folder may call, not only operators. */
export function isForOwners(name: string, options: Options): boolean {
  const verb = servedCall(name);
  return (
    verb !== undefined &&
    verb.by !== "operators" &&
    (verb.checksPlaces === true || Object.keys(options ?? {}).every((each) => !isPlaceOf(name, each)))
  );
}

export function isForWriters(name: string): boolean {
  return servedCall(name)?.by === "writers";
}

/** True for an option that names a place to which the daemon would write or from which it would read. */
export function isPlaceOf(name: string, option: string): boolean {
  const schema = (callOf(name)?.options?.entries as Entries | undefined)?.[option] as
    | (Notes & { wrapped?: Notes })
    | undefined;
  return (schema?.wrapped ?? schema)?.as === "place";
}
