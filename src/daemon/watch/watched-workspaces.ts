import type { ChangesOf, SeenIn } from "../../workspace/store/engine.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { folderOf, type KeptState, type ServedWorkspace } from "../state/kept-state.ts";
import type { KeptRecords } from "../records/kept-records.ts";
import type { Changes } from "../schedules/auto-saves.ts";
import type { ChangeSource } from "./change-source.ts";
import { FanotifySource } from "./fanotify-source.ts";
import { InotifySource } from "./inotify-source.ts";
import { type ChangeListener, Watcher } from "./watcher.ts";

export type { ChangesOf };

/** Watches the workspaces of a daemon if the kernel reports their changes. */
export class WatchedWorkspaces {
  readonly #kept: KeptState;
  readonly #log: (message: string) => void;
  /** Watchers that are needed so far; the one with complete reports comes first. */
  readonly #watchers: Watcher[] = [];
  readonly #listeners = new Map<ChangeListener, (() => void)[]>();
  #hasSingle = false;
  #isStopped = false;

  constructor({ kept, log }: { kept: KeptState; log: (message: string) => void }) {
    this.#kept = kept;
    this.#log = log;
    this.#begin(FanotifySource.open());
  }

  readonly changesOf: ChangesOf = (root) => this.#watchers.find(({ isWhole }) => isWhole)?.journalOf(root) ?? null;

  readonly seenIn: SeenIn = (root) =>
    this.#watchers.map((each) => each.journalOf(root)).find((journal) => journal !== null) ?? null;

  add(served: ServedWorkspace): void {
    void this.#add(served).catch(() => undefined);
  }

  #begin(source: ChangeSource | null): void {
    const watcher = Watcher.start(this.#log, source);
    if (watcher === null) return;
    this.#watchers.push(watcher);
    for (const [listener, ends] of this.#listeners) ends.push(watcher.onChange(listener));
  }

  /** Uses inotify, directory by directory, only for folders that cannot be watched as a whole. */
  async #add(served: ServedWorkspace): Promise<void> {
    const folder = folderOf(served);
    for (const watcher of this.#watchers) {
      await watcher.add(folder, [served.control_directory]);
      if (watcher.journalOf(folder) !== null) return;
    }
    if (this.#hasSingle || this.#isStopped) return;
    this.#hasSingle = true;
    this.#begin(InotifySource.open());
    await this.#watchers.at(-1)?.add(folder, [served.control_directory]);
  }

  remove(served: ServedWorkspace): void {
    for (const watcher of this.#watchers) watcher.remove(folderOf(served));
  }

  /** Notices of changes, by the workspaces' ids. */
  readonly changes: Changes = {
    listen: (listener) =>
      this.#onChange((root) => {
        const served = this.#kept.at(root);
        if (served !== null) listener(served.id);
      }),
    tells: (id) => {
      const served = this.#kept.state.workspaces.find((each) => each.id === id);
      return served !== undefined && this.#watchers.some((each) => each.journalOf(folderOf(served)) !== null);
    },
  };

  /** Appends changes as events. */
  tell(events: KeptRecords["events"]): void {
    this.#onChange((root, { count, paths }) => {
      const workspace = this.#kept.at(root);
      if (workspace === null || count === 0) return;
      const names = paths.map((path) => displayPath(Buffer.from(path, "latin1")).path);
      events.append({ workspace, type: "changed", data: { paths: count, names } });
    });
  }

  #onChange(listener: ChangeListener): () => void {
    const ends = this.#watchers.map((each) => each.onChange(listener));
    this.#listeners.set(listener, ends);
    return () => {
      this.#listeners.delete(listener);
      for (const end of ends) end();
    };
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#watchers.map(async (each) => each.stop()));
  }
}
