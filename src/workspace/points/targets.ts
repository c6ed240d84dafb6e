import { advice, CairnError, call, see } from "../../errors.ts";
import { localTime, momentOf } from "../../formats/moments.ts";
import { checkTags } from "../../formats/restic/snapshot.ts";
import { isSavePointId, type SavePointId } from "../../ids.ts";
import type { Point } from "./point-files.ts";
import { type DamagedPoint, isImported, type Points } from "./points.ts";

/**
 * Finds the point of a target: `latest`, `head`, `head~N` (also `HEAD`, `@`, `^`), an id, a chosen id, a unique prefix
 * of an id, a tag that only one point has, or a time (the newest point that was saved until then).
 */

const MAX_CANDIDATES = 20;
/** With fewer digits, a word or small number could be an id. */
const LEAST_DIGITS = 4;
/** Digits of an id in texts for people. */
const SHOWN_DIGITS = 8;

function nothingSaved(): CairnError {
  return new CairnError("not_found", "nothing has been saved yet", {
    hint: advice`save a point first: ${call("save")}`,
  });
}

function headPoint(points: Points, head: SavePointId | null): Point {
  if (head === null) throw nothingSaved();
  const point = points.byId(head);
  if (point === null)
    throw new CairnError("damaged", `head is ${head}, and there is no such point`, {
      hint: advice`run ${call("doctor --repair", "doctor", { repair: true })}`,
    });
  return point;
}

/** The point that was saved `steps` saves before head. Undo points are not counted. */
function beforeHead(points: Points, head: SavePointId | null, steps: number): Point {
  const start = headPoint(points, head);
  if (steps === 0) return start;
  const older = points.saved().filter((sequence) => sequence < start.sequence);
  const wanted = older.at(-steps);
  if (steps <= older.length && wanted !== undefined) return points.read(wanted);
  const hint = older.length === 0 ? see("history") : `the oldest is head~${older.length}`;
  throw new CairnError("not_found", `head~${steps} does not exist: ${older.length} points were saved before head`, {
    hint,
  });
}

/** The newest point that was saved at `moment` or before. */
function notAfter(points: Points, moment: number): Point {
  const saved = points.saved().toReversed();
  let imported: Point | null = null;
  for (const sequence of saved) {
    const point = points.read(sequence);
    const { created_at: at } = point.descriptor;
    if (Date.parse(at) > moment) continue;
    // An imported point may be older than its number tells: compare the times.
    const before: string = imported?.descriptor.created_at ?? "";
    if (!isImported(point)) return at >= before ? point : imported!;
    if (at > before) imported = point;
  }
  if (imported !== null) return imported;
  const oldest = saved.length === 0 ? null : points.read(saved.at(-1)!).descriptor;
  throw new CairnError("not_found", `nothing had been saved by ${localTime(moment)}`, {
    hint:
      oldest === null
        ? advice`save a point first: ${call("save")}`
        : `the oldest point is ${oldest.save_point_id.slice(0, 8)}, of ${localTime(Date.parse(oldest.created_at))}`,
  });
}

function candidate(found: Point | DamagedPoint): Record<string, unknown> {
  if ("problem" in found) return { save_point_id: found.id, damaged: true };
  const { save_point_id, created_at, message } = found.descriptor;
  return { save_point_id, created_at, message };
}

/** The only point whose chosen id, or own id in lower-case hex, begins with `prefix`; null if none does. */
function byPrefix(points: Points, prefix: string): Point | null {
  const chosen = points.withChosenId(prefix);
  const isHex = HEX.test(prefix);
  const own = isHex ? points.withPrefix(prefix.toLowerCase()) : [];
  const found = [...new Map([...own, ...chosen].map((each) => [each.sequence, each])).values()];
  const only = found[0];
  if (only === undefined) return null;
  if (found.length > 1) {
    const shown = found.slice(0, MAX_CANDIDATES).map(candidate);
    const names = shown.map((each) => String(each["save_point_id"]).slice(0, 16)).join(", ");
    throw new CairnError("ambiguous", `${prefix} fits ${found.length} save points: ${names}`, {
      hint: "use more digits",
      details: { candidates: shown },
    });
  }
  if ("problem" in only) throw only.problem;
  return only;
}

/** The point with exactly this chosen id; null if there is none. A chosen id is unique. */
function byChosenId(points: Points, id: string): Point | null {
  const [found] = points.withChosenId(id).filter(({ descriptor }) => descriptor.chosen_id === id);
  return found ?? null;
}

/** Like {@link byChosenId}. An agent's id counts only if no person's tag and no start of a point's own id equals it. */
function byOwnersChoice(points: Points, id: string): Point | null {
  const found = byChosenId(points, id);
  if (found?.descriptor.cause.kind !== "tool_call") return found;
  const begun = HEX.test(id) && id.length >= LEAST_DIGITS ? points.withPrefix(id.toLowerCase()) : [];
  const isTaken = begun.length > 0 || taggedWith(points, id).some((point) => !isAgents(point, id));
  return isTaken ? null : found;
}

function noSuchId(prefix: string): CairnError {
  if (prefix.length >= LEAST_DIGITS)
    return new CairnError("not_found", `no save point begins with ${prefix}`, { hint: see("history") });
  return new CairnError("invalid_id", `${prefix} is too short for a save point: at least ${LEAST_DIGITS} digits`, {
    hint: see("history"),
  });
}

/** Points that have a tag. The tags of damaged points are unknown. */
function taggedWith(points: Points, tag: string): Point[] {
  return points.list().points.filter(({ tags }) => tags.includes(tag));
}

/** True if an agent gave the point this tag when the agent made the point. */
function isAgents({ descriptor }: Point, tag: string): boolean {
  return descriptor.cause.kind === "tool_call" && descriptor.tags.includes(tag);
}

/** Throws `usage` for invalid tags, and for tags with another meaning as a target. */
export function checkPointTags(tags: readonly string[]): void {
  checkTags(tags);
  const isReserved = (tag: string): boolean =>
    /^(?:[0-9a-f]{4,32}|latest|undo|(?:head|@)(?:[~^].*)?)$/i.test(tag) ||
    tag.split("/").some((part) => /^\.*$/.test(part)) ||
    momentOf(tag, Date.now()) !== null;
  const reserved = tags.find(isReserved);
  if (reserved === undefined) return;
  throw new CairnError(
    "usage",
    `${JSON.stringify(reserved.slice(0, 80))} cannot be a tag: it has another meaning as a target`,
    {
      hint: "put a word before it, for example v-2026-11-26: hex digits are ids, and latest, head, head~1, undo, times and paths such as ../x are targets too",
    },
  );
}

/** Throws `already_exists` if a point that a person made has one of the tags of an agent's new point. */
export function requireAgentsTags(points: Points, tags: readonly string[]): void {
  for (const tag of tags) {
    const taken = taggedWith(points, tag).find((point) => !isAgents(point, tag));
    if (taken === undefined) continue;
    const { save_point_id } = taken.descriptor;
    throw new CairnError(
      "already_exists",
      `a save point that a person made, ${save_point_id.slice(0, 8)}, already has the tag ${JSON.stringify(tag)}`,
      { hint: "give the point another tag", details: { save_point_id } },
    );
  }
}

const CHOSEN_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
const HEX = /^[0-9a-f]{1,32}$/i;

/**
 * Checks a chosen id for a new point: a word that is no time and no tag, and does not begin with the digits with which another
 * point's id is shown. Fewer digits may begin such an id: a target means the chosen id then.
 * `isImported`: another program made the point, so blanks and times are allowed. Throws `invalid_id`, `already_exists`.
 */
export function requireChosenId(points: Points, id: string, isImported: boolean): void {
  const isWord = isImported ? id !== "" : CHOSEN_ID.test(id) && momentOf(id, Date.now()) === null;
  if (!isWord || /^(?:latest|head|head[~^].*|@.*)$/i.test(id))
    throw new CairnError("invalid_id", `not an id for a save point: ${JSON.stringify(id.slice(0, 80))}`, {
      hint: "use at most 100 letters, digits, dots, dashes and underscores; not a time, latest or head",
    });
  const shown = id.slice(0, SHOWN_DIGITS);
  const begun = HEX.test(shown) && shown.length === SHOWN_DIGITS ? points.withPrefix(shown.toLowerCase()) : [];
  const [tagged] = taggedWith(points, id);
  const taken = byChosenId(points, id) ?? tagged ?? begun.find((each) => !("problem" in each));
  if (taken === undefined || "problem" in taken) return;
  const { save_point_id, chosen_id: chosen } = taken.descriptor;
  const what = chosen === id ? `the id ${id}` : taken === tagged ? `the tag ${id}` : `an id that begins with ${shown}`;
  throw new CairnError("already_exists", `the save point ${save_point_id.slice(0, 8)} already has ${what}`, {
    hint: advice`choose another id; ${call(`show ${id}`, "show", id)} shows that point`,
    details: { save_point_id },
  });
}

/**
 * Returns the point of a target. `head`: the workspace's head, null if nothing was saved; `now`: ms since 1970. Throws
 * `not_found`, `ambiguous` (with the candidates), `invalid_id`, `damaged`.
 */
export function resolveTarget(points: Points, target: string, head: SavePointId | null, now = Date.now()): Point {
  if (target === "latest") {
    const latest = points.latest();
    if (latest === null) throw nothingSaved();
    return latest;
  }
  const steps = /^(?:head|HEAD|@)(?:~([0-9]{1,9})?|(\^+))?$/.exec(target);
  if (steps !== null)
    return beforeHead(points, head, steps[2]?.length ?? Number(steps[1] ?? (target.endsWith("~") ? 1 : 0)));
  const whole = target.toLowerCase();
  const named = (isSavePointId(whole) ? points.byId(whole) : null) ?? byOwnersChoice(points, target);
  if (named !== null) return named;
  const moment = momentOf(target, now);
  if (moment !== null) return notAfter(points, moment);
  const begun = HEX.test(target) && target.length >= LEAST_DIGITS ? byPrefix(points, target) : null;
  if (begun !== null) return begun;
  const all = taggedWith(points, target);
  // An agent's tag counts only if no point of a person has the same tag.
  const persons = all.filter((point) => !isAgents(point, target));
  const tagged = persons.length > 0 ? persons : all;
  if (tagged.length === 1) return tagged[0]!;
  if (tagged.length > 1)
    throw new CairnError("ambiguous", `${tagged.length} save points have the tag ${JSON.stringify(target)}`, {
      hint: advice`use an id; ${call("history")} lists them`,
      details: { candidates: tagged.slice(0, MAX_CANDIDATES).map(candidate) },
    });
  const last = target.length >= LEAST_DIGITS && !HEX.test(target) ? byPrefix(points, target) : null;
  if (last !== null) return last;
  if (HEX.test(target)) throw noSuchId(target);
  throw new CairnError("invalid_id", `not a save point: ${JSON.stringify(target.slice(0, 80))}`, {
    hint: advice`a save point is, for example, head, head~1, yesterday or the beginning of an id; ${call("history")} lists them`,
  });
}
