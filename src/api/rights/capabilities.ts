import type { Entries, Notes } from "../../contract/schema.ts";
import type { Verb } from "../../contract/verb.ts";
import { CLIENT_VERBS, DAEMON_CALLS, LIBRARY_VERBS } from "../../verbs/index.ts";

/** Answers to who may make which call, with which options, from the fields of the verbs. */

/** Members of a call's options, as they come. */
export type Options = Readonly<Record<string, unknown>> | undefined;

/** A verb, or a call of the daemon's own; undefined where there is none of the name. */
export function callOf(name: string): Verb | undefined {
  for (const table of [DAEMON_CALLS, CLIENT_VERBS, LIBRARY_VERBS] as const)
    if (Object.hasOwn(table, name)) return (table as Readonly<Record<string, Verb>>)[name];
  return undefined;
}

/** A verb that a daemon does for some of its callers; undefined for any other name. */
export function servedCall(name: string): Verb | undefined {
  const verb = callOf(name);
  return verb?.unserved === undefined ? verb : undefined;
}

/** True for a verb that takes the path of a workspace beside its own arguments. */
export function isOfWorkspace(name: string): boolean {
  return Object.hasOwn(CLIENT_VERBS, name) && !Object.hasOwn(DAEMON_CALLS, name);
}

/** Names of the calls that somebody may make. */
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

/** A sentence on who may make a call. */
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

export function looks(name: string): boolean {
  return servedCall(name)?.looks === true;
}

/** True for a call that changes something, which is done once for one idempotency key. */
export function isChanging(name: string): boolean {
  return isJob(name) && !looks(name);
}

/** True for a call that has one answer worth waiting for, so that it can be a job. */
export function isJob(name: string): boolean {
  const verb = servedCall(name);
  return verb !== undefined && verb.passing !== true && verb.how !== "stream";
}

/** True for a verb that the daemon does for the owners of a folder, and not for operators alone. */
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

/** True for an option that names a place which the daemon would write to or read from. */
export function isPlaceOf(name: string, option: string): boolean {
  const schema = (callOf(name)?.options?.entries as Entries | undefined)?.[option] as
    | (Notes & { wrapped?: Notes })
    | undefined;
  return (schema?.wrapped ?? schema)?.as === "place";
}
