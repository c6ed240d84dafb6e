import { existsSync } from "node:fs";
import { rawPath } from "../../formats/records/record.ts";
import {
  markedElsewhere,
  markOf,
  removeOtherMarks,
  systemStateDirectory,
  writeMarks,
} from "../../workspace/place/daemon-marks.ts";
import type { ServedWorkspace } from "../../formats/records/daemon-state.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";
import type { DaemonPlaces } from "../places.ts";

type Marked = Pick<ServedWorkspace, "path" | "path_b64" | "link">;

/**
 * Marks of the folders that root's daemon keeps. A mark is written before the folder becomes a workspace and removed after it is
 * given up, so that every kept folder is marked after a kill, too. A user's own daemon has no marks: the user reads its
 * records.
 */
export class Marks {
  readonly #places: DaemonPlaces;
  /** Names of the marks of each folder, by its path in latin1. */
  readonly #names = new Map<string, readonly string[]>();

  constructor(places: DaemonPlaces) {
    this.#places = places;
  }

  /** Makes this process use the registry of its state directory, and ignore the marks that it wrote itself. */
  begin(): void {
    const { isSystem, state } = this.#places;
    if (isSystem) process.env["XDG_STATE_HOME"] = state;
    if (realPathOf(systemStateDirectory()).equals(Buffer.from(state))) process.env["CAIRN_STATE_DIR"] = state;
  }

  /** Marks a folder, also after its identity has changed, for example by an exchange of subvolumes. */
  add(served: Marked): void {
    const { isSystem, state, socket } = this.#places;
    if (!isSystem) return;
    this.#names.set(keyOf(served), writeMarks(state, markOf(rawPath(served), { socket, link: served.link })));
  }

  /** The old path of a folder that this daemon keeps and that was moved since; null for other folders. */
  movedFrom(folder: string): string | null {
    const { isSystem, state } = this.#places;
    const from = isSystem ? markedElsewhere(state, Buffer.from(folder)) : null;
    return from === null || existsSync(from) ? null : from;
  }

  /** Removes the marks of a folder that is given up. */
  drop(served: Marked): void {
    this.#names.delete(keyOf(served));
    this.sweep();
  }

  /** Removes marks of folders that are no longer kept, also marks that a kill left. */
  sweep(): void {
    const { isSystem, state } = this.#places;
    if (!isSystem) return;
    const names = new Set([...this.#names.values()].flat());
    removeOtherMarks(state, names, (mark) => this.#names.has(keyOf(mark)) && !existsSync(Buffer.from(rawPath(mark))));
  }
}

function keyOf(place: Marked): string {
  return Buffer.from(rawPath(place)).toString("latin1");
}
