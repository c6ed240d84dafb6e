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

export interface LoadedState {
  /** Null: no state exists, or no generation can be read. */
  state: DaemonState | null;
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
  /** True if the state of the last `load()` is not the newest generation. */
  #isOlder = false;

  constructor(directory: string) {
    this.path = join(directory, NAME);
    this.#previous = join(directory, PREVIOUS);
  }

  /**
   * Reads the state; the generation before it counts if the newest one is missing or damaged. Changes nothing. Throws
   * `newer_version` and the system's errors.
   */
  load(): LoadedState {
    this.#isOlder = false;
    const own = readOrTell(this.path, MAX_STATE_BYTES, decodeDaemonState);
    if (own !== null && "value" in own) {
      this.#current = own.bytes;
      return { state: own.value, lost: [] };
    }
    this.#isOlder = true;
    const before = readOrTell(this.#previous, MAX_STATE_BYTES, decodeDaemonState);
    if (before !== null && "value" in before) return { state: before.value, lost: [] };
    return { state: null, lost: own === null && before === null ? this.#aside() : [this.path, this.#previous] };
  }

  /** Renames generations that cannot be read, once it is decided that the start goes on without them. Returns sentences for the log. */
  setDamagedAside(): string[] {
    if (!this.#isOlder) return [];
    const notes: string[] = [];
    const readable = [this.path, this.#previous].filter(
      (path) => readOrSetAside(path, MAX_STATE_BYTES, decodeDaemonState, notes) !== null,
    );
    if (readable.length > 0)
      notes.push(`the daemon's newest state was lost; the one before it, ${printablePath(this.#previous)}, is used`);
    return notes;
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
