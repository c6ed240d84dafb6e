import { lstatSync } from "node:fs";
import type { DaemonState, ServedWorkspace } from "../../formats/records/daemon-state.ts";
import { type RecordedPath, rawPath, recordPath } from "../../formats/records/record.ts";
import { isSubvolume, subvolumeUuid } from "../../fs/linux/btrfs.ts";
import { Marks } from "./marks.ts";
import type { DaemonPlaces } from "../places.ts";
import { type LoadedState, StateFile } from "./state-file.ts";
import { Tokens } from "./tokens.ts";

export type { DaemonState, FolderMove, ServedWorkspace } from "../../formats/records/daemon-state.ts";

/** The state in memory and on disk, which are the same after each change. */
export class KeptState {
  readonly tokens: Tokens;
  readonly marks: Marks;
  readonly #file: StateFile;
  #state: DaemonState | null = null;
  /** Entries by their paths, in latin1. */
  #byPath = new Map<string, ServedWorkspace>();

  constructor(places: DaemonPlaces) {
    this.tokens = new Tokens(places.state);
    this.marks = new Marks(places);
    this.#file = new StateFile(places.state);
  }

  get path(): string {
    return this.#file.path;
  }

  get state(): DaemonState {
    return this.#state!;
  }

  load(): LoadedState {
    const loaded = this.#file.load();
    return { ...loaded, notes: [...loaded.notes, ...this.tokens.load()] };
  }

  /** Sets a state aside that cannot be read. Returns sentences for the log. */
  giveUp(): string[] {
    const notes: string[] = [];
    this.#file.giveUp(notes);
    return notes;
  }

  /** Goes on from this state, which is saved. Throws what the system says. */
  begin(state: DaemonState): void {
    this.#set(state);
    this.save();
  }

  #set(state: DaemonState): void {
    this.#state = state;
    this.#byPath = new Map(state.workspaces.map((each) => [folderOf(each).toString("latin1"), each]));
  }

  /** Saves it with what was counted since. Throws what the system says. */
  save(): void {
    this.#file.save(this.state);
  }

  /** Changes it, durably. Throws what the system says; nothing has changed then. */
  change(changes: Partial<DaemonState>): void {
    const before = this.state;
    this.#set({ ...before, ...changes });
    try {
      this.save();
    } catch (error) {
      this.#set(before);
      throw error;
    }
  }

  /** Replaces the entry of a workspace, durably. */
  note(served: ServedWorkspace): void {
    this.change({ workspaces: this.state.workspaces.map((each) => (each.id === served.id ? served : each)) });
  }

  /** The workspace at or above a real path; null where there is none. */
  at(place: Buffer): ServedWorkspace | null {
    for (let at = place.toString("latin1"); ; at = at.slice(0, Math.max(at.lastIndexOf("/"), 0)) || "/") {
      const served = this.#byPath.get(at);
      if (served !== undefined) return served;
      if (at === "/") return null;
    }
  }
}

/** The folder of a workspace, raw. */
export function folderOf(served: RecordedPath): Buffer {
  return Buffer.from(rawPath(served));
}

/** The entry of a folder that is served from now on, whether it is there or not. */
export function entryOf(
  recorded: RecordedPath,
  facts: Pick<ServedWorkspace, "id" | "registered_at" | "origin_backend" | "control_directory">,
): ServedWorkspace {
  const folder = Buffer.from(rawPath(recorded));
  const found = lstatSync(folder, { throwIfNoEntry: false });
  return {
    ...recordPath(folder),
    ...facts,
    ...(found === undefined ? {} : { owner_uid: found.uid }),
    subvolume_uuid: found?.isDirectory() === true && isSubvolume(folder) ? subvolumeUuid(folder) : null,
    points: 0,
  };
}
