import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { acquireLock, type Lock } from "../fs/lock.ts";
import { userStateDirectory } from "../fs/users.ts";
import { readText } from "./covered.ts";

/**
 * A tool runs the hooks of all its files, so one event may have two. The first hook of an event notes the event in a small file of
 * its session when its save is done, and holds the file's lock until then: a second hook waits, and saves if the first was killed.
 */

/** The facts of a hook that tell one event from another. */
export interface EventIds {
  readonly agent: string;
  readonly event: string;
  readonly session?: string | undefined;
  readonly turn?: string | undefined;
  readonly tool?: string | undefined;
  readonly call?: string | undefined;
  readonly prompt?: string | undefined;
  readonly command?: string | undefined;
  readonly cwd: string;
}

const MOST_EVENTS = 500;
/** Two events of a call are the same if no other event of the call came between them. Without a call: if no event did, and within this time. */
const SAME_MS = 10_000;
const KEPT_MS = 24 * 3_600_000;

/** Runs `save`, unless another hook has saved for the same event; then it returns null. */
export async function onceForEvent<T>(
  ids: EventIds,
  save: () => Promise<T>,
  options: { signal?: AbortSignal | undefined; lockTimeoutMs?: number | undefined },
): Promise<T | null> {
  const { agent, session, call } = ids;
  if (session === undefined) return save();
  const events = await openEvents(digestOf([agent, session]), options);
  // Without a place for the note two points are better than none.
  if (events === null) return save();
  using _lock = events.lock;
  const { agent: _, session: _session, ...rest } = ids;
  const ofCall = `${digestOf(call ?? null)} `;
  const line = ofCall + digestOf(Object.entries(rest).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  const { lines, at } = events.read();
  const last = call === undefined ? lines.at(-1) : lines.findLast((each) => each.startsWith(ofCall));
  if (last === line && (call !== undefined || Date.now() - at < SAME_MS)) return null;
  const result = await save();
  // The next turn may use the ids of its calls again.
  events.write(call === undefined ? [line] : [...lines, line].slice(-MOST_EVENTS));
  return result;
}

const digestOf = (value: unknown): string =>
  createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 32);

interface Events {
  readonly lock: Lock;
  read(): { lines: string[]; at: number };
  write(lines: readonly string[]): void;
}

/** Takes the lock of a session's file. Returns null if there can be none. Throws if the signal fires first. */
async function openEvents(
  name: string,
  { signal, lockTimeoutMs }: { signal?: AbortSignal | undefined; lockTimeoutMs?: number | undefined },
): Promise<Events | null> {
  try {
    const file = join(userStateDirectory(), "agents", "sessions", name);
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    if (statSync(file, { throwIfNoEntry: false }) === undefined) removeOld(dirname(file));
    const lock = await acquireLock(`${file}.lock`, {
      signal,
      timeoutMs: lockTimeoutMs,
      purpose: "save for an agent's hook",
    });
    return {
      lock,
      read() {
        try {
          return { lines: readText(file).split("\n"), at: statSync(file).mtimeMs };
        } catch {
          return { lines: [], at: 0 };
        }
      },
      write(lines) {
        try {
          writeFileSync(`${file}.new`, lines.join("\n"), { mode: 0o600 });
          renameSync(`${file}.new`, file);
        } catch {
          // The disk may be full: a second hook saves again.
        }
      },
    };
  } catch (error) {
    if (signal?.aborted === true) throw error;
    return null;
  }
}

/** Removes files of sessions that ended long ago. A hook that uses one at this moment notes its event anew. */
function removeOld(folder: string): void {
  for (const name of readdirSync(folder)) {
    const facts = statSync(join(folder, name), { throwIfNoEntry: false });
    if (facts !== undefined && Date.now() - facts.mtimeMs > KEPT_MS) rmSync(join(folder, name), { force: true });
  }
}
