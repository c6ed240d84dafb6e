import { existsSync } from "node:fs";
import { join } from "node:path";
import { encodeVerification, type VerificationProblem } from "../formats/control.ts";
import { durableRemove, durableWrite } from "../fs/durable.ts";
import type { Points } from "./points.ts";

/** The kind of a verification's problem: the tree that a sealed point holds reads back otherwise than the point has it. */
export const MISREAD_TREE = "held_tree";

/** Beside the tree; what shares it is told by it too. */
function noteOf(points: Points, owner: number): string {
  return join(points.pathsOf(owner).root, "tree-verification.json");
}

/** Whether a verification found that of the tree that lies with this point: points are given back from the store then. */
export function isMisread(points: Points, owner: number): boolean {
  return existsSync(noteOf(points, owner));
}

/** Keeps what was found when a tree was read; what an earlier reading found goes where that is nothing. */
export function noteReading(points: Points, owner: number, problems: VerificationProblem[]): void {
  const note = noteOf(points, owner);
  const record = { at: new Date().toISOString(), ok: false, problems };
  if (problems.length > 0) durableWrite(note, encodeVerification(record));
  else if (existsSync(note)) durableRemove(note);
}
