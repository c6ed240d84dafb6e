import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { Freed } from "../engines/engine.ts";
import { toCairnError } from "../errors.ts";
import { decodeUnfreed, encodeUnfreed, type UnfreedFile } from "../formats/cleanup.ts";
import { formatBytes } from "../formats/sizes.ts";
import { durableRemove } from "../fs/durable.ts";
import { failpoint } from "../failpoint.ts";
import { namesIfThere } from "../fs/names-in.ts";
import type { SavePointId } from "../ids.ts";
import type { ControlPaths } from "./control-layout.ts";
import { keptContent, presentIds } from "./protection.ts";
import { readRecord } from "./read-record.ts";
import { roomAt } from "./room.ts";
import type { Workspace } from "./workspace.ts";
import { writeRecord } from "./write-record.ts";

/** What removals had to leave in the store, for the next that frees: of points that are gone nothing else tells. */

export interface FreeRemoved {
  removed: readonly SavePointId[];
  /** Nothing of them may be left in a pack. */
  thorough: boolean;
  waitMs: number;
  signal: AbortSignal | undefined;
}

export interface FreedRemoved extends Freed {
  /** False: what had to go, now or before, is not all out of the store, which is noted. */
  complete: boolean;
}

interface Note {
  file: string;
  content: UnfreedFile;
}

const NOTE_NAME = /^[0-9a-f]{16}\.json$/;

function notesIn(control: ControlPaths): Note[] {
  return namesIfThere(control.unfreed).flatMap((name) => {
    const file = join(control.unfreed, name);
    const content = NOTE_NAME.test(name) ? contentOf(file) : null;
    return content === null ? [] : [{ file, content }];
  });
}

/** Null where another process has done what it says, or a newer version has to. Of a damaged one it is known that it is there. */
function contentOf(file: string): UnfreedFile | null {
  try {
    return readRecord(file, decodeUnfreed);
  } catch (error) {
    const { code } = toCairnError(error);
    if (code === "newer_version") return null;
    if (code === "damaged") return { points: [], thorough: true };
    throw error;
  }
}

/** True when content of points that were removed may still be in the store. */
export function isUnfreed(control: ControlPaths): boolean {
  return notesIn(control).length > 0;
}

/** Written after the points have gone, or before by whoever cannot write it then: of those that are there it does nothing. Returns its path. */
export function noteUnfreed(control: ControlPaths, content: UnfreedFile): string {
  const file = join(control.unfreed, `${randomBytes(8).toString("hex")}.json`);
  writeRecord(control, file, encodeUnfreed(content));
  return file;
}

/**
 * Frees what only removed points held, and what earlier removals left. Whoever removed points knows them until this has
 * returned, and calls it again after a kill: what has to be left now is noted before, and notes go once all is freed.
 */
export async function freeRemoved({ found, engine }: Workspace, request: FreeRemoved): Promise<FreedRemoved> {
  const { control } = found;
  const { removed, waitMs, signal } = request;
  const notes = notesIn(control);
  const noted = new Set(notes.flatMap(({ content }) => content.points));
  const present = noted.size === 0 ? noted : presentIds(control);
  const thorough = request.thorough || notes.some(({ content }) => content.thorough);
  const freed = await engine.free({
    pointIds: [...new Set([...removed, ...noted])].filter((id) => !present.has(id)),
    kept: () => keptContent(control, new Set()),
    thorough,
    waitMs,
    signal,
  });
  const isDone = !freed.postponed && freed.left === null;
  if (isDone) {
    for (const { file } of notes) {
      durableRemove(file);
      failpoint("unfreed.note-removed");
    }
  } else {
    // Where others were at work the points' marks in the store may be left too.
    const points = freed.postponed ? removed.filter((id) => !noted.has(id)) : [];
    const isNoted = notes.length > 0 && (!request.thorough || notes.some(({ content }) => content.thorough));
    if (points.length > 0 || !isNoted) noteUnfreed(control, { points, thorough: request.thorough });
    failpoint("unfreed.noted");
  }
  return { ...freed, complete: isDone || !thorough };
}

/** Why something of what was to go is still in the store, and what to do; null where nothing of it is. */
export function whyUnfreed(control: ControlPaths, freed: FreedRemoved): string | null {
  const { postponed, left, complete } = freed;
  const still = "content of points that were removed is still in the store";
  if (postponed)
    return complete
      ? "another process was using the store: the space is given back by the next cleanup"
      : `${still}, as another process was using it; the next cleanup takes it out: cairn cleanup`;
  if (left === null) return null;
  const { bytes, needsRoom } = left;
  if (needsRoom === null)
    return `content of points that were removed may still be in the store, in packs that could not be written anew or removed: \`cairn verify --all\` names what is damaged, \`cairn doctor --repair\` mends what can be; then: cairn cleanup`;
  const what = complete ? `${formatBytes(bytes)} that nothing needs stay in the store` : still;
  const { freeBytes } = roomAt(control.store);
  const room =
    needsRoom > freeBytes
      ? `, as its packs cannot be written anew: that needs ${formatBytes(needsRoom)} of room, and ${formatBytes(freeBytes)} are free; free some elsewhere on its file system, then`
      : "; there is room for more of it now";
  return `${what}${room}: cairn cleanup`;
}
