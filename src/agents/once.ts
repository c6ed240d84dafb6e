import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { acquireLock, type Lock } from "../fs/lock.ts";
import { userStateDirectory } from "../fs/users.ts";
import { textOf } from "./covered.ts";

/**
 * A tool runs the hooks of all its files, so one event may have two. The first hook of an event notes the event in a small file of
 * its session when its save is done, and holds the file's lock until then: a second hook waits, and saves if the first was killed.
 */

const MOST_EVENTS = 500;
/** Two events of a call are the same if no other event of the call came between them. Without a call: if no event did, and within this time. */
const SAME_MS = 10_000;
const KEPT_MS = 24 * 3_600_000;

/** Runs `save`, unless another hook has saved for the same event; then it returns null. `ids`: all facts of the event. */
export async function onceForEvent<T>(
  { agent, session, call, ...rest }: { agent: string; session?: string; call?: string },
  save: () => Promise<T>,
  { signal, lockTimeoutMs }: { signal?: AbortSignal | undefined; lockTimeoutMs?: number | undefined },
): Promise<T | null> {
  if (session === undefined) return save();
  let file: string;
  let lock: Lock;
  try {
    file = join(userStateDirectory(), "agents", "sessions", digestOf([agent, session]));
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    if (!existsSync(file)) removeOld(dirname(file), KEPT_MS);
    const purpose = "save for an agent's hook";
    lock = await acquireLock(`${file}.lock`, { signal, timeoutMs: lockTimeoutMs, purpose });
  } catch (error) {
    if (signal?.aborted === true) throw error;
    // Without a place for the note two points are better than none.
    return save();
  }
  using _lock = lock;
  const ofCall = `${digestOf(call ?? null)} `;
  const line = ofCall + digestOf(Object.entries(rest).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  const lines = textOf(file)?.split("\n") ?? [];
  const last = call === undefined ? lines.at(-1) : lines.findLast((each) => each.startsWith(ofCall));
  if (last === line && (call !== undefined || Date.now() - statSync(file).mtimeMs < SAME_MS)) return null;
  const result = await save();
  try {
    // The next turn may use the ids of its calls again.
    writeFileSync(`${file}.new`, (call === undefined ? [line] : [...lines, line].slice(-MOST_EVENTS)).join("\n"), {
      mode: 0o600,
    });
    renameSync(`${file}.new`, file);
  } catch {
    // The disk may be full: a second hook saves again.
  }
  return result;
}

const digestOf = (value: unknown): string =>
  createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 32);

/** Removes files of sessions that ended long ago. A hook that uses one at this moment notes its event anew. */
export function removeOld(folder: string, keptMs: number): void {
  for (const each of readdirSync(folder).map((name) => join(folder, name))) {
    const at = statSync(each, { throwIfNoEntry: false })?.mtimeMs ?? Infinity;
    if (at < Date.now() - keptMs) rmSync(each, { force: true });
  }
}
