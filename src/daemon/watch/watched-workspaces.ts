import type { ChangesOf } from "../../workspace/store/engine.ts";
import { displayPath } from "../../fs/safe-path.ts";
import { folderOf, type KeptState, type ServedWorkspace } from "../kept-state.ts";
import type { KeptRecords } from "../records/kept-records.ts";
import type { Changes } from "../schedules/auto-saves.ts";
import { Watcher } from "./watcher.ts";

export type { ChangesOf };

/** Watches the workspaces of a daemon, where the kernel tells what changes in them. */
export class WatchedWorkspaces {
  readonly #kept: KeptState;
  readonly #watcher: Watcher | null;

  constructor({ kept, log }: { kept: KeptState; log: (message: string) => void }) {
    this.#kept = kept;
    this.#watcher = Watcher.start(log);
  }

  readonly changesOf: ChangesOf = (root) => this.#watcher?.journalOf(root) ?? null;

  /** Watches one from now on. */
  add(served: ServedWorkspace): void {
    void this.#watcher?.add(folderOf(served), [served.control_directory]).catch(() => undefined);
  }

  remove(served: ServedWorkspace): void {
    this.#watcher?.remove(folderOf(served));
  }

  /** Whoever wants to hear of changes, by the workspaces' ids. */
  readonly changes: Changes = {
    listen: (listener) =>
      this.#watcher?.onChange((root) => {
        const served = this.#kept.at(root);
        if (served !== null) listener(served.id);
      }) ?? (() => undefined),
    tells: (id) => {
      const served = this.#kept.state.workspaces.find((each) => each.id === id);
      return served !== undefined && this.changesOf(folderOf(served)) !== null;
    },
  };

  /** Tells of changes as events. */
  tell(events: KeptRecords["events"]): void {
    this.#watcher?.onChange((root, { count, paths }) => {
      const workspace = this.#kept.at(root);
      if (workspace === null) return;
      const names = paths.map((path) => displayPath(Buffer.from(path, "latin1")).path);
      events.append({ workspace, type: "changed", data: { paths: count, names } });
    });
  }

  async stop(): Promise<void> {
    await this.#watcher?.stop();
  }
}
