import { append } from "../../append.ts";
import { advice, CairnError, codeOfErrno, either, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { diskTrouble, NodeWriter, protectionOf, type NotSet, whyNotHeld } from "../../archive/write/node-writer.ts";
import type { Identity } from "../../archive/scan/find-record.ts";
import { latin1 } from "../../formats/bytes.ts";
import {
  EACCES,
  EAGAIN,
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
import { type OpenPlace, renameToFree } from "../../fs/linux/exchange-folders.ts";
import { letOwnerWrite } from "../../fs/owner-writes.ts";
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
import { HeldDirectories, isDirectory, sameIdentity, throughDescriptor } from "./held-directories.ts";
import {
  displacedName,
  nodeOfMetadata,
  stagedName,
  type Step,
  type StepMetadata,
  type Steps,
} from "../points/steps.ts";
import { formerPlace, IN_PLACE, IN_USE, writeInPlace } from "./in-place.ts";
import { HOLDS_WHAT_STAYS, IN_ANOTHER, type Plan } from "../rules/plan.ts";
import { type LeftOutEntry, leftOutOf, notSetEntry } from "../points/left-out.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import fs from "node:fs";

type KeptReason = "not_saved" | "changed_since" | "not_permitted" | "mounted";

export interface AppliedSteps {
  created: number;
  updated: number;
  deleted: number;
  metadata: number;
  /** entries left as they are: the undo point lacks them, or the file system cannot hold the new ones */
  kept: { path: Uint8Array; reason: KeptReason; detail: string; aspects?: NotSet["aspects"] }[];
  notSet: NotSet[];
}

interface ApplyOptions {
  root: Uint8Array;
  staging: string | Buffer;
  /**
   * Set if entries are staged at their own paths, not under the numbers of the steps, and no journal has the steps, so
   * `resuming` is false. `isSame` tells if an entry is as it was planned.
   */
  tree?: { isSame: (now: Identity, old: Identity) => boolean };
  /** true after a kill: steps that are done already are recognised and skipped */
  resuming: boolean;
  /** true if ignore rules explain that a directory is not empty */
  hidesIgnored(path: Uint8Array): boolean;
  /** called with the step and the words of the stat result of each entry that was put in place */
  onPlaced?: (step: Extract<Step, { op: "put" }>, stat: Uint32Array) => void;
}

/**
 * Carries out the steps of a restore, in order. Each step leaves its entry exactly old or exactly new. Directories of
 * this user without write permission are opened for writing: the last steps set their modes.
 */
export class StepRunner {
  readonly #options: ApplyOptions;
  readonly #held: HeldDirectories;
  /** the staging directory's descriptor */
  readonly #staging: number;
  /** the staging directory, if entries are staged at their own paths */
  readonly #tree: HeldDirectories | null;
  /** true while the files of a database are replaced, until one of them cannot be taken back */
  #takesBack = false;
  readonly #writer = new NodeWriter();
  readonly #from = newArena(1024);
  readonly #to = newArena(1024);
  readonly #keptPaths = new Set<string>();
  /** directories that should be removed but are not empty, as `folded` paths */
  readonly #stayed = new Set<string>();
  /** latin1 paths of the directories that steps will make */
  readonly #coming = new Set<string>();
  /** new directories whose names the file system refuses */
  readonly #notHeld = new PathSelection([]);
  readonly #done: AppliedSteps = { created: 0, updated: 0, deleted: 0, metadata: 0, kept: [], notSet: [] };

  constructor(options: ApplyOptions) {
    this.#options = options;
    this.#held = new HeldDirectories(options.root);
    this.#staging = openDirectory(options.staging);
    this.#tree = options.tree !== undefined ? new HeldDirectories(Buffer.from(options.staging as string)) : null;
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
        else if (!done.has(own)) {
          done.add(own);
          this.#takesBack = true;
          this.#database(own);
          this.#takesBack = false;
        }
        failpoint("restore.step");
      }
      append(this.#done.notSet, this.#writer.notSet);
      return this.#done;
    } finally {
      this.#held.close();
      this.#tree?.close();
      fs.closeSync(this.#staging);
    }
  }

  /** Replaces a database and its sidecars while no process has the database open. Otherwise all of them stay. */
  #database(database: StepsOfDatabase): void {
    const { steps } = database;
    const index = indexOfRemoved(database);
    const held = holdDatabase(database);
    if (typeof held === "string") return this.#keepDatabase(steps, held);
    using _held = held;
    // A file system that cannot exchange takes nothing back, so all files are looked at before the first is replaced.
    if (this.#tree !== null && !steps.every((step) => this.#isAsPlanned(step)))
      return this.#keepDatabase(steps, "a file of the database changed during the restore");
    const { created, updated, deleted, kept } = this.#done;
    const before = kept.length;
    const done: DatabaseStep[] = [];
    for (const step of steps) {
      this.#step(step);
      if (kept.length > before && this.#takesBack) break;
      done.push(step);
      failpoint("restore.database-step");
    }
    if (!this.#takesBack) return;
    const isWanted = held.isWanted();
    if (kept.length === before && !isWanted) {
      if (this.#tree !== null) this.#removeDisplaced(done);
      return index === null ? undefined : this.#removeIndex(index);
    }
    for (const step of done.toReversed()) this.#takeBack(step);
    Object.assign(this.#done, { created, updated, deleted });
    this.#keepDatabase(
      steps,
      isWanted ? "a process began to open the database" : "some files of the database could not be replaced",
    );
  }

  #isAsPlanned({ path, old }: DatabaseStep): boolean {
    const { fd, name } = this.#held.parentOf(path);
    const now = this.#held.identity(fd, name);
    return old === null ? now === null : now !== null && this.#isSame(now, old);
  }

  /** Removes the old files that exchanges left at the staged paths: a restore that goes on would write into them. */
  #removeDisplaced(steps: readonly DatabaseStep[]): void {
    for (const step of steps) {
      if (step.op !== "put" || step.old === null) continue;
      const { fd, name } = this.#stagedPlace(step);
      this.#held.sys.unlink(fd, name, 0, false);
      failpoint("restore.displaced-removed");
    }
  }

  /** The index would keep its directory from being removed, and SQLite makes an index again. */
  #removeIndex(path: Buffer): void {
    const { fd, name } = this.#held.parentOf(path);
    putName(this.#from, 0, name);
    this.#inside(fd, () => this.#held.sys.unlink(fd, this.#from, 0, false));
  }

  #keepDatabase(steps: readonly DatabaseStep[], why: string): void {
    for (const { path } of steps)
      this.#keep(path, "changed_since", `${why}, so the database and its log were not changed`);
  }

  #takeBack(step: DatabaseStep): void {
    const { fd, name } = this.#held.parentOf(step.path);
    putName(this.#to, 0, name);
    const there = { fd, name: this.#to };
    let result = 0;
    if (step.op === "remove") {
      const aside = Buffer.from(displacedName(step.kept));
      putName(this.#from, 0, aside);
      const isMoved = this.#held.identity(this.#staging, aside) !== null;
      if (isMoved) result = renameToFree({ fd: this.#staging, name: this.#from }, there);
    } else if (this.#held.identity(fd, name)?.inode === step.inode) {
      const staged = this.#stagedPlace(step);
      result = step.old === null ? renameToFree(there, staged) : this.#replace(staged, fd, step.staged);
    }
    if (result < 0) throw this.#error(result, step.path, "cannot put back");
  }

  /** Returns the place of a staged entry, with its name in `#from`. */
  #stagedPlace({ path, staged }: Extract<Step, { op: "put" }>): OpenPlace {
    const at = this.#tree?.parentOf(path) ?? { fd: this.#staging, name: Buffer.from(stagedName(staged)) };
    putName(this.#from, 0, at.name);
    return { fd: at.fd, name: this.#from };
  }

  #step(step: Step): void {
    // Entries below a directory that could not be made are skipped too.
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
        case "write":
          return this.#write(step);
        case "meta":
          return this.#meta(step);
        case "dirmeta":
          return this.#dirmeta(step.path, step.metadata);
      }
    } catch (error) {
      const reason = error instanceof CairnError ? reasonToKeep(error) : null;
      if (reason === null) return this.#leaveOut(step, error);
      const takesAway = step.op === "remove" || step.op === "rmdir";
      // The entry went with its directory, by a later step that was done before the kill.
      if (this.#options.resuming && takesAway && reason === "changed_since") return void this.#done.deleted++;
      const { message, details } = error as CairnError;
      const isInAnother = details?.["errno"] === "EXDEV" && this.#tree === null;
      this.#keep(step.path, reason, isInAnother ? IN_ANOTHER : message);
    }
  }

  /** Lists a new entry whose name the file system refuses. Throws any other failure again. */
  #leaveOut(step: Step, error: unknown): void {
    const comes = step.op === "mkdir" || (step.op === "put" && step.old === null);
    const why = comes ? whyNotHeld(error) : null;
    if (why === null) throw error;
    if (step.op === "mkdir") this.#notHeld.add(step.path);
    this.#keep(step.path, "not_permitted", why, ["type"]);
  }

  /** Keeps the first reason of a path: later failures follow from it. */
  #keep(path: Uint8Array, reason: KeptReason, detail: string, aspects?: NotSet["aspects"]): void {
    const key = latin1(path);
    if (this.#keptPaths.has(key)) return;
    this.#keptPaths.add(key);
    this.#done.kept.push({ path, reason, detail, ...(aspects === undefined ? {} : { aspects }) });
  }

  /** Runs `change` in an open directory. Runs it again with write permission if that was missing. */
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
      // The entry was moved away before a kill, and a new directory may have its name: the step that makes the
      // directory decides.
      const isMoved = this.#options.resuming && this.#held.identity(this.#staging, displaced) !== null;
      if (isMoved && this.#coming.has(latin1(step.path))) return void this.#done.deleted++;
      return this.#keep(step.path, "changed_since", "it was changed during the restore and stays as it is");
    }
    putName(this.#from, 0, name);
    putName(this.#to, 0, displaced);
    const to = { fd: this.#staging, name: this.#to };
    const result = this.#inside(fd, () => renameToFree({ fd, name: this.#from }, to));
    // The entry was displaced before a kill. The entry that has its name now is another name of the same file.
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
    // A last step would set the mode if the directory were to stay.
    this.#held.closeAgain(step.path, step.old.mode);
    if (result !== ENOTEMPTY && result !== EEXIST) throw this.#error(result, step.path, "cannot remove the directory");
    this.#stayed.add(folded(step.path));
    if (this.#options.hidesIgnored(step.path)) return;
    const inside = this.#done.kept.find(({ path }) => isAtOrBelow(path, step.path));
    if (inside === undefined) this.#keep(step.path, "not_saved", "it contains entries that are not in the undo point");
    else this.#keep(step.path, inside.reason, HOLDS_WHAT_STAYS);
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
      if (now === null || !isDirectory(now)) return this.#keepTaken(step.path);
      // A file system may take `NAME` and `name` for the same name: then the present entry is another directory of the point, or
      // one that should be removed.
      if (!this.#stayed.has(folded(step.path)) && !this.#isListed(fd, step.path, name))
        throw this.#error(result, step.path, "cannot make the directory");
    } else throw this.#error(result, step.path, "cannot make the directory");
  }

  /** Tells if the open directory that holds an entry lists exactly the entry's name. */
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
    if (step.old === null && now !== null) return this.#keepTaken(step.path);
    if (step.old !== null && (now === null || !this.#isSame(now, step.old))) {
      return this.#keep(
        step.path,
        "changed_since",
        now === null ? "it vanished during the restore" : "it was changed during the restore and stays as it is",
      );
    }
    const staged = this.#stagedPlace(step);
    putName(this.#to, 0, name);
    const result = this.#inside(fd, () =>
      step.old === null ? renameToFree(staged, { fd, name: this.#to }) : this.#replace(staged, fd, step.staged),
    );
    if (result === EEXIST) return this.#keepTaken(step.path);
    if (result < 0) throw this.#error(result, step.path, "cannot put in place");
    const { onPlaced } = this.#options;
    if (onPlaced !== undefined && this.#held.identity(fd, name) !== null) onPlaced(step, this.#held.looked);
    this.#counted(step);
  }

  /** Keeps an entry whose path a new one should have. */
  #keepTaken(path: Uint8Array): void {
    if (this.#tree === null) return this.#keep(path, "not_saved", "there is an unsaved entry at its path");
    this.#keep(path, "changed_since", "another program made it during the restore, and it stays as it is");
  }

  #isSame(now: Identity, old: Identity): boolean {
    return (this.#options.tree?.isSame ?? sameIdentity)(now, old);
  }

  /**
   * Replaces the present entry (its name in `#to`) by a staged one. `number`: of the step. Exchanges both, so that the
   * old entry can be taken back. Without a journal only databases are taken back, if the file system can exchange.
   */
  #replace(staged: OpenPlace, fd: number, number: number): number {
    const rename = (flags: number): number => this.#held.sys.rename(staged.fd, staged.name, 0, fd, this.#to, 0, flags);
    if (this.#tree !== null && !this.#takesBack) return rename(0);
    const result = rename(RENAME.EXCHANGE);
    if (result !== EINVAL && result !== ENOSYS) return result;
    if (this.#tree === null) return this.#twoRenames(staged, fd, number);
    this.#takesBack = false;
    return rename(0);
  }

  /**
   * Moves the old entry aside, then the new one in, for file systems that cannot exchange. Afterwards the names in the
   * staging directory are those after an exchange. After a kill between, the journal's next run goes on.
   */
  #twoRenames(staged: OpenPlace, fd: number, number: number): number {
    const { sys } = this.#held;
    const aside = this.#aside(number);
    const moved = sys.rename(fd, this.#to, 0, this.#staging, aside, 0, 0);
    if (moved < 0) return moved;
    failpoint("restore.moved-aside");
    const placed = sys.rename(staged.fd, staged.name, 0, fd, this.#to, 0, 0);
    if (placed < 0) {
      renameToFree({ fd: this.#staging, name: aside }, { fd, name: this.#to });
      return placed;
    }
    failpoint("restore.moved-in");
    return sys.rename(this.#staging, aside, 0, staged.fd, staged.name, 0, 0);
  }

  #aside(staged: number): Arena {
    const aside = newArena(64);
    putName(aside, 0, Buffer.from(`${stagedName(staged)}.old`));
    return aside;
  }

  /** Finishes two renames after a kill between them: the old entry lies aside, the new one is in place or still staged. */
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

  /** Writes new content into the present file. Afterwards the staged name has the old content, as after an exchange. */
  #write(step: Extract<Step, { op: "write" }>): void {
    const { path, old } = step;
    const { resuming } = this.#options;
    const { fd, name } = this.#held.parentOf(path);
    const own = Buffer.from(stagedName(step.staged));
    if (resuming && this.#held.identity(this.#staging, own)?.inode !== step.inode) return void this.#done.updated++;
    const now = this.#held.identity(fd, name);
    const fits = now !== null && (resuming ? now.inode === old.inode : sameIdentity(now, old));
    if (!fits) return this.#keep(path, "changed_since", "it was changed during the restore and stays as it is");
    putName(this.#from, 0, name);
    const file = this.#held.sys.open(fd, this.#from, 0, IN_PLACE, 0);
    // Another process has a lease on the file.
    if (file === EAGAIN) return this.#keep(path, "changed_since", IN_USE);
    if (file < 0) throw this.#error(file, path, "cannot write in place");
    const staged = joinRaw(Buffer.from(this.#options.staging as string), own);
    try {
      const why = writeInPlace(file, step, { staged, resuming });
      if (why !== null) return this.#keep(path, "changed_since", why);
    } finally {
      this.#held.sys.close(file);
    }
    this.#setMetadata({ fd, name }, step);
    failpoint("restore.in-place-set");
    fs.renameSync(formerPlace(staged), staged);
    this.#done.updated++;
  }

  #meta(step: Extract<Step, { op: "meta" }>): void {
    const { fd, name } = this.#held.parentOf(step.path);
    const now = this.#held.identity(fd, name);
    const fits = now !== null && (this.#options.resuming ? isOldOrDone(now, step) : sameIdentity(now, step.old));
    if (!fits) return this.#keep(step.path, "changed_since", "it was changed during the restore and stays as it is");
    if (this.#held.isMounted(fd, name)) return this.#keep(step.path, "mounted", "another file system is mounted there");
    this.#setMetadata({ fd, name }, step);
    this.#done.metadata++;
  }

  #setMetadata(
    { fd, name }: { fd: number; name: Uint8Array },
    { path, metadata }: { path: Uint8Array; metadata: StepMetadata },
  ): void {
    const refused = this.#dropAttributes(fd, name, metadata);
    this.#writer.metadataByName(fd, nodeOfMetadata(metadata), { name, path });
    // Setting an owner removes capabilities, and some users may not remove them otherwise.
    if (refused !== 0) this.#noteAttributes(path, this.#dropAttributes(fd, name, metadata));
  }

  #dirmeta(path: Uint8Array, metadata: StepMetadata): void {
    const fd = this.#held.open(path);
    this.#noteAttributes(path, this.#dropOpen(fd, metadata));
    this.#writer.finishDirectory(fd, nodeOfMetadata(metadata), path);
  }

  /**
   * Drops attributes of a file. Any other entry is made again instead, because opening a device may have effects.
   * Returns the error if an attribute stays, else 0.
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
      hint:
        this.#tree === null
          ? advice`the restore is journaled: the next ${either("cairn command", "call")} finishes it or takes it back`
          : "restore again: each entry is old or new, and a second restore writes the rest",
      details: { errno: name },
    });
  }

  #protection(path: Uint8Array): string {
    const { fd, name } = this.#held.parentOf(path);
    return protectionOf(this.#held.sys, fd, name);
  }
}

/** Folds names that a file system may take for the same name. Inodes cannot tell, because FUSE may number each name. */
function folded(path: Uint8Array): string {
  return Buffer.from(path).toString("utf8").normalize().toLowerCase();
}

/** Tells why an entry stays as it is after a failed step. Returns null if the restore cannot go on. */
function reasonToKeep({ code, details }: CairnError): KeptReason | null {
  // The entry or a parent is gone, or became a directory or no directory: another process changed it.
  if (code === "not_found" || details?.["errno"] === "ELOOP" || details?.["errno"] === "EISDIR") return "changed_since";
  if (code === "permission") return "not_permitted";
  // Another attempt would fail too while the file system is mounted.
  return details?.["errno"] === "EBUSY" || details?.["errno"] === "EXDEV" ? "mounted" : null;
}

/** Tells if a file is as it was saved or as the step leaves it, after a kill. The change time moves in both cases. */
function isOldOrDone(now: Identity, { old, metadata }: Extract<Step, { op: "meta" }>): boolean {
  const hasTime = (time: { mtimeSec: number; mtimeNs: number }): boolean =>
    now.mtimeSec === time.mtimeSec && now.mtimeNs === time.mtimeNs;
  return now.inode === old.inode && now.size === old.size && (hasTime(old) || hasTime(metadata));
}

/**
 * Lists the entries known before the first step to be left out, at the asked paths (null: all). The plan keeps them,
 * the present could not be saved, the point lacks them (`lacking`), or staging could not make or set them (`notSet`).
 */
export function leftOutBefore(
  plan: Plan,
  scan: ScanResult,
  more: { paths: readonly Uint8Array[] | null; lacking: readonly LeftOutEntry[]; notSet: readonly NotSet[] },
): LeftOutEntry[] {
  const kept = Iterator.from(plan)
    .filter(({ action, edited }) => action === "keep" || edited !== undefined)
    .map(({ path, reason, detail, before, after, aspects, edited }) => ({
      path,
      reason: reason ?? ("not_saved" as const),
      detail: detail ?? "",
      ...(reason === "unreadable" && before?.type === "dir" && after?.type === "dir" ? { aspects } : {}),
      ...(edited === undefined ? {} : { aspects: [...edited] }),
    }))
    .toArray();
  const listed = pathsOf(kept);
  const asked = new PathSelection(more.paths ?? [""]);
  const untouched = leftOutOf(scan).filter(
    ({ path, reason }) => reason !== "changing" && asked.chosenAt(path) !== null && !listed.has(latin1(path)),
  );
  // The entry that stays at the path already has a reason.
  const named = pathsOf([...kept, ...untouched]);
  const said = notThere([...kept, ...untouched]);
  const lost = more.lacking.filter(({ path }) => said.of(path) === "no" && !named.has(latin1(path)));
  return [...kept, ...untouched, ...lost, ...more.notSet.map(notSetEntry)];
}

/** Adds the entries that the steps and the end left. `atLast` is about the folder itself. */
export function leftOutAfter(
  before: readonly LeftOutEntry[],
  applied: AppliedSteps,
  atLast: readonly NotSet[],
): LeftOutEntry[] {
  // An entry that was not put in place has no metadata to report.
  const stayed = pathsOf(applied.kept);
  const known = before.filter(({ path, aspects }) => aspects === undefined || !stayed.has(latin1(path)));
  return [...known, ...applied.kept, ...[...atLast, ...applied.notSet].map(notSetEntry)];
}

/** Selects the entries of `leftOut` that are missing at their paths, without those that lack only metadata. */
export function notThere(leftOut: readonly LeftOutEntry[]): PathSelection {
  const gone = leftOut.filter(({ aspects }) => aspects === undefined || aspects.includes("type"));
  return new PathSelection(gone.map(({ path }) => path));
}

function pathsOf(entries: readonly { path: Uint8Array }[]): Set<string> {
  return new Set(entries.map(({ path }) => latin1(path)));
}
