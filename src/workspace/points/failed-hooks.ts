import type { AgentHooks, FailedHooks } from "../../contract/looking.ts";
import type { TurnsResult } from "../../contract/turns.ts";
import { plural } from "../../formats/sizes.ts";
import { CHECK_EVENT, firstLineOf, isOwn } from "./agent-events.ts";
import { type StoredEvent, unopenedEvents, withTexts } from "./agent-record.ts";
import { type RecordPlace, recordOfUnopened } from "./event-files.ts";

/** Hooks of agents that could not save the folder, from the record of events. */

/** Milliseconds for which failures stay reported after a later hook has saved the folder. */
const REPORTED_MS = 86_400_000;

/** Returns the hooks of each agent that has an event in the record. */
export function hooksIn(place: RecordPlace, log: readonly StoredEvent[]): AgentHooks[] {
  const shown = (event: StoredEvent | undefined) => (event === undefined ? null : withTexts(place, [event])[0]!);
  return [...Map.groupBy(log, ({ agent }) => agent)].map(([agent, events]) => {
    const hooks = events.filter(({ event }) => !isOwn(event));
    return {
      agent,
      last_hook: shown(hooks.at(-1)),
      last_point: shown(hooks.findLast(({ made }) => made)),
      checked_at: events.findLast(({ event }) => event === CHECK_EVENT)?.at ?? null,
      failed: failedHooks(hooks),
    };
  });
}

/** Adds this user's hooks that could not open the workspace of a folder. `known`: the answer of a daemon, which cannot read them if it is root's. */
export function withUnopened(known: readonly AgentHooks[], folder: string): AgentHooks[] {
  const place = recordOfUnopened();
  const byAgent = new Map(known.map((each) => [each.agent, each]));
  for (const [agent, events] of Map.groupBy(place === null ? [] : unopenedEvents(folder), (event) => event.agent)) {
    const { last_hook: last = null, failed: told = null, ...rest } = byAgent.get(agent) ?? {};
    // The last hook that the daemon knows tells which failures are over.
    const log = [...events, ...(last?.failed === null ? [last] : [])].toSorted((a, b) => (a.at < b.at ? -1 : 1));
    const [own] = hooksIn(place!, log);
    if (own!.failed === null || (told !== null && told.last_at >= own!.failed.last_at)) continue;
    byAgent.set(agent, { ...own!, ...rest, failed: own!.failed });
  }
  return [...byAgent.values()];
}

/** Returns the agents of a log with hooks that failed. */
export function failedIn(log: readonly StoredEvent[]): TurnsResult["failed_hooks"] {
  return [...Map.groupBy(log, ({ agent }) => agent)].flatMap(([agent, hooks]) => {
    const failed = failedHooks(hooks);
    return failed === null ? [] : [{ agent, ...failed }];
  });
}

/** Counts the hooks of one agent that failed since a hook last saved the folder, or within a day; null without such hooks. */
function failedHooks(log: readonly StoredEvent[]): FailedHooks | null {
  const hooks = log.filter(({ event }) => !isOwn(event));
  const saved = hooks.findLast(({ failed }) => failed === null)?.at ?? "";
  const since = new Date(Date.now() - REPORTED_MS).toISOString();
  const failed = hooks.filter((each) => each.failed !== null && (each.at > saved || each.at > since));
  const [first, last] = [failed[0], failed.at(-1)];
  if (first === undefined || last === undefined) return null;
  return {
    count: failed.length,
    since: first.asked_at ?? first.at,
    last_at: last.at,
    reason: firstLineOf(last.failed!),
    over: last.at < saved,
  };
}

/** Words failures, for example "2 hooks of codex failed since 12:03: no space". `at` formats a time. */
export function describeFailed(
  { agent, count, since, last_at: last, reason, over }: FailedHooks & { agent: string },
  at = (time: string): string => time,
): string {
  const span = over ? `between ${at(since)} and ${at(last)}` : `since ${at(since)}`;
  return `${plural(count, "hook")} of ${agent} failed ${span}: ${reason}${over ? "; a later hook saved the folder" : ""}`;
}
