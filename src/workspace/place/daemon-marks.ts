import { createHash } from "node:crypto";
import { chmodSync, existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { advice, CairnError, either } from "../../errors.ts";
import { type DaemonMark, decodeDaemonMark, encodeDaemonMark } from "../../formats/records/daemon-mark.ts";
import { encodeChecked, rawPath, recordPath } from "../../formats/records/record.ts";
import { durableMkdir, durableRemove, durableWrite, readSmallFile } from "../../fs/durable.ts";
import { isSubvolume, subvolumeUuid } from "../../fs/linux/btrfs.ts";
import { parentOf } from "../../fs/linux/exchange-folders.ts";
import { isMachineRoot } from "../../fs/linux/user-namespace.ts";
import { printablePath, releaseLine, shellPath } from "../../fs/paths/safe-path.ts";
import { absolutePath } from "../../fs/users.ts";

/**
 * Marks of folders that root's daemon keeps, so that its users know them while the daemon is down. File names are
 * hashes: of the folder's path, of the link to it, of its identity (for a moved folder), and of each folder above it.
 */

const MARKS = "kept";
const MAX_MARK_BYTES = 1 << 20;

/** The state directory of root's daemon: `CAIRN_STATE_DIR`, else `/var/lib/cairn`. */
export function systemStateDirectory(env = process.env): string {
  return absolutePath(env, "CAIRN_STATE_DIR") ?? "/var/lib/cairn";
}

/** True in root's daemon, which has its records in its own state directory. */
export function isSystemDaemon(): boolean {
  return process.env["XDG_STATE_HOME"] === systemStateDirectory();
}

/** The state directory of root's daemon, for other processes of root; null for the daemon and other users. */
export function stateOfOtherDaemon(): string | null {
  return isMachineRoot() && !isSystemDaemon() ? systemStateDirectory() : null;
}

function nameOf(kind: "path" | "identity" | "above", value: Uint8Array | string): string {
  return `${createHash("sha256").update(`${kind}\n`).update(value).digest("hex")}.json`;
}

/** Identifies a folder whatever its path: its subvolume, else device, inode and birth time. Null if these are unknown. */
function identityOf(folder: Buffer): string | null {
  try {
    if (isSubvolume(folder)) return `subvolume ${subvolumeUuid(folder)}`;
    const { dev, ino, birthtimeNs } = statSync(folder, { bigint: true });
    // Inode numbers are reused, so the birth time is needed.
    return birthtimeNs > 0n ? `${dev} ${ino} ${birthtimeNs}` : null;
  } catch {
    return null;
  }
}

function namesOf(folder: Buffer, link: string | undefined): string[] {
  const identity = identityOf(folder);
  return [
    nameOf("path", folder),
    ...(link === undefined ? [] : [nameOf("path", link)]),
    ...(identity === null ? [] : [nameOf("identity", identity)]),
  ];
}

/** Writes the marks of a folder for the daemon with this state directory. Returns their names. */
export function writeMarks(state: string, mark: DaemonMark): string[] {
  const directory = join(state, MARKS);
  // Users may open marks by name but not list them, whatever the umask.
  if (durableMkdir(directory, { mode: 0o711 })) chmodSync(directory, 0o711);
  const folder = Buffer.from(rawPath(mark));
  const marks = new Map(namesOf(folder, mark.link).map((name) => [name, mark]));
  for (let above = parentOf(folder); above.length > 1; above = parentOf(above))
    marks.set(nameOf("above", above), markOf(above, { socket: mark.socket }));
  for (const [name, each] of marks) {
    const bytes = encodeChecked(each, encodeDaemonMark, decodeDaemonMark);
    if (readSmallFile(join(directory, name), MAX_MARK_BYTES)?.equals(bytes) !== true)
      durableWrite(join(directory, name), bytes, { mode: 0o644 });
  }
  return [...marks.keys()];
}

/** Tells if root's daemon keeps a folder below this one (its real path). */
export function isAroundDaemons(folder: Buffer): boolean {
  return readMark(systemStateDirectory(), nameOf("above", folder)) !== null;
}

/** Removes all marks except those in `kept` and those of missing folders, whose identity cannot be read now. */
export function removeOtherMarks(
  state: string,
  kept: ReadonlySet<string>,
  isAway: (mark: DaemonMark) => boolean,
): void {
  const directory = join(state, MARKS);
  if (!existsSync(directory)) return;
  for (const name of readdirSync(directory)) {
    const mark = kept.has(name) ? null : readMark(state, name);
    if (!kept.has(name) && (mark === null || !isAway(mark))) durableRemove(join(directory, name));
  }
}

/** Removes the files by which root's daemon marks a folder as kept. For a release by root while that daemon is down. */
export function removeMarksOf(folder: Buffer): void {
  const state = stateOfOtherDaemon();
  const mark = state === null ? null : readMark(state, nameOf("path", folder));
  if (mark === null) return;
  for (const name of namesOf(folder, mark.link)) durableRemove(join(state!, MARKS, name));
}

/** Paths of the folders that root's daemon with this state directory marked as kept, and of the folders above them. */
export function listMarks(state: string): string[] {
  const directory = join(state, MARKS);
  if (!existsSync(directory)) return [];
  const marks = readdirSync(directory).map((name) => readMark(state, name)?.path ?? join(directory, name));
  return [...new Set(marks)];
}

/** Null also for an unreadable mark: the daemon's next start writes it anew. */
function readMark(state: string, name: string): DaemonMark | null {
  try {
    const bytes = readSmallFile(join(state, MARKS, name), MAX_MARK_BYTES);
    return bytes === null ? null : decodeDaemonMark(bytes);
  } catch {
    return null;
  }
}

function markByIdentity(state: string, folder: Buffer): DaemonMark | null {
  const identity = identityOf(folder);
  return identity === null ? null : readMark(state, nameOf("identity", identity));
}

/** Returns the path at which the daemon with this state directory keeps a folder that was moved since; null for other folders. */
export function markedElsewhere(state: string, folder: Buffer): string | null {
  const mark = readMark(state, nameOf("path", folder)) ?? markByIdentity(state, folder);
  return mark === null || folder.equals(rawPath(mark)) ? null : mark.path;
}

/**
 * Throws `no_daemon` for a folder (its real path) that root's daemon keeps, so that nobody begins a second history.
 * Root may use such a folder directly, unless it was moved: only the daemon may change its records then.
 */
export function requireNotDaemons(folder: Buffer): void {
  if (isSystemDaemon()) return;
  const state = systemStateDirectory();
  const byPath = readMark(state, nameOf("path", folder));
  const mark = byPath ?? markByIdentity(state, folder);
  // Root has read the daemon's registry before: a folder that is not in it is no longer kept.
  if (mark === null || (byPath !== null && isMachineRoot())) return;
  const kept = Buffer.from(rawPath(mark));
  const shown = printablePath(folder);
  const moved = byPath === null ? `, as ${printablePath(kept)}` : "";
  throw new CairnError(
    "no_daemon",
    `${shown} is a workspace of root's daemon${moved}, which does not answer at ${mark.socket}`,
    {
      hint: advice`start the daemon, then try again: sudo systemctl start cairn; to use the folder without the daemon: ${either(`sudo cairn release ${shellPath(kept)}`, advice`as root, ${releaseLine(kept)}`)}`,
      details: { kept: printablePath(kept), socket: mark.socket },
    },
  );
}

/** Makes the mark of a folder that the daemon serves. */
export function markOf(
  folder: Uint8Array,
  { socket, link }: { socket: string; link?: string | undefined },
): DaemonMark {
  return { ...recordPath(folder), socket, ...(link === undefined ? {} : { link }) };
}
