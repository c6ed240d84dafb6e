import { CairnError } from "../errors.ts";
import type { ControlId } from "../ids.ts";
import type { FoundWorkspace } from "../workspace/find-workspace.ts";
import { workspaceNamed } from "../workspace/find-workspace.ts";
import { type EngineFactory, Workspace } from "../workspace/workspace.ts";
import type { CallOptions, EngineReason, EngineType, HistoryOptions, HistoryResult, RestoreOptions, RestoreResult, SaveOptions, SavePoint, SaveResult, WorkspaceCallOptions, WorkspaceRef } from "./contract.ts";
import { history } from "./history.ts";
import { publicPoint } from "./public-point.ts";
import { restore, restoreLatest, undo } from "./restore.ts";
import { save } from "./save.ts";
import { workspaceRef } from "./workspace-ref.ts";

export interface ClientOptions {
  found: FoundWorkspace;
  factory: EngineFactory;
  created: boolean;
  engineReasons: readonly EngineReason[];
}

/** One open control directory with one of its workspaces in hand. Every call opens what it needs and closes it again. */
export class CairnClient {
  readonly #options: ClientOptions;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  get created(): boolean {
    return this.#options.created;
  }

  get engineReasons(): readonly EngineReason[] {
    return this.#options.engineReasons;
  }

  get repoRoot(): string {
    const { found } = this.#options;
    return found.controlFile.self_contained ? found.control.root.replace(/\/[^/]+$/, "") : this.workspace.path;
  }

  get repoId(): ControlId {
    return this.#options.found.controlFile.id;
  }

  get engineType(): EngineType {
    return this.#options.found.controlFile.engine as EngineType;
  }

  get controlDirectory(): string {
    return this.#options.found.control.root;
  }

  get workspace(): WorkspaceRef {
    return workspaceRef(this.#options.found);
  }

  workspacePath(name?: string): string {
    return workspaceRef(this.#found(name)).path;
  }

  #found(name: string | undefined): FoundWorkspace {
    const { found } = this.#options;
    if (name === undefined || name === found.workspace.name) return found;
    const other = workspaceNamed(found.control, name);
    if (other === null) throw new CairnError("not_found", `there is no workspace called ${JSON.stringify(name)} here`, { hint: "see cairn workspaces" });
    return other;
  }

  async #with<T>(name: string | undefined, work: (workspace: Workspace) => Promise<T>): Promise<T> {
    const workspace = new Workspace(this.#found(name), this.#options.factory);
    try {
      return await work(workspace);
    } finally {
      await workspace.close();
    }
  }

  async save(options: SaveOptions = {}): Promise<SaveResult> {
    return this.#with(options.workspaceName, async (workspace) => save(workspace, options));
  }

  async restore(options: RestoreOptions): Promise<RestoreResult> {
    return this.#with(options.workspaceName, async (workspace) => restore(workspace, options));
  }

  async undo(options: WorkspaceCallOptions = {}): Promise<RestoreResult> {
    return this.#with(options.workspaceName, async (workspace) => undo(workspace, options));
  }

  async restoreLatest(workspaceName?: string, options: CallOptions = {}): Promise<RestoreResult> {
    return this.#with(workspaceName, async (workspace) => restoreLatest(workspace, options));
  }

  async history(workspaceName?: string, limit = 0, options: HistoryOptions = {}): Promise<HistoryResult> {
    return this.#with(workspaceName, async (workspace) => history(workspace, limit, options));
  }

  async latestSavePoint(workspaceName?: string): Promise<SavePoint | null> {
    return this.#with(workspaceName, async ({ points }) => {
      const latest = points.latest();
      return latest === null ? null : publicPoint(latest);
    });
  }

  async hasSavePoints(workspaceName?: string): Promise<boolean> {
    return (await this.latestSavePoint(workspaceName)) !== null;
  }

  async resolve(target: string, options: WorkspaceCallOptions = {}): Promise<SavePoint> {
    return this.#with(options.workspaceName, async (workspace) => publicPoint(workspace.resolve(target)));
  }

  async close(): Promise<void> {
    // Nothing stays open between calls.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

