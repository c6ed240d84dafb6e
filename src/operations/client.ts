import { CairnError } from "../errors.ts";
import { checkCalls } from "../contract/checked-calls.ts";
import type { BackupRepository } from "../contract/repositories.ts";
import type {
  CallOptions,
  Conversion,
  EngineReason,
  EngineType,
  SealWhenIdleOptions,
  WorkspaceCallOptions,
  WorkspaceRef,
} from "../contract/words.ts";
import type { CleanupResult, PolicyEdit, PolicyResult } from "../contract/looking.ts";
import { type Client, CLIENT_VERBS } from "../contract/index.ts";
import type {
  CreateBackupOptions,
  CreateBackupResult,
  RestoreInPlaceOptions,
  RestoreInPlaceResult,
} from "../contract/snapshots.ts";
import type { ReleaseOptions, ReleaseResult } from "../contract/care.ts";
import type { RunOptions, RunResult } from "../contract/points.ts";
import type { Argument } from "../contract/verb.ts";
import type { ControlId, SavePointId } from "../ids.ts";
import type { ControlPaths } from "../workspace/place/control-layout.ts";
import {
  foundAgain,
  type FoundWorkspace,
  requireSameControl,
  unlessControlIsGone,
  workspaceNamed,
  workspaceRef,
} from "../workspace/place/find-workspace.ts";
import { unlessNotOwn } from "../workspace/place/owners.ts";
import { recoverAcknowledged } from "../workspace/save/look.ts";
import { readControl } from "../workspace/place/control-directory.ts";
import { prepareSave, saveWorkspace } from "../workspace/save/save.ts";
import { unwantedOf } from "../workspace/save/unwanted.ts";
import { withSealed } from "../workspace/points/seal.ts";
import { Removals } from "../workspace/points/held-trees.ts";
import { Workspace, type WorkspaceParts } from "../workspace/workspace.ts";
import { createBackup, type Forwarding, forwarding } from "../backup/create.ts";
import { checkSnapshotTags } from "../backup/snapshots.ts";
import { withoutOwn } from "../backup/own-folder.ts";
import { restoreBackupInPlace } from "../backup/restore/restore-in-place.ts";
import { OpenedRepository } from "./opened-repository.ts";
import { callOf, type OpenRepository } from "../backup/open-repository.ts";
import { planOf, policy, runCleanup, setPolicy } from "./cleanup.ts";
import { IdleSealer } from "./idle-sealer.ts";
import { release } from "../workspace/place/release.ts";
import { run } from "./run.ts";
import { publicLeftOut } from "../workspace/points/left-out.ts";
import { seal } from "./verify.ts";
import { shortIds } from "./public-point.ts";
import { type Hand, WORKSPACE_VERBS } from "./workspace-verbs.ts";

/** A row of whatever verb. */
interface Row {
  readonly seals?: boolean | ((...given: unknown[]) => boolean);
  readonly reads?: boolean;
  run(hand: Hand, ...given: unknown[]): unknown;
}

const IDLE_MS = 2000;

export interface ClientOptions {
  found: FoundWorkspace;
  parts: WorkspaceParts;
  created: boolean;
  engineReasons: readonly EngineReason[];
  conversion?: Conversion | undefined;
}

/** The verbs are those of the contract: rows of a table, but for the few that need more than a workspace. */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging
export interface CairnClient extends Client {}

/** One open control directory with one of its workspaces in hand. Every call opens what it needs and closes it again. */
export class CairnClient {
  readonly #options: ClientOptions;
  readonly #removals = new Removals();
  #idle: IdleSealer | undefined;
  /** Calls under way. */
  #calls = 0;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  get created(): boolean {
    return this.#options.created;
  }

  get engineReasons(): readonly EngineReason[] {
    return this.#options.engineReasons;
  }

  get conversion(): Conversion | null {
    return this.#options.conversion ?? null;
  }

  get repoRoot(): string {
    const { found } = this.#options;
    return found.controlFile.self_contained ? found.control.root.replace(/\/[^/]+$/, "") : this.workspace.path;
  }

  get repoId(): ControlId {
    return this.#options.found.controlFile.id;
  }

  get engineType(): EngineType {
    return this.workspace.engine;
  }

  get controlDirectory(): string {
    return this.#options.found.control.root;
  }

  get workspace(): WorkspaceRef {
    const { found } = this.#options;
    // Another process may have chosen another engine since; where the control directory is another's, that is not its.
    const controlFile = readControl(found.control);
    return workspaceRef(controlFile?.id === found.controlFile.id ? { ...found, controlFile } : found);
  }

  /** Returns the path of a workspace; of the client's own that at which it was opened, whatever has become of it. */
  workspacePath(name?: string): string {
    const { found } = this.#options;
    const isOwn = name === undefined || name === found.workspace.name;
    return workspaceRef(isOwn ? found : this.#found(name)).path;
  }

  #found(name: string | undefined): FoundWorkspace {
    const { found } = this.#options;
    if (name === undefined || name === found.workspace.name) return foundAgain(found);
    const other = workspaceNamed(this.#control(), name);
    if (other === null)
      throw new CairnError("not_found", `there is no workspace called ${JSON.stringify(name)} here`, {
        hint: "see `cairn workspaces`",
      });
    return other;
  }

  /** Not another's that was made at its path since. */
  #control(): ControlPaths {
    const { found } = this.#options;
    requireSameControl(found);
    return found.control;
  }

  /** Carries a verb out as its row says. */
  async #perform(name: string | undefined, row: Row, given: unknown[]): Promise<unknown> {
    const work = async (workspace: Workspace): Promise<unknown> => {
      const hand = { workspace, parts: this.#options.parts };
      const isSealed = typeof row.seals === "function" ? row.seals(...given) : row.seals === true;
      if (!isSealed) return row.run({ ...hand, unsealed: [] }, ...given);
      return withSealed(workspace, given.at(-1) as CallOptions, async (unsealed) =>
        row.run({ ...hand, unsealed }, ...given),
      );
    };
    try {
      return await this.#with(name, work);
    } catch (error) {
      const isMoved = error instanceof CairnError && error.details?.["missing_pack"] !== undefined;
      if (row.reads !== true || !isMoved) throw error;
      return this.#with(name, work);
    }
  }

  async #with<T>(name: string | undefined, work: (workspace: Workspace) => Promise<T>): Promise<T> {
    using _call = await this.#begin();
    return await this.#inWorkspace(name, work);
  }

  /** A call is under way until this is disposed of. */
  async #begin(): Promise<Disposable> {
    this.#calls++;
    await this.#idle?.begin();
    return {
      [Symbol.dispose]: () => {
        this.#calls--;
        // The one that is there now, which began to count with this call.
        this.#idle?.end();
      },
    };
  }

  async #inWorkspace<T>(name: string | undefined, work: (workspace: Workspace) => Promise<T>): Promise<T> {
    try {
      await using workspace = this.#open(name);
      await recoverAcknowledged(workspace);
      return await work(workspace);
    } catch (error) {
      throw unlessNotOwn(this.#options.found.control, unlessControlIsGone(this.#options.found, error));
    }
  }

  #open(name: string | undefined): Workspace {
    return new Workspace(this.#found(name), this.#options.parts, this.#removals);
  }

  async runCleanup(planId: string, options: CallOptions = {}): Promise<CleanupResult> {
    const { workspace_name: name } = planOf(this.#control(), planId);
    return this.#with(name, async (workspace) => runCleanup(workspace, planId, options));
  }

  async *#stream(name: string | undefined, row: Row, given: unknown[]): AsyncGenerator<unknown> {
    using _call = await this.#begin();
    try {
      await using workspace = this.#open(name);
      await recoverAcknowledged(workspace);
      yield* row.run({ workspace, parts: this.#options.parts, unsealed: [] }, ...given) as AsyncIterable<unknown>;
    } catch (error) {
      throw unlessControlIsGone(this.#options.found, error);
    }
  }

  sealWhenIdle(options: SealWhenIdleOptions = {}): void {
    this.#idle = new IdleSealer({
      idleMs: options.idleMs ?? IDLE_MS,
      calls: this.#calls,
      before: this.#idle?.close() ?? Promise.resolve(),
      onWarning: options.onWarning,
      seal: async (signal) =>
        this.#inWorkspace(undefined, async (workspace) => seal(workspace, { signal, lockTimeoutMs: 0 })),
    });
  }

  async createBackup(
    into: BackupRepository | Promise<BackupRepository>,
    options: CreateBackupOptions = {},
  ): Promise<CreateBackupResult> {
    const { workspaceName: name, save: isSaved, point } = options;
    if (isSaved === true && into instanceof Promise) {
      await this.#with(name, async (workspace) => prepareSave(workspace));
    }
    return accessOf("createBackup", await into).during(options, async (access) => {
      if (isSaved !== true)
        return this.#with(name, async (workspace) =>
          withSealed(workspace, options, async () => createBackup(workspace, access, options)),
        );
      if (point !== undefined) throw new CairnError("usage", "a point and `save` exclude each other");
      // Before anything is saved.
      checkSnapshotTags(options.tags ?? []);
      return this.#saveAndBackUp(access, options);
    });
  }

  async #saveAndBackUp(access: OpenRepository, options: CreateBackupOptions): Promise<CreateBackupResult> {
    const { workspaceName: name, message, reread, crossMounts, allow, dryRun } = options;
    const both = async (to?: Forwarding): Promise<CreateBackupResult> =>
      this.#with(name, async (workspace) => {
        const forward = to?.packs ?? undefined;
        const exclude = withoutOwn(access, workspace.root, options);
        const asked = { message, exclude, ...unwantedOf(options), reread, crossMounts, allow };
        const input = { ...callOf(options), ...asked, skipUnchanged: true, forward };
        const { point, scan, leftOut } = await saveWorkspace(workspace, input);
        const saved = { ...options, point: point.descriptor.save_point_id };
        const forwarded = to && { ...to, isNewPoint: scan !== undefined };
        const call = { ...options, forward: forward && { point: saved.point, to: forward } };
        const result = await withSealed(workspace, call, async () => createBackup(workspace, access, saved, forwarded));
        return { ...result, left_out: leftOut.map(publicLeftOut) };
      });
    return dryRun === true ? both() : forwarding(access, options, both);
  }

  async restoreBackup(
    from: BackupRepository,
    snapshot: string,
    options: RestoreInPlaceOptions = {},
  ): Promise<RestoreInPlaceResult> {
    return accessOf("restoreBackup", from).during(options, async (access) =>
      this.#with(options.workspaceName, async (workspace) =>
        restoreBackupInPlace(workspace, access, { ...options, snapshot }),
      ),
    );
  }

  async run(command: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return run(command, options, {
      save: async (each) => this.save(each),
      root: this.workspacePath(options.workspaceName),
    });
  }

  async release(options: ReleaseOptions = {}): Promise<ReleaseResult> {
    await this.#removals.settled();
    return this.#with(options.workspaceName, async (workspace) => release(workspace, options));
  }

  async policy(_options: CallOptions = {}): Promise<PolicyResult> {
    return policy(this.#control());
  }

  async setPolicy(edit: PolicyEdit, options: CallOptions = {}): Promise<PolicyResult> {
    return setPolicy(this.#control(), edit, options);
  }

  async shortIds(ids: readonly SavePointId[], options: CallOptions = {}): Promise<string[]> {
    return shortIds(this.#control(), ids, options);
  }

  /** Nothing stays open between calls; what goes on by itself ends. */
  async close(): Promise<void> {
    await this.#idle?.close();
    await this.#removals.settled();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  static {
    const methods = CairnClient.prototype as unknown as Record<string, unknown>;
    for (const [name, row] of Object.entries(WORKSPACE_VERBS) as [keyof typeof WORKSPACE_VERBS, Row][]) {
      const { takes, how } = CLIENT_VERBS[name];
      const place = (takes as readonly Argument[]).findIndex((each) => each.name === "workspaceName");
      const nameIn = (given: unknown[]): string | undefined =>
        place >= 0 ? (given[place] as string | undefined) : (given.at(-1) as WorkspaceCallOptions).workspaceName;
      methods[name] =
        how === "stream"
          ? function (this: CairnClient, ...given: unknown[]) {
              return this.#stream(nameIn(given), row, given);
            }
          : async function (this: CairnClient, ...given: unknown[]) {
              return this.#perform(nameIn(given), row, given);
            };
    }
    checkCalls(CairnClient, CLIENT_VERBS);
  }
}

function accessOf(call: string, repository: BackupRepository): OpenRepository {
  if (repository instanceof OpenedRepository) return repository.access;
  throw new CairnError("usage", `${call} wants a repository that this library has opened`);
}
