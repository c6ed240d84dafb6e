import { renameSync } from "node:fs";
import { dirname, join } from "node:path";
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
  /** Bytes of the generation that lies on disk; null: none that can be read. */
  #current: Uint8Array | null = null;

  constructor(directory: string) {
    this.path = join(directory, NAME);
    this.#previous = join(directory, PREVIOUS);
  }

  /**
   * Reads it; one that is damaged is set aside, and the generation before it counts. Throws `newer_version`, and what the
   * system says.
   */
  load(): LoadedState {
    const notes: string[] = [];
    const own = readOrSetAside(this.path, MAX_STATE_BYTES, decodeDaemonState, notes);
    if (own !== null) {
      this.#current = own.bytes;
      return { state: own.value, notes, isRebuilt: false };
    }
    const before = readOrSetAside(this.#previous, MAX_STATE_BYTES, decodeDaemonState, notes);
    if (before !== null) {
      notes.push(`the state is that of ${printablePath(this.#previous)}, the generation before the one that was lost`);
      return { state: before.value, notes, isRebuilt: true };
    }
    return { state: null, notes, isRebuilt: notes.length > 0 };
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

/**
 * Reads a file of the daemon; null where there is none that can be read: a damaged one has another name then, and a note says
 * so. Throws `newer_version`, and what the system says.
 */
export function readOrSetAside<T>(
  path: string,
  most: number,
  decode: (bytes: Uint8Array) => T,
  notes: string[],
): { value: T; bytes: Uint8Array } | null {
  try {
    const bytes = readSmallFile(path, most);
    return bytes === null ? null : { value: decode(bytes), bytes };
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
    fsyncDirectory(dirname(path));
    notes.push(`${printablePath(path)} cannot be read (${failed.message}) and lies in ${printablePath(aside)} now`);
    return null;
  }
}
