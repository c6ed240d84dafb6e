import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { Recovery } from "../../formats/records/control.ts";
import { ASIDE_PREFIX, type ForkRemoval } from "../../formats/records/partial.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import { fsyncDirectory } from "../../fs/durable.ts";
import { moveInPlace, moveToFree, nameOf, parentOf } from "../../fs/linux/exchange-folders.ts";
import { inDirectory, openDirectory } from "../../fs/linux/syscalls.ts";
import { newOwner } from "../../fs/lock-owner.ts";
import { type DirectoryIdentity, identityOf, isSameDirectory, removeEntry } from "../../fs/remove-all.ts";
import { joinRaw, printablePath } from "../../fs/paths/safe-path.ts";
import { lockOrNull } from "../new-folder/recover-folders.ts";
import { removeStatCaches } from "../open/temporaries.ts";
import type { Recoverable, Workspace, WorkspaceCall } from "../open/workspace.ts";
import { diskOf, madeAt, readWorkspace } from "../place/control-directory.ts";
import type { FoundWorkspace } from "../place/find-workspace.ts";
import { isOnDisk } from "../place/mounted.ts";
import { leftRemovals, removalIn } from "../place/partials.ts";
import { readRegistration, unregister } from "../place/registry.ts";
import type { LeftOutEntry } from "../points/left-out.ts";

/** The result of removing a fork's folder. */
export interface ForkRest {
  /** path of the folder if some of it is left; null if all of it is removed */
  rest: Buffer | null;
  /** an entry that could not be removed, or that was written after the last look */
  leftOut: LeftOutEntry[];
}

/** A fork's folder that is being removed: it has a name beside its path that no other program knows, and a record. */
export class ForkAside {
  readonly #control: FoundWorkspace["control"];
  readonly #file: string;
  #record: ForkRemoval;

  constructor(control: FoundWorkspace["control"], file: string, record: ForkRemoval) {
    this.#control = control;
    this.#file = file;
    this.#record = record;
  }

  /** Records the removal. `fd`: the open folder; `point`: of the original, with the fork's last state. */
  static begin(
    { control, folder, workspace }: FoundWorkspace,
    fd: number,
    point: ForkRemoval["save_point_id"],
  ): ForkAside {
    const suffix = randomBytes(8).toString("hex");
    const aside = new ForkAside(control, path.join(control.partial, `fork-${suffix}.json`), {
      owner: newOwner("fork", false),
      workspace: { id: workspace.id, name: workspace.name },
      target: recordPath(folder),
      aside: `${ASIDE_PREFIX}${suffix}`,
      inode: identityOf(fd).inode,
      made: madeAt(folder),
      ...diskOf(folder),
      save_point_id: point,
    });
    removalIn(control, aside.#file).begin(aside.#record);
    failpoint("fork.removal-recorded");
    return aside;
  }

  get record(): ForkRemoval {
    return this.#record;
  }

  get #target(): Buffer {
    return Buffer.from(rawPath(this.#record.target));
  }

  /** Path of the folder while it is being removed. */
  get place(): Buffer {
    return joinRaw(parentOf(this.#target), this.#record.aside);
  }

  /** Records another point. */
  renew(point: ForkRemoval["save_point_id"]): void {
    this.#rewrite({ save_point_id: point });
    failpoint("fork.record-renewed");
  }

  #rewrite(changed: Partial<ForkRemoval>): void {
    this.#record = { ...this.#record, ...changed };
    removalIn(this.#control, this.#file).begin(this.#record);
  }

  /** Gives the folder its other name. */
  move(fd: number): void {
    moveToFree(this.#target, this.place);
    failpoint("fork.aside");
    this.requireSame(fd);
    fsyncDirectory(parentOf(this.#target));
  }

  /** Throws `conflict` unless the open folder `fd` lies at the other name. */
  requireSame(fd: number): void {
    if (isSameDirectory(inDirectory(this.place, identityOf), identityOf(fd))) return;
    throw new CairnError("conflict", `another folder was put at ${printablePath(this.#target)} meanwhile`, {
      hint: "find out which program exchanges folders there, then try again",
    });
  }

  /** True before the commit: the fork's workspace is still there. */
  get isKept(): boolean {
    const { name, id } = this.#record.workspace;
    try {
      return readWorkspace(this.#control, name)?.id === id;
    } catch {
      // A record that cannot be read may be the fork's.
      return true;
    }
  }

  /**
   * Gives the folder its path again, also over an empty folder. Throws `conflict` if the path is taken, `busy` if the
   * folder's disk is not mounted.
   */
  giveBack(): void {
    if (this.#isThere()) {
      try {
        moveInPlace(this.place, this.#target);
      } catch (error) {
        const [place, target] = [this.place, this.#target].map(printablePath);
        throw new CairnError("conflict", `the fork lies in ${place}, because something else lies at ${target}`, {
          hint: `move ${target} away: the next command then gives the fork back`,
          cause: error,
        });
      }
      fsyncDirectory(parentOf(this.#target));
    }
    failpoint("fork.given-back");
    this.end();
  }

  /** Removes the folder of a released fork. Keeps the record if some of the folder has to stay. Throws `busy` if its disk is not mounted. */
  async remove(): Promise<ForkRest> {
    const { place } = this;
    const { made, inode } = this.#record;
    const isThere = this.#isThere();
    const parent = openDirectory(parentOf(place));
    try {
      const only = (found: DirectoryIdentity): boolean => made === null || found.inode === inode;
      if (isThere) await removeEntry(parent, nameOf(place), only);
      fs.fsyncSync(parent);
    } catch (error) {
      const { message, details } = toCairnError(error);
      const isMounted = details?.["mounts"] !== undefined || (error as NodeJS.ErrnoException).code === "EBUSY";
      const reason = isMounted ? "mounted" : "not_permitted";
      // The next command tries again, even if this process still runs.
      if (this.#record.rest !== true) this.#rewrite({ rest: true });
      return { rest: place, leftOut: [{ path: Buffer.from("."), reason, detail: message }] };
    } finally {
      fs.closeSync(parent);
    }
    failpoint("fork.folder-removed");
    this.end();
    return { rest: null, leftOut: [] };
  }

  /** True if the folder at the other name is the fork's. Throws `busy` if it is missing because its disk is not mounted. */
  #isThere(): boolean {
    if (this.#isFork(this.place)) return true;
    if (this.#isFork(this.#target) || isOnDisk(this.#target, this.#record)) return false;
    const point = this.#record.mount_point;
    const where = point === undefined ? "" : ` at ${printablePath(Buffer.from(rawPath(point)))}`;
    throw new CairnError(
      "busy",
      `its disk is not mounted${where}; if that disk is gone for good, remove ${this.#file}`,
    );
  }

  #isFork(place: Buffer): boolean {
    const { inode, made } = this.#record;
    const there = fs.lstatSync(place, { bigint: true, throwIfNoEntry: false });
    if (there?.isDirectory() !== true) return false;
    // A file system that keeps no time of birth may also give the folder another inode number.
    return made === null || (there.ino.toString() === inode && madeAt(place) === made);
  }

  /** Removes the record. */
  end(): void {
    removalIn(this.#control, this.#file).end();
  }

  /** Finishes a killed release: unregisters the fork and removes its caches. */
  forget(): void {
    const { id } = this.#record.workspace;
    if (readRegistration(this.#target)?.workspace_id === id) unregister(this.#target);
    removeStatCaches(this.#control, id);
  }
}

export const FORK_REMOVAL: Recoverable = {
  kind: "fork-removal",
  where: "`partial/fork-<16 hex digits>.json` of the control directory",
  steps: [
    "the fork's present is saved, and becomes a point of the original",
    `the record names that point, and a new name for the folder, \`${ASIDE_PREFIX}…\``,
    "the folder gets that name; it is searched again, and saved again if it has changed",
    "● the directory of the fork's workspace is renamed: the fork is released",
    "the fork is unregistered; its content is freed; the folder is removed; the record is removed",
  ],
  before:
    "gives the folder its path again; if something else lies there, the folder waits at its new name; if its disk is not mounted, until it is",
  after: "removes the folder; the record stays as long as some of the folder cannot be removed",
  isLeft: ({ found: { control } }) => leftRemovals(control).length > 0,
  recover: async (workspace, call) => (await endRemovals(workspace, call)).map(({ recovery }) => recovery),
};

/** Ends removals of forks that were killed. Needs no lock of the caller. Returns the removals that are ended now. */
export async function endRemovals(
  workspace: Workspace,
  call: WorkspaceCall,
): Promise<{ record: ForkRemoval; recovery: Recovery }[]> {
  const { control } = workspace.found;
  if (leftRemovals(control).length === 0) return [];
  using lock = await lockOrNull(control, call);
  if (lock === null) return [];
  const ends: Awaited<ReturnType<typeof endRemovals>> = [];
  for (const { file, record } of leftRemovals(control)) {
    const aside = new ForkAside(control, file, record);
    const fork = printablePath(Buffer.from(rawPath(record.target)));
    const interrupted = `the removal of the fork ${fork} was interrupted`;
    const saved = `its last state is the save point ${record.save_point_id.slice(0, 8)}`;
    const end = (outcome: Recovery["outcome"], detail: string): void =>
      void ends.push({ record, recovery: { operation: "fork", outcome, detail: `${interrupted}${detail}`, kept: [] } });
    try {
      if (aside.isKept) {
        aside.giveBack();
        end("rolled_back", "; the fork is unchanged");
        continue;
      }
      aside.forget();
      const { rest, leftOut } = await aside.remove();
      if (rest === null) end("completed", ` and has been finished; ${saved}`);
      else call.onWarning?.(`${interrupted}; ${saved}; the rest lies in ${printablePath(rest)}: ${leftOut[0]!.detail}`);
    } catch (error) {
      call.onWarning?.(`${interrupted}: ${toCairnError(error).message}`);
    }
  }
  return ends;
}
