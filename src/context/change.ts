import { accessSync, constants, existsSync, mkdirSync, readdirSync, renameSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { type ContextChange, workOf } from "../formats/records/unfinished.ts";
import { fsyncDirectory } from "../fs/durable.ts";
import { flushFileSystem } from "../fs/linux/flush.ts";
import { type Told, Unfinished } from "../fs/unfinished.ts";
import { removeAll } from "../fs/remove-all.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { factsAt } from "./tree.ts";

/**
 * One change of a store's files and index. Steps: files are staged below `change/new`; the record is the commit;
 * replaced places move to `change/old`, staged ones to their place; the index is renewed; `change` goes. A kill before
 * the commit leaves the old state, a kill after it a plan that the next opening carries out: steps may be repeated.
 */
export const CONTEXT_CHANGE: Told = {
  kind: "context-change",
  where: "`.context/change/change.json` of a context store",
  steps: [
    "files are staged below `change/new`, rows for the index beside them",
    "● the record: the places that are replaced",
    "replaced places move to `change/old`, staged ones to their place",
    "the index takes the rows; `change` becomes `change.done` and is removed",
  ],
  before: "removes what was staged",
  after: "carries the change out; a command that only reads tries that too",
};

export class ChangePlace {
  readonly #folder: string;
  readonly #root: string;
  readonly #record: Unfinished<ContextChange>;

  constructor(folder: string, control: string) {
    this.#folder = folder;
    this.#root = join(control, "change");
    const otherwise = `look into ${printablePath(this.#root)}: it has the new and the replaced files of the change`;
    this.#record = new Unfinished(join(this.#root, "change.json"), workOf("context-change", otherwise), {
      earlier: join(this.#root, "plan.json"),
    });
  }

  /** Path at which a file or directory is staged. */
  staged(path: string): string {
    return join(this.#root, "new", path);
  }

  get records(): string {
    return join(this.#root, "records.jsonl");
  }

  get vectors(): string {
    return join(this.#root, "dense.f32");
  }

  /** A finished change, until it is removed. */
  get #done(): string {
    return `${this.#root}.done`;
  }

  /** True if a committed change waits to be carried out. */
  get isDecided(): boolean {
    return this.#record.isLeft;
  }

  /** Makes an empty place for a new change. */
  begin(): void {
    this.discard();
    mkdirSync(join(this.#root, "new"), { recursive: true });
    mkdirSync(join(this.#root, "old"));
  }

  /** Drops the change; the store stays as it is. */
  discard(): void {
    if (this.isDecided) throw new CairnError("internal", "a change that was committed cannot be discarded");
    removeAll(this.#root);
  }

  /** Commits the change: from here on it is carried out, by this call or by the next process that opens the store. */
  async commit(plan: ContextChange, renew: (plan: ContextChange) => void): Promise<void> {
    for (const path of plan.replaced) this.#requireMovable(path);
    this.#requirePlaceable("", new Set(plan.replaced));
    await flushFileSystem(this.#root);
    failpoint("context-change.staged");
    this.#record.begin(plan);
    failpoint("context-change.decided");
    await this.#carryOut(plan, renew);
  }

  /** Carries out a committed but unfinished change, and drops an uncommitted one. */
  async recover(renew: (plan: ContextChange) => void): Promise<void> {
    removeAll(this.#done);
    const plan = this.#record.read();
    if (plan === null) removeAll(this.#root);
    else await this.#carryOut(plan, renew);
  }

  async #carryOut(plan: ContextChange, renew: (plan: ContextChange) => void): Promise<void> {
    for (const [index, path] of plan.replaced.entries()) this.#putAway(path, join(this.#root, "old", String(index)));
    // A place whose old entry is not in `old` counts as not put away yet, so no new entry may be durable before that.
    if (plan.replaced.length > 0) fsyncDirectory(join(this.#root, "old"));
    failpoint("context-change.put-away");
    this.#place("");
    await flushFileSystem(this.#folder);
    failpoint("context-change.placed");
    renew(plan);
    failpoint("context-change.renewed");
    // The rename ends the record in one step: half a removal leaves none.
    renameSync(this.#root, this.#done);
    fsyncDirectory(dirname(this.#root));
    failpoint("context-change.closed");
    removeAll(this.#done);
  }

  /** Moves each place only once: afterwards the new entry is there. */
  #putAway(path: string, old: string): void {
    if (factsAt(old) !== undefined) return;
    // An empty directory marks a place that had no entry.
    const place = join(this.#folder, path);
    if (factsAt(place) === undefined) mkdirSync(old);
    else renameSync(place, old);
  }

  /** Moves staged entries to their place: a directory as a whole if its place is free, else its entries one by one; a file over a file. */
  #place(path: string): void {
    const from = join(this.#root, "new", path);
    for (const { name, isDirectory } of entriesOf(from)) {
      const at = join(path, name);
      const target = join(this.#folder, at);
      if (isDirectory && factsAt(target)?.isDirectory() === true) {
        // The emptied folder goes with the change: if a cut kept its removal and not the moves, the files would be lost.
        this.#place(at);
        continue;
      }
      renameSync(join(from, name), target);
      failpoint("context-change.moved");
    }
  }

  /** Checks before the commit that no move can fail: same file system, and the right to write. */
  #requirePlaceable(path: string, replaced: ReadonlySet<string>): void {
    for (const { name, isDirectory } of entriesOf(join(this.#root, "new", path))) {
      const at = join(path, name);
      const there = replaced.has(at) ? undefined : factsAt(join(this.#folder, at));
      if (isDirectory && there?.isDirectory() === true) {
        this.#requirePlaceable(at, replaced);
        continue;
      }
      if (there !== undefined && (isDirectory || there.isDirectory()))
        throw new CairnError(
          "conflict",
          `${printablePath(join(this.#folder, at))} is a file where a directory is needed, or a directory where a file is needed`,
          {
            details: { path: at },
          },
        );
      this.#requireMovable(at);
    }
  }

  /** Moving a directory also needs write access to it, because its `..` changes. */
  #requireMovable(path: string): void {
    const own = statSync(this.#root).dev;
    for (const place of [dirname(join(this.#folder, path)), join(this.#folder, path)]) {
      const facts = factsAt(place);
      if (facts === undefined) continue;
      if (Number(facts.dev) !== own)
        throw new CairnError("unsupported", `${printablePath(place)} lies on another file system than the store`, {
          hint: "keep a context store on one file system",
        });
      if (!facts.isDirectory()) continue;
      try {
        accessSync(place, constants.W_OK);
      } catch (error) {
        throw toCairnError(error, `write in ${printablePath(place)}`);
      }
    }
  }
}

function entriesOf(folder: string): { name: string; isDirectory: boolean }[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).map((entry) => ({
    name: entry.name,
    isDirectory: entry.isDirectory(),
  }));
}
