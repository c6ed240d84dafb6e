import { renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { type DaemonState, decodeDaemonState, encodeDaemonState } from "../../formats/records/daemon-state.ts";
import { encodeChecked } from "../../formats/records/record.ts";
import { durableWrite, fsyncDirectory, readSmallFile } from "../../fs/durable.ts";
import { namesIn } from "../../fs/paths/names-in.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";

const NAME = "state.json";
const PREVIOUS = "state.previous.json";
const MAX_STATE_BYTES = 64 << 20;

/** A state, and sentences for the log about problems when it was read. */
export interface LoadedState {
  /** Null: no state exists, or no generation can be read. */
  state: DaemonState | null;
  notes: string[];
  /** Files of a state of which no generation can be read; empty if one can be read, or if there never was a state. */
  lost: string[];
}

/**
 * The daemon's state on disk. Steps of a save: the generation that is there is written again under the name of the
 * previous one, then the new one replaces it by a rename, which is the commit. A kill leaves the old state or the new one.
 */
export class StateFile {
  readonly path: string;
  readonly #previous: string;
  /** Bytes of the generation on disk; null: none can be read. */
  #current: Uint8Array | null = null;

  constructor(directory: string) {
    this.path = join(directory, NAME);
    this.#previous = join(directory, PREVIOUS);
  }

  /**
   * Reads the state. A damaged file is renamed, and the generation before it counts. If neither can be read, both files
   * stay in place. Throws `newer_version` and the system's errors.
   */
  load(): LoadedState {
    const notes: string[] = [];
    const own = readOrTell(this.path, MAX_STATE_BYTES, decodeDaemonState);
    if (own !== null && "value" in own) {
      this.#current = own.bytes;
      return { state: own.value, notes, lost: [] };
    }
    const before = readOrTell(this.#previous, MAX_STATE_BYTES, decodeDaemonState);
    if (before !== null && "value" in before) {
      if (own !== null) setAside(this.path, own, notes);
      notes.push(`the daemon's newest state was lost; the one before it, ${printablePath(this.#previous)}, is used`);
      return { state: before.value, notes, lost: [] };
    }
    return { state: null, notes, lost: own === null && before === null ? this.#aside() : [this.path, this.#previous] };
  }

  /** Renames both generations, after a person decided to start without them. */
  giveUp(notes: string[]): void {
    for (const path of [this.path, this.#previous]) {
      const read = readOrTell(path, MAX_STATE_BYTES, decodeDaemonState);
      if (read !== null && "damage" in read) setAside(path, read, notes);
    }
  }

  /** Renamed generations, of a directory without a state that can be read. */
  #aside(): string[] {
    const directory = dirname(this.path);
    return namesIn(directory).flatMap((name) => (name.startsWith(`${NAME}.damaged-`) ? [join(directory, name)] : []));
  }

  /** Replaces the state, durably. Throws system errors; the old state stays then. */
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

interface Damage {
  damage: string;
}

/** Reads a file of the daemon, or returns its damage; null if it does not exist. Throws `newer_version` and system errors. */
function readOrTell<T>(
  path: string,
  most: number,
  decode: (bytes: Uint8Array) => T,
): { value: T; bytes: Uint8Array } | Damage | null {
  try {
    const bytes = readSmallFile(path, most);
    return bytes === null ? null : { value: decode(bytes), bytes };
  } catch (error) {
    const failed = toCairnError(error);
    if (failed.code === "newer_version")
      throw new CairnError("newer_version", `${printablePath(path)}: ${failed.message}`, {
        hint: "start the newer Cairn that wrote the file; it was left as it is",
        cause: error,
      });
    if (failed.code !== "damaged") throw failed;
    return { damage: failed.message };
  }
}

function setAside(path: string, { damage }: Damage, notes: string[]): void {
  const aside = `${path}.damaged-${new Date().toISOString().replaceAll(/[:.]/g, "-")}`;
  renameSync(path, aside);
  fsyncDirectory(dirname(path));
  notes.push(`${printablePath(path)} cannot be read (${damage}) and was moved to ${printablePath(aside)}`);
}

/** Reads a file of the daemon as {@link readOrTell} does; renames a damaged file and returns null. */
export function readOrSetAside<T>(
  path: string,
  most: number,
  decode: (bytes: Uint8Array) => T,
  notes: string[],
): { value: T; bytes: Uint8Array } | null {
  const read = readOrTell(path, most, decode);
  if (read === null || "value" in read) return read;
  setAside(path, read, notes);
  return null;
}
