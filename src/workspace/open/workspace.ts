import { utimesSync } from "node:fs";
import type { PointStore } from "../store/point-store.ts";
import { advice, CairnError, call, throwIfAborted, toCairnError } from "../../errors.ts";
import type { Recovery, WorkspaceState } from "../../formats/records/control.ts";
import { acquireLock, type Lock } from "../../fs/lock.ts";
import { writeRegular } from "../../fs/regular-file.ts";
import type { Told, Unfinished } from "../../fs/unfinished.ts";
import type { SavePointId } from "../../ids.ts";
import { listWorkspaces, readState } from "../place/control-directory.ts";
import { statCachePath } from "../place/control-layout.ts";
import { type FoundWorkspace, requireStillKept, workspaceIn, workspaceNamed } from "../place/find-workspace.ts";
import { unfinishedIn } from "../points/journals.ts";
import { neverRead, type Point } from "../points/point-files.ts";
import { Points } from "../points/points.ts";
import type { Progress } from "../../contract/words.ts";
import { requireNotOthers, requireNotTested } from "../place/owners.ts";
import { lockingOf } from "../place/registry.ts";
import { Removals } from "../points/held-trees.ts";
import { isUnknownHere, ownPointsOnly, type OutsidePoint, outsidePoint, siblingPoint, takenOver } from "./siblings.ts";
import { requireAgentsTags, requireChosenId, resolveTarget } from "../points/targets.ts";

/** Makes the engine of a workspace's points; called once per operation. */
export type EngineFactory = (found: FoundWorkspace, options: { statCache: string; registeredAt: number }) => PointStore;

/** Work of a workspace that a kill can interrupt: how it is recorded, and how the next command ends it. */
export interface Recoverable extends Told {
  /** True if a killed command left such work; cheap, and takes no lock. */
  isLeft(workspace: Workspace): boolean;
  /** Finishes the work or takes it back. The caller holds the workspace's lock. */
  recover(workspace: Workspace, call: WorkspaceCall): Promise<readonly Recovery[]>;
  /** Present if the record lies in the workspace's journal directory. */
  readonly journaled?: Journaled;
}

/** Facts of work whose record lies in the journal directory. */
export interface Journaled {
  readonly operation: "save" | "restore" | "cleanup" | "conversion" | "seal";
  /** True: the record decides over entries of the folder, so root trusts no other user's record. */
  readonly changesFolder: boolean;
  /** Returns a clause about the folder and the points for a finding that the record cannot be read. */
  unreadable(workspace: Workspace): string;
  record(workspace: Workspace): Pick<Unfinished<unknown>, "check" | "files">;
}

/** Parts of every workspace, passed in by the library. */
export interface WorkspaceParts {
  engine: EngineFactory;
  /** In the order in which they must run. A stop between two of them leaves the same state as a kill. */
  recoveries: readonly Recoverable[];
}

export interface WorkspaceCall {
  signal?: AbortSignal | undefined;
  lockTimeoutMs?: number | undefined;
  onProgress?: ((progress: Progress) => void) | undefined;
  onWarning?: ((message: string) => void) | undefined;
}

/** One workspace of a control directory: its points, its state, and the engine for one operation. */
export class Workspace {
  readonly found: FoundWorkspace;
  readonly points: Points;
  readonly engine: PointStore;
  readonly removals: Removals;
  /** For opening other workspaces of the control directory. */
  readonly parts: WorkspaceParts;
  #isOwn = false;
  /** Lock of the running call; null if it has none, or has released it. */
  #lock: Lock | null = null;

  /** `removals`: they may run on after this workspace is closed. */
  constructor(found: FoundWorkspace, parts: WorkspaceParts, removals = new Removals()) {
    this.found = found;
    this.removals = removals;
    this.points = new Points(found.paths);
    const { workspace, control } = found;
    this.parts = parts;
    this.engine = parts.engine(found, {
      statCache: statCachePath(control, workspace.id),
      registeredAt: Math.floor(Date.parse(workspace.registered_at) / 1000),
    });
  }

  /** The folder's absolute path, raw bytes. */
  get root(): Buffer {
    return this.found.folder;
  }

  state(): WorkspaceState {
    return readState(this.found.paths);
  }

  /** The record of work of a kind that is under way in this workspace, or was interrupted. */
  unfinished<K extends Parameters<typeof unfinishedIn>[1]>(kind: K): ReturnType<typeof unfinishedIn<K>> {
    return unfinishedIn(this.found.paths.journal, kind);
  }

  /**
   * Takes the writer's lock. Waits, then throws a retryable `busy` that names the holder. Throws too if the workspace
   * was moved, released or removed meanwhile (`requireStillKept`).
   */
  async lock(purpose: string, call: WorkspaceCall): Promise<Lock> {
    throwIfAborted(call.signal);
    this.requireNotOthers();
    const onBusy = (): void => noteWanted(this.found.paths.wanted);
    const lock = await acquireLock(this.found.paths.lock, { ...lockingOf(purpose, call), onBusy });
    try {
      requireStillKept(this.found);
    } catch (error) {
      lock.release();
      throw error;
    }
    this.#lock = lock;
    return this.#lock;
  }

  /**
   * False if another process has taken over this call's lock because this process slept too long: the other process
   * owns journals and claims now. True without a lock.
   */
  get isStillLocked(): boolean {
    return this.#lock === null || this.#lock.isReleased || this.#lock.stillHeld();
  }

  /** Call this right before a commit. Throws a retryable `busy`. */
  requireLock(): void {
    if (this.isStillLocked) return;
    throw new CairnError("busy", "this process was suspended too long, and another process took over its lock", {
      hint: advice`see ${call("status")}, then try again: the other process has finished or taken back the interrupted command`,
    });
  }

  /** Throws `refused` before root writes among another user's save points, and in the command of a bisect. The lock calls this; so do writers without a lock. */
  requireNotOthers(): void {
    if (this.#isOwn) return;
    requireNotOthers(this.found.control);
    requireNotTested(this.root);
    this.#isOwn = true;
  }

  /**
   * A point of this workspace, else of another workspace of the control directory, which is read-only here. Throws
   * `damaged` if the point of another workspace is not sealed: the caller seals it and tries again.
   */
  resolve(target: string): Point {
    try {
      return this.resolveOwn(target);
    } catch (error) {
      const { control, workspace } = this.found;
      if (!isUnknownHere(error)) throw error;
      const other = siblingPoint(control, workspace.id, target);
      if (other === null) return this.#received(outsidePoint(control, target), error);
      if (!other.point.sealed) throw neverRead(other.point);
      return other.point;
    }
  }

  /**
   * Returns the point that was made here from the point `outside` of another store. If there is none yet, throws an
   * error with `outside` in its details: the caller receives that point and tries again.
   */
  #received(outside: OutsidePoint | null, unknown: unknown): Point {
    if (outside === null) throw unknown;
    const known = takenOver(this.points, outside.id);
    if (known !== null) return known;
    throw new CairnError("unsupported", `the workspace ${outside.folder} has a store of its own`, {
      hint: "restore its point into a new folder first",
      details: { outside },
    });
  }

  /** A point of this workspace, for a call that changes or removes the point. */
  resolveOwn(target: string): Point {
    return resolveTarget(this.points, target, this.state().head);
  }

  /** Another workspace of the control directory by its name; null if there is none. The caller closes the workspace. */
  sibling(name: string): Workspace | null {
    const found = workspaceNamed(this.found.control, name);
    return found === null ? null : new Workspace(found, this.parts, this.removals);
  }

  /** Throws `invalid_id` for an invalid chosen id, `already_exists` for one that a point has. */
  requireChosenId(id: string, isImported = false): void {
    requireChosenId(this.points, id, isImported);
  }

  /** Throws `already_exists` if a point of a person has one of the tags of an agent's new point. */
  requireTags({ tags, cause }: { tags?: readonly string[] | undefined; cause?: { kind: string } | undefined }): void {
    if (cause?.kind === "tool_call") requireAgentsTags(this.points, tags ?? []);
  }

  byId(id: SavePointId | null): Point | null {
    return id === null ? null : this.points.byId(id);
  }

  /** The point; null also if it is damaged, so that an answer about many points does not fail. */
  readable(id: SavePointId | null): Point | null {
    try {
      return this.byId(id);
    } catch (error) {
      if (toCairnError(error).code === "damaged") return null;
      throw error;
    }
  }

  /**
   * The point to record as head of a folder that equals point `id`. For an unchanged undo point: the point before it.
   */
  standsAt(id: SavePointId): SavePointId {
    const { undo, unchanged, parent_id: parent } = this.byId(id)?.descriptor ?? {};
    return undo === true && unchanged === true && parent !== null && this.byId(parent!) !== null
      ? this.standsAt(parent!)
      : id;
  }

  /** A point's content for reading. Throws `damaged` if the point is not sealed: callers seal points first. */
  async source(point: Point): ReturnType<PointStore["source"]> {
    if (!point.sealed) throw neverRead(point);
    return this.engine.source(point.descriptor.content as unknown as Parameters<PointStore["source"]>[0]);
  }

  /** Reads a point's manifest; null if it has none. */
  async manifest(point: Point): ReturnType<PointStore["manifest"]> {
    return this.engine.manifest(point.descriptor.content as unknown as { tree: string });
  }

  async close(): Promise<void> {
    await this.engine.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Opens the other workspaces of a control directory, including released ones. Throws `damaged` if a record is
 * unreadable, and `permission` if the caller may not see other workspaces.
 */
export function workspacesBeside({ found, parts, removals }: Workspace): Workspace[] {
  const all = listWorkspaces(found.control);
  if (ownPointsOnly.getStore() === true && all.length > 1)
    throw new CairnError("permission", "the control directory has other workspaces, which may be of other users", {
      hint: "ask the operator of the daemon",
    });
  return all.flatMap(({ name, workspace, problem }) => {
    if (name === found.workspace.name) return [];
    if (workspace !== null) return [new Workspace(workspaceIn(found.control, workspace), parts, removals)];
    throw problem ?? new CairnError("damaged", `the record of the workspace ${name} cannot be read`);
  });
}

/** Tells the lock's holder that a process waits: background work then gives the lock back. */
function noteWanted(file: string): void {
  try {
    writeRegular(file, "");
    const now = new Date();
    utimesSync(file, now, now);
  } catch {
    // Without the note, the wait takes longer.
  }
}
