import { CairnError } from "../../errors.ts";
import type { SavePointId } from "../../ids.ts";
import type { Point } from "./point-files.ts";
import type { DamagedPoint, Points } from "./points.ts";

/** Resolves what a person means by a target: a full id, a unique prefix, `latest`, `head`, `head~N`. */

const MAX_CANDIDATES = 20;

function nothingSaved(): CairnError {
  return new CairnError("not_found", "nothing has been saved yet", { hint: "save a point first: `cairn save`" });
}

function headPoint(points: Points, head: SavePointId | null): Point {
  if (head === null) throw nothingSaved();
  const point = points.byId(head);
  if (point === null)
    throw new CairnError("damaged", `head is ${head}, and there is no such point`, {
      hint: "run `cairn doctor --repair`",
    });
  return point;
}

/** The point `steps` places before head in the order of sequence numbers, whatever made it: as many lines down in the history. */
function beforeHead(points: Points, head: SavePointId | null, steps: number): Point {
  const start = headPoint(points, head);
  if (steps === 0) return start;
  const older = points.committed().filter((sequence) => sequence < start.sequence);
  const wanted = older.at(-steps);
  if (steps <= older.length && wanted !== undefined) return points.read(wanted);
  const hint = older.length === 0 ? "see `cairn history`" : `the oldest is head~${older.length}`;
  throw new CairnError("not_found", `head~${steps} is not there: head has ${older.length} before it`, { hint });
}

function candidate(found: Point | DamagedPoint): Record<string, unknown> {
  if ("problem" in found) return { save_point_id: found.id, damaged: true };
  const { save_point_id, created_at, message } = found.descriptor;
  return { save_point_id, created_at, message };
}

function byPrefix(points: Points, prefix: string): Point {
  const found = points.withPrefix(prefix);
  const only = found[0];
  if (only === undefined)
    throw new CairnError("not_found", `no save point begins with ${prefix}`, { hint: "see `cairn history`" });
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

/**
 * The point that a target means. `head` is the workspace's head, null when nothing was saved.
 * Throws `not_found`, `ambiguous` (lists the candidates), `invalid_id`, `damaged`.
 */
export function resolveTarget(points: Points, target: string, head: SavePointId | null): Point {
  if (target === "latest") {
    const latest = points.latest();
    if (latest === null) throw nothingSaved();
    return latest;
  }
  const steps = /^head(?:~([0-9]{1,9})?)?$/.exec(target);
  if (steps !== null) return beforeHead(points, head, target === "head" ? 0 : Number(steps[1] ?? "1"));
  if (/^[0-9a-f]{1,32}$/i.test(target)) return byPrefix(points, target.toLowerCase());
  throw new CairnError("invalid_id", `not a save point: ${JSON.stringify(target.slice(0, 80))}`, {
    hint: "use an id, a prefix of one, latest, head or head~N; a path comes beside it: restore head PATH, show head:PATH, diff --path PATH",
  });
}
