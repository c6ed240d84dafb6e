import { type Clock, wakeAt } from "./clock.ts";

/** Notices of changes in workspaces, by workspace id. */
export interface Changes {
  /** Calls `listener` for changes, and for changes that may have been missed, until the returned function is called. */
  listen(listener: (workspaceId: string) => void): () => void;
  /** False for a workspace without change notices. */
  tells(workspaceId: string): boolean;
}

export interface SaveRules {
  /** Milliseconds without a change after which a folder is saved; only with change notices. */
  quietMs: number;
  /** The longest time that changes stay unsaved; without change notices the time between two tries. */
  mostMs: number;
  /** With change notices: the time after the last try until a save is tried even without a change; null: never. */
  idleMs: number | null;
}

interface Options {
  clock: Clock;
  changes: Changes;
  /** Saves the workspace if it changed. Throws if the save fails. */
  save: (id: string, signal: AbortSignal) => Promise<void>;
}

/** The most automatic saves that run at once; calls of people and agents do not count. */
const AT_ONCE = 2;

/** A workspace that is saved automatically. Times are milliseconds since 1970. */
interface Watched {
  /** Times of the first and last change that the newest save may lack; null: no such change is known. */
  firstAt: number | null;
  lastAt: number;
  /** Time of the last try, or of the workspace's arrival. */
  triedAt: number;
  isSaving: boolean;
  cancel: (() => void) | null;
}

/**
 * Saves workspaces automatically. With change notices: when the folder has been quiet, and at the latest some time after
 * the first unsaved change. Without: at intervals. A change during a save counts for the next save.
 */
export class AutoSaves {
  readonly #options: Options;
  #rules: SaveRules | null = null;
  readonly #watched = new Map<string, Watched>();
  readonly #waiting = new Set<string>();
  #unlisten: (() => void) | null = null;
  readonly #under = new Set<Promise<void>>();
  readonly #stopped = new AbortController();

  constructor(options: Options) {
    this.#options = options;
  }

  /** Applies these rules to these workspaces from now on; null: no workspace is saved. */
  set(rules: SaveRules | null, ids: readonly string[]): void {
    if (this.#stopped.signal.aborted) return;
    this.#rules = rules;
    const wanted = new Set(rules === null ? [] : ids);
    for (const [id, each] of this.#watched) {
      each.cancel?.();
      each.cancel = null;
      if (!wanted.has(id)) this.#watched.delete(id);
    }
    const now = this.#options.clock.now();
    for (const id of wanted) {
      // Changes before this moment are unknown.
      if (!this.#watched.has(id))
        this.#watched.set(id, { firstAt: now, lastAt: now, triedAt: now, isSaving: false, cancel: null });
      this.#wait(id);
    }
    if (rules === null) this.#unlisten?.();
    this.#unlisten =
      rules === null ? null : (this.#unlisten ?? this.#options.changes.listen((id) => this.#changed(id)));
  }

  #changed(id: string): void {
    const each = this.#watched.get(id);
    if (each === undefined) return;
    each.lastAt = this.#options.clock.now();
    each.firstAt ??= each.lastAt;
    // The new rules may make the save due sooner.
    each.cancel?.();
    each.cancel = null;
    this.#wait(id);
  }

  /** Returns the time of the next save; infinity if the workspace waits for a change. */
  #dueAt(id: string, { firstAt, lastAt, triedAt }: Watched): number {
    const { quietMs, mostMs, idleMs } = this.#rules!;
    if (!this.#options.changes.tells(id)) return this.#within(triedAt, mostMs);
    const idle = idleMs === null ? Infinity : this.#within(triedAt, idleMs);
    if (firstAt === null) return idle;
    return Math.min(idle, this.#within(lastAt, quietMs), this.#within(firstAt, mostMs));
  }

  /** Returns the due time, or now if the clock was set back after `start`. */
  #within(start: number, ms: number): number {
    const isToCome = start !== Infinity && start > this.#options.clock.now();
    return isToCome ? 0 : start + ms;
  }

  #wait(id: string): void {
    const each = this.#watched.get(id)!;
    if (each.isSaving || this.#stopped.signal.aborted || this.#dueAt(id, each) === Infinity) return;
    each.cancel = wakeAt(
      this.#options.clock,
      () => this.#dueAt(id, each),
      () => {
        each.cancel = null;
        this.#waiting.add(id);
        this.#saveNext();
      },
    );
  }

  #saveNext(): void {
    for (const id of this.#waiting) {
      if (this.#under.size >= AT_ONCE || this.#stopped.signal.aborted) return;
      this.#waiting.delete(id);
      const each = this.#watched.get(id);
      if (each === undefined || each.isSaving) continue;
      const done = this.#save(id, each).finally(() => {
        this.#under.delete(done);
        this.#saveNext();
      });
      this.#under.add(done);
    }
  }

  async #save(id: string, each: Watched): Promise<void> {
    const { clock, save } = this.#options;
    each.isSaving = true;
    // This save may lack every change from here on.
    each.firstAt = null;
    each.triedAt = clock.now();
    try {
      await save(id, this.#stopped.signal);
    } catch {
      // The changes are unsaved. The save is tried again after the longest time, or when the folder is quiet after a change.
      each.firstAt = clock.now();
      each.lastAt = Infinity;
    }
    each.isSaving = false;
    if (this.#watched.get(id) === each && each.cancel === null && this.#rules !== null) this.#wait(id);
  }

  /** Stops running saves, and starts no other. */
  async stop(): Promise<void> {
    this.#stopped.abort(new Error("the daemon stops"));
    this.#unlisten?.();
    for (const each of this.#watched.values()) each.cancel?.();
    await Promise.all(this.#under);
  }
}
