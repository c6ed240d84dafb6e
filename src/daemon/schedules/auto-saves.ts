import { type Clock, wakeAt } from "./clock.ts";

/** Tells of changes in workspaces, by their ids. */
export interface Changes {
  /** Until what it returns is called; also of changes that it may have missed. */
  listen(listener: (workspaceId: string) => void): () => void;
  /** False for a workspace of which it tells nothing. */
  tells(workspaceId: string): boolean;
}

export interface SaveRules {
  /** Milliseconds without a change after which a folder is saved; only where changes are told. */
  quietMs: number;
  /** Longest time for which changes go unsaved; without change notices a save is tried as often. */
  mostMs: number;
  /** With change notices a save is tried so long after the last one also where nothing changed; null: never. */
  idleMs: number | null;
}

interface Options {
  clock: Clock;
  changes: Changes;
  /** Saves a workspace where it changed. Throws where it could not. */
  save: (id: string, signal: AbortSignal) => Promise<void>;
}

/** Saves by the clock at once; calls of people and agents are not counted. */
const AT_ONCE = 2;

/** A workspace that is saved by the clock. Times are milliseconds since 1970. */
interface Watched {
  /** First and last change that the newest save may lack; null: none is known. */
  firstAt: number | null;
  lastAt: number;
  /** When a save was tried last, or the workspace came. */
  triedAt: number;
  isSaving: boolean;
  cancel: (() => void) | null;
}

/**
 * Saves workspaces by themselves: with change notices when one has been quiet for so long, and at the latest so long after
 * the first change that is not saved; without, every so long. A change while a save goes on counts for the next one.
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

  /** Goes by these rules for these workspaces from now on; null: saves none. */
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
      // Nobody knows what was changed before it was listened for.
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
    // It may be due sooner than it was when it began to wait.
    each.cancel?.();
    each.cancel = null;
    this.#wait(id);
  }

  /** Infinity: not before the next change. */
  #dueAt(id: string, { firstAt, lastAt, triedAt }: Watched): number {
    const { quietMs, mostMs, idleMs } = this.#rules!;
    if (!this.#options.changes.tells(id)) return this.#within(triedAt, mostMs);
    const idle = idleMs === null ? Infinity : this.#within(triedAt, idleMs);
    if (firstAt === null) return idle;
    return Math.min(idle, this.#within(lastAt, quietMs), this.#within(firstAt, mostMs));
  }

  /** Now, where the clock was set back since. */
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
    // From here on a change is one that this save may lack.
    each.firstAt = null;
    each.triedAt = clock.now();
    try {
      await save(id, this.#stopped.signal);
    } catch {
      // It is unsaved still. It is tried again after the longest time, or when it is quiet after a further change.
      each.firstAt = clock.now();
      each.lastAt = Infinity;
    }
    each.isSaving = false;
    if (this.#watched.get(id) === each && each.cancel === null && this.#rules !== null) this.#wait(id);
  }

  /** Stops saves that are under way, and begins none any more. */
  async stop(): Promise<void> {
    this.#stopped.abort(new Error("the daemon stops"));
    this.#unlisten?.();
    for (const each of this.#watched.values()) each.cancel?.();
    await Promise.all(this.#under);
  }
}
