import { append } from "../../append.ts";
import { advice, CairnError, codeOfErrno, either, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { diskTrouble, NodeWriter, protectionOf, type NotSet, whyNotHeld } from "../../archive/write/node-writer.ts";
import type { Identity } from "../../archive/scan/find-record.ts";
import { latin1 } from "../../formats/bytes.ts";
import {
  EACCES,
  EEXIST,
  EINVAL,
  ENODATA,
  ENOENT,
  ENOSYS,
  ENOTDIR,
  ENOTEMPTY,
  EPERM,
  errnoName,
} from "../../fs/linux/errno.ts";
import { renameToFree } from "../../fs/linux/exchange-folders.ts";
import { letOwnerWrite, undoOwnerWrites } from "../../fs/owner-writes.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { isAtOrBelow, joinRaw, printablePath, quotedPath } from "../../fs/paths/safe-path.ts";
import { openDirectory, putName, RENAME } from "../../fs/linux/syscalls.ts";
import { type Arena, newArena } from "../../native.ts";
import {
  type DatabaseStep,
  DatabaseSteps,
  holdDatabase,
  indexOfRemoved,
  type StepsOfDatabase,
} from "./database-steps.ts";
import { HeldDirectories, sameIdentity, throughDescriptor } from "./held-directories.ts";
import {
  displacedName,
  nodeOfMetadata,
  stagedName,
  type Step,
  type StepMetadata,
  type Steps,
} from "../points/steps.ts";
import { HOLDS_WHAT_STAYS, IN_ANOTHER, type Plan } from "./plan.ts";
import { type LeftOutEntry, leftOutOf, notSetEntry } from "../points/left-out.ts";
import { withoutMovedTimes } from "../points/tree-diff.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import fs from "node:fs";

export type KeptReason = "not_saved" | "changed_since" | "not_permitted" | "mounted";

/** The outcome of the steps. */
export interface AppliedSteps {
  created: number;
  updated: number;
  deleted: number;
  metadata: number;
  /** entries left as they are, because the undo point does not hold them or the file system does not hold what they should be */
  kept: { path: Uint8Array; reason: KeptReason; detail: string; aspects?: NotSet["aspects"] }[];
  notSet: NotSet[];
}

export interface ApplyOptions {
  root: Uint8Array;
  staging: string;
  /** after a kill: what is done already is recognised and passed over */
  resuming: boolean;
  /** true when ignore rules explain that a directory is not empty */
  hidesIgnored(path: Uint8Array): boolean;
  /** told of what was just put in place, by the words of its stat result */
  onPlaced?: (step: Extract<Step, { op: "put" }>, stat: Uint32Array) => void;
}

/**
 * Carries the steps of a restore out, in order. Each leaves the entry exactly old or exactly new. Directories of this
 * user's own that may not be written to are opened for it: the last steps set their modes.
 */
export class StepRunner {
  readonly #options: ApplyOptions;
  readonly #held: HeldDirectories;
  /** the staging directory, open */
  readonly #staging: number;
  readonly #writer = new NodeWriter();
  readonly #from = newArena(1024);
  readonly #to = newArena(1024);
  readonly #keptPaths = new Set<string>();
  /** directories that were to go and stay, with something in them; `folded` */
  readonly #stayed = new Set<string>();
  /** paths in latin1 of the directories to come */
  readonly #coming = new Set<string>();
  /** directories to come whose names the file system does not take */
  readonly #notHeld = new PathSelection([]);
  readonly #done: AppliedSteps = { created: 0, updated: 0, deleted: 0, metadata: 0, kept: [], notSet: [] };

  constructor(options: ApplyOptions) {
    this.#options = options;
    this.#held = new HeldDirectories(options.root);
    this.#staging = openDirectory(options.staging);
  }

  run(steps: Steps): AppliedSteps {
    const found = new DatabaseSteps(this.#options.root);
    for (const step of steps) {
      if (step.op === "mkdir") this.#coming.add(latin1(step.path));
      found.add(step);
    }
    const databases = found.found();
    const done = new Set<StepsOfDatabase>();
    try {
      for (const step of steps) {
        const own = step.op === "put" || step.op === "remove" ? databases.get(latin1(step.path)) : undefined;
        if (own === undefined) this.#step(step);
        else if (!done.has(own)) this.#database(own);
        if (own !== undefined) done.add(own);
        failpoint("restore.step");
      }
      append(this.#done.notSet, this.#writer.notSet);
      return this.#done;
    } finally {
      this.#held.close();
      fs.closeSync(this.#staging);
    }
  }

  /** Replaces a database with its sidecars while no process has it open; else it stays with all of them. */
  #database(database: StepsOfDatabase): void {
    const { steps } = database;
    const index = indexOfRemoved(database);
    const held = holdDatabase(database);
    if (typeof held === "string") return this.#keepDatabase(steps, held);
    using _held = held;
    const { created, updated, deleted, kept } = this.#done;
    const before = kept.length;
    const done: DatabaseStep[] = [];
    for (const step of steps) {
      this.#step(step);
      if (kept.length > before) break;
      done.push(step);
      failpoint("restore.database-step");
    }
    const isWanted = held.isWanted();
    if (kept.length === before && !isWanted) return index === null ? undefined : this.#removeIndex(index);
    for (const step of done.toReversed()) this.#takeBack(step);
    Object.assign(this.#done, { created, updated, deleted });
    this.#keepDatabase(
      steps,
      isWanted ? "a process began to open the database" : "some files of the database could not be replaced",
    );
  }

  /** It would keep the directory from going, and SQLite makes it anew. */
  #removeIndex(path: Buffer): void {
    const { fd, name } = this.#held.parentOf(path);
    putName(this.#from, 0, name);
    this.#inside(fd, () => this.#held.sys.unlink(fd, this.#from, 0, false));
  }

  #keepDatabase(steps: readonly DatabaseStep[], why: string): void {
    for (const { path } of steps)
      this.#keep(path, "changed_since", `${why}, so the database and its log were not changed`);
  }

  /** Takes a step back that was just done. */
  #takeBack(step: DatabaseStep): void {
    const { fd, name } = this.#held.parentOf(step.path);
    putName(this.#to, 0, name);
    const aside = Buffer.from(step.op === "put" ? stagedName(step.staged) : displacedName(step.kept));
    putName(this.#from, 0, aside);
    const [staged, there] = [
      { fd: this.#staging, name: this.#from },
      { fd, name: this.#to },
    ];
    let result = 0;
    if (step.op === "remove") {
      if (this.#held.identity(this.#staging, aside) !== null) result = renameToFree(staged, there);
    } else if (this.#held.identity(fd, name)?.inode === step.inode)
      result = step.old === null ? renameToFree(there, staged) : this.#exchange(fd, step.staged);
    if (result < 0) throw this.#error(result, step.path, "cannot put back");
  }

  #step(step: Step): void {
    // What was to come below one goes with it.
    if (this.#notHeld.chosenAt(step.path) !== null) return;
    try {
      switch (step.op) {
        case "remove":
          return this.#remove(step);
        case "rmdir":
          return this.#rmdir(step);
        case "mkdir":
          return this.#mkdir(step);
        case "put":
          return this.#put(step);
        case "meta":
          return this.#meta(step);
        case "dirmeta":
          return this.#dirmeta(step.path, step.metadata);
      }
    } catch (error) {
      const reason = error instanceof CairnError ? reasonToKeep(error) : null;
      if (reason === null) return this.#leaveOut(step, error);
      const takesAway = step.op === "remove" || step.op === "rmdir";
      // With the directory that it was in, by a step after it.
      if (this.#options.resuming && takesAway && reason === "changed_since") return void this.#done.deleted++;
      const { message, details } = error as CairnError;
      this.#keep(step.path, reason, details?.["errno"] === "EXDEV" ? IN_ANOTHER : message);
    }
  }

  /** Lists what is to come where the file system takes no such name; throws any other failure again. */
  #leaveOut(step: Step, error: unknown): void {
    const comes = step.op === "mkdir" || (step.op === "put" && step.old === null);
    const why = comes ? whyNotHeld(error) : null;
    if (why === null) throw error;
    if (step.op === "mkdir") this.#notHeld.add(step.path);
    this.#keep(step.path, "not_permitted", why, ["type"]);
  }

  /** The first reason is the one that the others follow from. */
  #keep(path: Uint8Array, reason: KeptReason, detail: string, aspects?: NotSet["aspects"]): void {
    const key = latin1(path);
    if (this.#keptPaths.has(key)) return;
    this.#keptPaths.add(key);
    this.#done.kept.push({ path, reason, detail, ...(aspects === undefined ? {} : { aspects }) });
  }

  /** Changes what is in an open directory. */
  #inside(fd: number, change: () => number): number {
    const result = change();
    return result === EACCES && letOwnerWrite(fd) ? change() : result;
  }

  #remove(step: Extract<Step, { op: "remove" }>): void {
    const { fd, name } = this.#held.parentOf(step.path);
    const now = this.#held.identity(fd, name);
    if (now === null) {
      if (this.#options.resuming) this.#done.deleted++;
      return;
    }
    const displaced = Buffer.from(displacedName(step.kept));
    if (!sameIdentity(now, step.old)) {
      // Moved away before a kill, and the directory that comes in its place may have been made: the step that makes it judges.
      const isMoved = this.#options.resuming && this.#held.identity(this.#staging, displaced) !== null;
      if (isMoved && this.#coming.has(latin1(step.path))) return void this.#done.deleted++;
      return this.#keep(step.path, "changed_since", "it was changed during the restore and stays as it is");
    }
    putName(this.#from, 0, name);
    putName(this.#to, 0, displaced);
    const to = { fd: this.#staging, name: this.#to };
    const result = this.#inside(fd, () => renameToFree({ fd, name: this.#from }, to));
    // Displaced before a kill; what has its name now is another name of the same file.
    if (result === EEXIST)
      return this.#keep(
        step.path,
        "changed_since",
        "another program made it again after the restore had moved it away",
      );
    if (result < 0) throw this.#error(result, step.path, "cannot move away");
    this.#done.deleted++;
  }

  #rmdir(step: Extract<Step, { op: "rmdir" }>): void {
    this.#held.forget();
    const { fd, name } = this.#held.parentOf(step.path);
    putName(this.#from, 0, name);
    const result = this.#inside(fd, () => this.#held.sys.unlink(fd, this.#from, 0, true));
    if (result === 0) return void this.#done.deleted++;
    if (result === ENOENT || result === ENOTDIR) return;
    this.#closeAgain(step);
    if (result !== ENOTEMPTY && result !== EEXIST) throw this.#error(result, step.path, "cannot remove the directory");
    this.#stayed.add(folded(step.path));
    if (this.#options.hidesIgnored(step.path)) return;
    const inside = this.#done.kept.find(({ path }) => isAtOrBelow(path, step.path));
    if (inside === undefined) this.#keep(step.path, "not_saved", "it contains entries that are not in the undo point");
    else this.#keep(step.path, inside.reason, HOLDS_WHAT_STAYS);
  }

  /** A directory that does not go has its mode again, as it would by a last step if it were to stay. */
  #closeAgain({ path, old }: Extract<Step, { op: "rmdir" }>): void {
    try {
      undoOwnerWrites(this.#held.open(path), old.mode);
    } catch {
      // It is another's, or no directory any more.
    } finally {
      this.#held.forget();
    }
  }

  #mkdir(step: Extract<Step, { op: "mkdir" }>): void {
    const { fd, name } = this.#held.parentOf(step.path);
    putName(this.#to, 0, name);
    const result = this.#inside(fd, () => this.#held.sys.mkdir(fd, this.#to, 0, 0o700));
    if (result === 0) {
      this.#writer.disinheritDirectory(fd, name);
      this.#done.created++;
    } else if (result === EEXIST) {
      const now = this.#held.identity(fd, name);
      if (now === null || (now.mode & 0xf000) !== 0x4000)
        return this.#keep(step.path, "not_saved", "there is an unsaved entry at its path");
      // To a file system that takes `NAME` and `name` for one it is another directory of the point, or one that was to go.
      if (!this.#stayed.has(folded(step.path)) && !this.#isListed(fd, step.path, name))
        throw this.#error(result, step.path, "cannot make the directory");
    } else throw this.#error(result, step.path, "cannot make the directory");
  }

  /** Tells if the directory that holds an entry, open, has exactly its name. */
  #isListed(fd: number, path: Uint8Array, name: Uint8Array): boolean {
    const above = joinRaw(this.#options.root, path.subarray(0, Math.max(path.length - name.length - 1, 0)));
    try {
      return fs.readdirSync(throughDescriptor(fd, above), { encoding: "buffer" }).some((each) => each.equals(name));
    } catch (error) {
      throw toCairnError(error, `list ${printablePath(above)}`);
    }
  }

  #put(step: Extract<Step, { op: "put" }>): void {
    const { fd, name } = this.#held.parentOf(step.path);
    if (this.#options.resuming && step.old !== null) this.#finishTwoRenames(fd, name, step.staged);
    const now = this.#held.identity(fd, name);
    if (this.#options.resuming && now !== null && now.inode === step.inode) return this.#counted(step);
    if (step.old === null && now !== null)
      return this.#keep(step.path, "not_saved", "there is an unsaved entry at its path");
    if (step.old !== null && (now === null || !sameIdentity(now, step.old))) {
      return this.#keep(
        step.path,
        "changed_since",
        now === null ? "it vanished during the restore" : "it was changed during the restore and stays as it is",
      );
    }
    putName(this.#from, 0, Buffer.from(stagedName(step.staged)));
    putName(this.#to, 0, name);
    const result = this.#inside(fd, () =>
      step.old === null
        ? renameToFree({ fd: this.#staging, name: this.#from }, { fd, name: this.#to })
        : this.#exchange(fd, step.staged),
    );
    if (result === EEXIST) return this.#keep(step.path, "not_saved", "there is an unsaved entry at its path");
    if (result < 0) throw this.#error(result, step.path, "cannot put in place");
    const { onPlaced } = this.#options;
    if (onPlaced !== undefined && this.#held.identity(fd, name) !== null) onPlaced(step, this.#held.looked);
    this.#counted(step);
  }

  /** Exchanges what is staged (its name in `#from`) with what is there (its name in `#to`). */
  #exchange(fd: number, staged: number): number {
    const result = this.#held.sys.rename(this.#staging, this.#from, 0, fd, this.#to, 0, RENAME.EXCHANGE);
    return result === EINVAL || result === ENOSYS ? this.#twoRenames(fd, staged) : result;
  }

  /**
   * Moves aside, then in, where the file system cannot exchange; the names in the staging directory end as an exchange
   * leaves them.
   */
  #twoRenames(fd: number, staged: number): number {
    const { sys } = this.#held;
    const staging = this.#staging;
    const aside = this.#aside(staged);
    const moved = sys.rename(fd, this.#to, 0, staging, aside, 0, 0);
    if (moved < 0) return moved;
    const placed = sys.rename(staging, this.#from, 0, fd, this.#to, 0, 0);
    if (placed < 0) return placed;
    return sys.rename(staging, aside, 0, staging, this.#from, 0, 0);
  }

  #aside(staged: number): Arena {
    const aside = newArena(64);
    putName(aside, 0, Buffer.from(`${stagedName(staged)}.old`));
    return aside;
  }

  /** Two renames that a kill came between: the old entry lies aside, the new one is in place or still staged. */
  #finishTwoRenames(fd: number, name: Uint8Array, staged: number): void {
    const staging = this.#staging;
    if (this.#held.identity(staging, Buffer.from(`${stagedName(staged)}.old`)) === null) return;
    putName(this.#from, 0, Buffer.from(stagedName(staged)));
    putName(this.#to, 0, name);
    const own = { fd: staging, name: this.#from };
    if (this.#held.identity(fd, name) === null) renameToFree(own, { fd, name: this.#to });
    renameToFree({ fd: staging, name: this.#aside(staged) }, own);
  }

  #counted(step: Extract<Step, { op: "put" }>): void {
    if (step.old === null) this.#done.created++;
    else this.#done.updated++;
  }

  #meta(step: Extract<Step, { op: "meta" }>): void {
    const { fd, name } = this.#held.parentOf(step.path);
    const now = this.#held.identity(fd, name);
    const fits = now !== null && (this.#options.resuming ? isOldOrDone(now, step) : sameIdentity(now, step.old));
    if (!fits) return this.#keep(step.path, "changed_since", "it was changed during the restore and stays as it is");
    if (this.#held.isMounted(fd, name)) return this.#keep(step.path, "mounted", "another file system is mounted there");
    const refused = this.#dropAttributes(fd, name, step.metadata);
    this.#writer.metadataByName(fd, nodeOfMetadata(step.metadata), { name, path: step.path });
    // Setting an owner takes capabilities away, which not everybody may remove.
    if (refused !== 0) this.#noteAttributes(step.path, this.#dropAttributes(fd, name, step.metadata));
    this.#done.metadata++;
  }

  #dirmeta(path: Uint8Array, metadata: StepMetadata): void {
    const fd = this.#held.open(path);
    this.#noteAttributes(path, this.#dropOpen(fd, metadata));
    this.#writer.finishDirectory(fd, nodeOfMetadata(metadata), path);
  }

  /**
   * Drops attributes of a file; any other entry is made anew instead, as opening a device may do something. Returns the
   * error of one that stays, else 0.
   */
  #dropAttributes(dirfd: number, name: Uint8Array, metadata: StepMetadata): number {
    if (metadata.dropXattrs.length === 0 || metadata.type !== "file") return 0;
    putName(this.#from, 0, name);
    const fd = this.#held.sys.open(
      dirfd,
      this.#from,
      0,
      fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOFOLLOW,
      0,
    );
    if (fd < 0) return fd;
    const refused = this.#dropOpen(fd, metadata);
    this.#held.sys.close(fd);
    return refused;
  }

  #dropOpen(fd: number, { dropXattrs }: StepMetadata): number {
    let refused = 0;
    for (const name of dropXattrs) {
      putName(this.#from, 0, Buffer.from(name, "base64"));
      const result = this.#held.sys.fremovexattr(fd, this.#from, 0);
      if (result < 0 && this.#held.sys.fgetxattr(fd, this.#from, 0, this.#to, 0) !== ENODATA) refused = result;
    }
    return refused;
  }

  #noteAttributes(path: Uint8Array, refused: number): void {
    if (refused === 0) return;
    const detail =
      diskTrouble(refused) ??
      `an extended attribute that the point does not have cannot be removed: ${errnoName(-refused)}`;
    this.#done.notSet.push({ path, aspects: ["xattrs"], detail });
  }

  #error(result: number, path: Uint8Array, doing: string): CairnError {
    const text = quotedPath(path);
    const name = errnoName(-result);
    const why = result === EPERM ? this.#protection(path) : "";
    return new CairnError(codeOfErrno(name), `${doing} ${text}: ${name}${why}`, {
      hint: advice`the restore is journaled: the next ${either("cairn command", "call")} finishes it or takes it back`,
      details: { errno: name },
    });
  }

  #protection(path: Uint8Array): string {
    const { fd, name } = this.#held.parentOf(path);
    return protectionOf(this.#held.sys, fd, name);
  }
}

/** One for all names that a file system may take for one; inodes do not tell, as FUSE may number each of them. */
function folded(path: Uint8Array): string {
  return Buffer.from(path).toString("utf8").normalize().toLowerCase();
}

/** Tells why an entry stays as it is after a failed step; null where the restore cannot go on. */
function reasonToKeep({ code, details }: CairnError): KeptReason | null {
  // The entry or a parent is gone, or is no directory any more: somebody else changed it since.
  if (code === "not_found" || details?.["errno"] === "ELOOP") return "changed_since";
  if (code === "permission") return "not_permitted";
  // Trying again would fail again, as long as it is mounted.
  return details?.["errno"] === "EBUSY" || details?.["errno"] === "EXDEV" ? "mounted" : null;
}

/** After a kill: as it was saved, or as the step leaves it. The change time moves with either. */
function isOldOrDone(now: Identity, { old, metadata }: Extract<Step, { op: "meta" }>): boolean {
  const hasTime = (time: { mtimeSec: number; mtimeNs: number }): boolean =>
    now.mtimeSec === time.mtimeSec && now.mtimeNs === time.mtimeNs;
  return now.inode === old.inode && now.size === old.size && (hasTime(old) || hasTime(metadata));
}

/**
 * Lists what is left out as far as it is known before the first step, of the paths that were asked for (null: of all):
 * what the plan keeps, what of the present could not be saved, what the point lacks (`lacking`), and what staging could
 * not make or set (`notSet`).
 */
export function leftOutBefore(
  plan: Plan,
  scan: ScanResult,
  more: { paths: readonly Uint8Array[] | null; lacking: readonly LeftOutEntry[]; notSet: readonly NotSet[] },
): LeftOutEntry[] {
  const kept = Iterator.from(plan)
    .filter(({ action }) => action === "keep")
    .map(({ path, reason, detail, before, after, aspects }) => ({
      path,
      reason: reason ?? ("not_saved" as const),
      detail: detail ?? "",
      ...(reason === "unreadable" && before?.type === "dir" && after?.type === "dir" ? { aspects } : {}),
    }))
    .toArray();
  const listed = pathsOf(kept);
  const asked = new PathSelection(more.paths ?? [""]);
  const untouched = leftOutOf(scan).filter(
    ({ path, reason }) => reason !== "changing" && asked.chosenAt(path) !== null && !listed.has(latin1(path)),
  );
  // What stays there instead says why.
  const named = pathsOf([...kept, ...untouched]);
  const said = notThere([...kept, ...untouched]);
  const lost = more.lacking.filter(({ path }) => said.of(path) === "no" && !named.has(latin1(path)));
  return [...kept, ...untouched, ...lost, ...more.notSet.map(notSetEntry)];
}

/** With what the steps and the end left: `atLast` is of the folder itself, and of the places apart. */
export function leftOutAfter(
  before: readonly LeftOutEntry[],
  applied: AppliedSteps,
  atLast: readonly NotSet[],
): LeftOutEntry[] {
  // What was not put in place has nothing that could be set on it.
  const stayed = pathsOf(applied.kept);
  const known = before.filter(({ path, aspects }) => aspects === undefined || !stayed.has(latin1(path)));
  // A place apart that a step set already.
  const set = pathsOf(applied.notSet);
  const last = atLast.filter(({ path }) => !set.has(latin1(path)));
  return [...known, ...applied.kept, ...[...last, ...applied.notSet].map(notSetEntry)];
}

/** Selects what of what was left out is not in its place at all, rather than there with another owner or such. */
export function notThere(leftOut: readonly LeftOutEntry[]): PathSelection {
  const gone = leftOut.filter(({ aspects }) => aspects === undefined || aspects.includes("type"));
  return new PathSelection(gone.map(({ path }) => path));
}

function pathsOf(entries: readonly { path: Uint8Array }[]): Set<string> {
  return new Set(entries.map(({ path }) => latin1(path)));
}

/** Counts the directories that stay and were given metadata, as the plan lists them. */
export function changedDirectories(plan: Plan, kept: readonly { path: Uint8Array }[]): number {
  const stayed = new Set(kept.map(({ path }) => latin1(path)));
  let count = 0;
  for (const { action, after, path } of withoutMovedTimes(plan))
    if (action === "metadata" && after?.type === "dir" && !stayed.has(latin1(path))) count++;
  return count;
}
