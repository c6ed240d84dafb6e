import { renameSync } from "node:fs";
import { join } from "node:path";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { type DaemonState, decodeDaemonState, encodeDaemonState } from "../formats/records/daemon-state.ts";
import { encodeChecked } from "../formats/records/record.ts";
import { durableWrite, fsyncDirectory, readSmallFile } from "../fs/durable.ts";
import { printablePath } from "../fs/safe-path.ts";

const NAME = "state.json";
const PREVIOUS = "state.previous.json";
const MAX_STATE_BYTES = 64 << 20;

/** A state that was read, and what had to be done for it, in sentences for the log. */
export interface LoadedState {
  /** Null: there is none. */
  state: DaemonState | null;
  notes: string[];
  /** True: something was lost, so that folders may be served that the state does not list. */
  isRebuilt: boolean;
}

/**
 * The daemon's state on disk. Steps of a save: the generation that is there is written again under the name of the
 * previous one, then the new one replaces it by a rename, which is the commit. A kill leaves the old state or the new one.
 */
export class StateFile {
  readonly path: string;
  readonly #previous: string;
  readonly #directory: string;
  /** Bytes of the generation that lies on disk; null: none that can be read. */
  #current: Uint8Array | null = null;

  constructor(directory: string) {
    this.#directory = directory;
    this.path = join(directory, NAME);
    this.#previous = join(directory, PREVIOUS);
  }

  /**
   * Reads it; one that is damaged is set aside, and the generation before it counts. Throws `newer_version`, and what the
   * system says.
   */
  load(): LoadedState {
    const notes: string[] = [];
    const own = this.#read(this.path, notes);
    if (own !== null) {
      this.#current = own.bytes;
      return { state: own.state, notes, isRebuilt: false };
    }
    const before = this.#read(this.#previous, notes);
    if (before !== null) {
      notes.push(`the state is that of ${printablePath(this.#previous)}, the generation before the one that was lost`);
      return { state: before.state, notes, isRebuilt: true };
    }
    return { state: null, notes, isRebuilt: notes.length > 0 };
  }

  /** Null where there is none that can be read; a damaged one has another name then. */
  #read(path: string, notes: string[]): { state: DaemonState; bytes: Uint8Array } | null {
    try {
      const bytes = readSmallFile(path, MAX_STATE_BYTES);
      return bytes === null ? null : { state: decodeDaemonState(bytes), bytes };
    } catch (error) {
      const failed = toCairnError(error);
      if (failed.code === "newer_version")
        throw new CairnError("newer_version", `${printablePath(path)}: ${failed.message}`, {
          hint: "it is left as it is; start the newer Cairn that wrote it",
          cause: error,
        });
      if (failed.code !== "damaged") throw failed;
      const aside = `${path}.damaged-${new Date().toISOString().replaceAll(/[:.]/g, "-")}`;
      renameSync(path, aside);
      fsyncDirectory(this.#directory);
      notes.push(`${printablePath(path)} cannot be read (${failed.message}) and lies in ${printablePath(aside)} now`);
      return null;
    }
  }

  /** Replaces it, durably. Throws what the system says, and leaves it as it was then. */
  save(state: DaemonState): void {
    const bytes = encodeChecked(state, encodeDaemonState, decodeDaemonState);
    if (this.#current !== null && Buffer.compare(this.#current, bytes) === 0) return;
    if (this.#current !== null) durableWrite(this.#previous, this.#current);
    failpoint("daemon-state.previous-kept");
    durableWrite(this.path, bytes);
    this.#current = bytes;
    failpoint("daemon-state.saved");
  }
}
