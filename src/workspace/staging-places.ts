import { append } from "../append.ts";
import fs from "node:fs";
import path from "node:path";
import { rootMetadata, setDirectory } from "../engines/root-metadata.ts";
import type { NotSet } from "../engines/write/node-writer.ts";
import { toCairnError } from "../errors.ts";
import { latin1 } from "../formats/bytes.ts";
import { rawPath, recordPath } from "../formats/record.ts";
import type { DirectoryFacts, PlaceApart } from "../formats/restore.ts";
import { EACCES, ENOENT } from "../fs/errno.ts";
import { flushFileSystem } from "../fs/flush.ts";
import { filesystemKind, mountsInside } from "../fs/mounts.ts";
import { letOwnerWrite } from "../fs/owner-writes.ts";
import { PathSelection } from "../fs/path-selection.ts";
import { removeBelow } from "../fs/remove-below.ts";
import { isAtOrBelow, joinRaw, printablePath } from "../fs/safe-path.ts";
import { newStatBuffer, openDirectory, putName } from "../fs/syscalls.ts";
import { type Arena, hasProc, newArena } from "../native.ts";
import { HeldDirectories } from "./held-directories.ts";
import { isFolderThere } from "./missing-folder.ts";
import type { PlannedEntry } from "./restore-plan.ts";

/** A directory in which a restore stages entries; open. */
export interface Staging {
  fd: number;
  /** leads to it while it is open, through no link that somebody may have put there */
  path: Buffer;
}

/** The places apart in which a plan puts or displaces something. */
export function placesApart(root: Buffer, plan: readonly PlannedEntry[]): PlaceApart[] {
  const finder = finderOf(root);
  if (finder === null) return [];
  const found = new Set<string>();
  const leaving = new Set<string>();
  for (const { path: where, before, after, action } of plan) {
    if (action === "keep" || action === "metadata") continue;
    if (isLeaving({ before, after })) leaving.add(latin1(where));
    if ((before !== null && before.type !== "dir") || (after !== null && after.type !== "dir"))
      found.add(finder.placeOf(parentOf(latin1(where))));
  }
  // What is to go itself cannot: what was displaced from it would lie in it.
  return [...found].filter((place) => place !== "" && !leaving.has(place)).map((place) => describe(root, place));
}

export const GOES_WITH_ANOTHER =
  "it lies in a subvolume or on a file system of its own, out of which nothing can be moved: remove it yourself";
export const HOLDS_WHAT_STAYS = "what is in it stays";

/**
 * The plan with what will stay although it is to go: the files in a place apart that is to go itself, out of which nothing
 * can be moved, with the directories on the way to them.
 */
export function keepingPlaces(root: Buffer, plan: readonly PlannedEntry[]): PlannedEntry[] {
  const finder = finderOf(root);
  if (finder === null) return [...plan];
  const leaving = new Set(plan.filter(isLeaving).map(({ path: where }) => latin1(where)));
  const stays = new PathSelection(
    plan
      .filter(({ before, after, path: where }) => {
        if (before === null || before.type === "dir" || after !== null) return false;
        return leaving.has(finder.placeOf(parentOf(latin1(where))));
      })
      .map(({ path: where }) => where),
  );
  return plan.map((entry) => {
    const isToGo = entry.action !== "keep" && (entry.after === null || isLeaving(entry));
    if (!isToGo || stays.of(entry.path) === "no") return entry;
    const detail = stays.chosenAt(entry.path) === null ? HOLDS_WHAT_STAYS : GOES_WITH_ANOTHER;
    return { ...entry, action: "keep", reason: "mounted", detail };
  });
}

function isLeaving({ before, after }: Pick<PlannedEntry, "before" | "after">): boolean {
  return before?.type === "dir" && after?.type !== "dir";
}

/** Null where there are no places apart. */
function finderOf(root: Buffer): PlaceFinder | null {
  if (!isFolderThere(root)) return null;
  const mounts = mountsInside(root).map(({ mountPoint }) => latin1(Buffer.from(mountPoint).subarray(root.length + 1)));
  if (mounts.length === 0 && filesystemKind(root).name !== "btrfs") return null;
  return new PlaceFinder(root, new Set(mounts));
}

class PlaceFinder {
  readonly #root: Buffer;
  readonly #mounts: ReadonlySet<string>;
  readonly #known = new Map<string, { place: string; device: number | null }>();

  constructor(root: Buffer, mounts: ReadonlySet<string>) {
    this.#root = root;
    this.#mounts = mounts;
    this.#known.set("", { place: "", device: fs.lstatSync(root).dev });
  }

  /** Of a directory, or of what is to become one: the nearest place apart at or above it; "" where there is none. */
  placeOf(directory: string): string {
    return this.#look(directory).place;
  }

  #look(directory: string): { place: string; device: number | null } {
    const known = this.#known.get(directory);
    if (known !== undefined) return known;
    const above = this.#look(parentOf(directory));
    const device = above.device === null ? null : deviceOf(this.#root, directory);
    const isApart = device !== null && (device !== above.device || this.#mounts.has(directory));
    const found = { place: isApart ? directory : above.place, device };
    this.#known.set(directory, found);
    return found;
  }
}

/** Of a real directory below the root; null where none is. The path may be longer than the system takes. */
function deviceOf(root: Buffer, directory: string): number | null {
  const path = absolute(root, directory);
  if (path.length > PATH_BYTES) return deviceOfLong(root, Buffer.from(directory, "latin1"));
  const facts = fs.lstatSync(path, { throwIfNoEntry: false });
  return facts?.isDirectory() === true ? facts.dev : null;
}

/** What one call takes of a path. */
const PATH_BYTES = 4000;

function deviceOfLong(root: Buffer, directory: Uint8Array): number | null {
  const held = new HeldDirectories(root);
  try {
    const fd = openOrNull(held, directory);
    return fd === null ? null : fs.fstatSync(fd).dev;
  } finally {
    held.close();
  }
}

function describe(root: Buffer, place: string): PlaceApart {
  const { mode, uid, gid, mtimeSec, mtimeNs } = rootMetadata(absolute(root, place));
  return { ...recordPath(Buffer.from(place, "latin1")), mode, uid, gid, mtime_sec: mtimeSec, mtime_ns: mtimeNs };
}

/** Makes the staging directory of each place. Where that is not allowed none is, and what is below stays as it is. */
export function makePlaces(root: Uint8Array, staging: string, apart: readonly PlaceApart[]): void {
  eachPlace(root, apart, (held, fd) => {
    const name = nameOf(staging);
    const made = held.sys.mkdir(fd, name, 0, 0o700);
    if (made === EACCES && letOwnerWrite(fd)) held.sys.mkdir(fd, name, 0, 0o700);
  });
}

/**
 * Removes them with all that is in them. `after`: what each place's directory is to be then; what of it could not be set
 * is returned. A place that has none is not touched: another file system may be mounted there than when it was made.
 */
export function removePlaces(
  root: Uint8Array,
  staging: string,
  apart: readonly PlaceApart[],
  after: (place: PlaceApart) => DirectoryFacts = (place) => place,
): NotSet[] {
  const notSet: NotSet[] = [];
  eachPlace(root, apart, (held, fd, place) => {
    const name = path.basename(staging);
    if (held.sys.stat(fd, nameOf(staging), 0, newStatBuffer()) === ENOENT) return;
    letOwnerWrite(fd);
    try {
      removeBelow(fd, Buffer.from(name));
    } catch (error) {
      const shown = printablePath(joinRaw(rawPath(place), name));
      throw toCairnError(error, `remove ${shown}, in which entries were staged`);
    }
    append(notSet, setDirectory(fd, after(place), { path: rawPath(place) }));
  });
  return notSet;
}

/** Opens each place that is still there, following no link; none where the folder itself was removed since. */
function eachPlace(
  root: Uint8Array,
  apart: readonly PlaceApart[],
  work: (held: HeldDirectories, fd: number, place: PlaceApart) => void,
): void {
  if (apart.length === 0 || !isFolderThere(Buffer.from(root))) return;
  const held = new HeldDirectories(root);
  try {
    for (const place of apart) {
      const fd = openOrNull(held, rawPath(place));
      if (fd !== null) work(held, fd, place);
    }
  } finally {
    held.close();
  }
}

function openOrNull(held: HeldDirectories, place: Uint8Array): number | null {
  try {
    return held.open(place);
  } catch {
    // It went, or is no directory any more.
    return null;
  }
}

/** What was staged in places apart, and moved in them, is durable then. */
export async function flushPlaces(root: Uint8Array, staging: string, apart: readonly PlaceApart[]): Promise<void> {
  if (apart.length === 0) return;
  const stagings = new Stagings(root, staging, apart);
  try {
    for (const { path: folder } of stagings.all().slice(1)) await flushFileSystem(folder);
  } finally {
    stagings.close();
  }
}

/** The staging directories of a restore, held open. */
export class Stagings {
  readonly #main: Staging;
  /** deepest first */
  readonly #apart: { place: Buffer; staging: Staging }[] = [];
  readonly #lacking: Buffer[] = [];

  constructor(root: Uint8Array, staging: string, apart: readonly PlaceApart[]) {
    this.#main = { fd: openDirectory(staging), path: Buffer.from(staging) };
    const gone = new Set(apart);
    eachPlace(root, apart, (held, above, place) => {
      gone.delete(place);
      const fd = held.sys.open(above, nameOf(staging), 0, DIRECTORY, 0);
      // Without one the main one serves: nothing can be moved from there, and so what is below stays as it is.
      const where = Buffer.from(rawPath(place));
      if (fd < 0) return void this.#lacking.push(where);
      const whole = joinRaw(joinRaw(root, where), path.basename(staging));
      this.#apart.push({ place: where, staging: { fd, path: throughDescriptor(fd, whole) } });
    });
    append(
      this.#lacking,
      [...gone].map((place) => Buffer.from(rawPath(place))),
    );
    this.#apart.sort((a, b) => b.place.length - a.place.length);
  }

  /** Where the entry at a path is staged, and displaced to. */
  of(where: Uint8Array): Staging {
    const found = this.#apart.find(({ place }) => where.length > place.length && isAtOrBelow(where, place));
    return found?.staging ?? this.#main;
  }

  /** Whether an entry lies in a place apart, or is one, that has no staging directory (any more). */
  lacks(where: Uint8Array): boolean {
    return this.#lacking.some((place) => isAtOrBelow(where, place));
  }

  /** The main one, then those apart. */
  all(): Staging[] {
    return [this.#main, ...this.#apart.map(({ staging }) => staging)];
  }

  close(): void {
    for (const { fd } of this.all()) fs.closeSync(fd);
  }
}

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;

function nameOf(staging: string): Arena {
  const name = newArena(64);
  putName(name, 0, Buffer.from(path.basename(staging)));
  return name;
}

/**
 * Leads to an open directory through no link that somebody may have put there, where there is /proc. Ends in a dot, so that
 * it can be opened where links are refused.
 */
export function throughDescriptor(fd: number, otherwise: Buffer): Buffer {
  return process.platform === "linux" && hasProc() ? Buffer.from(`/proc/self/fd/${fd}/.`) : otherwise;
}

function parentOf(place: string): string {
  return place.slice(0, Math.max(place.lastIndexOf("/"), 0));
}

function absolute(root: Buffer, place: string): Buffer {
  return joinRaw(root, Buffer.from(place, "latin1"));
}
