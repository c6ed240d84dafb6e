import { lstatSync } from "node:fs";
import type { DaemonState, ServedWorkspace } from "../../formats/records/daemon-state.ts";
import { type RecordedPath, rawPath, recordPath } from "../../formats/records/record.ts";
import { isSubvolume, subvolumeUuid } from "../../fs/linux/btrfs.ts";
import { Marks } from "./marks.ts";
import type { DaemonPlaces } from "../places.ts";
import { type LoadedState, StateFile } from "./state-file.ts";
import { Tokens } from "./tokens.ts";

export type { DaemonState, FolderMove, ServedWorkspace } from "../../formats/records/daemon-state.ts";

/** The state in memory and on disk. Both are equal after each change. */
export class KeptState {
  readonly tokens: Tokens;
  readonly marks: Marks;
  readonly #file: StateFile;
  #state: DaemonState | null = null;
  /** Workspaces by path, in latin1. */
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

  /** Reads the state, and changes nothing. Throws `newer_version` and system errors. */
  load(): LoadedState {
    return this.#file.load();
  }

  /** Renames files that cannot be read, and reads the tokens. Returns sentences for the log. Throws `newer_version`. */
  settle(): string[] {
    return [...this.#file.setDamagedAside(), ...this.tokens.load()];
  }

  /** Makes `state` the present state and saves it. Throws system errors. */
  begin(state: DaemonState): void {
    this.#set(state);
    this.save();
  }

  #set(state: DaemonState): void {
    this.#state = state;
    this.#byPath = new Map(state.workspaces.map((each) => [folderOf(each).toString("latin1"), each]));
  }

  /** Saves the state with the newest counts of points. Throws system errors. */
  save(): void {
    this.#file.save(this.state);
  }

  /** Changes the state, durably. Throws system errors; nothing has changed then. */
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

  /** Returns the workspace at or above a real path; null if none is served there. */
  at(place: Buffer): ServedWorkspace | null {
    for (let at = place.toString("latin1"); ; at = at.slice(0, Math.max(at.lastIndexOf("/"), 0)) || "/") {
      const served = this.#byPath.get(at);
      if (served !== undefined) return served;
      if (at === "/") return null;
    }
  }
}

/** Path of a workspace's folder, in raw bytes. */
export function folderOf(served: RecordedPath): Buffer {
  return Buffer.from(rawPath(served));
}

/** The entry of a folder that is served from now on, even if the folder is missing. */
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
