import { CairnError } from "../errors.ts";
import type { ControlId, SavePointId } from "../ids.ts";
import type { ControlPaths } from "../workspace/control-layout.ts";
import type { FoundWorkspace } from "../workspace/find-workspace.ts";
import { foundAgain, requireSameControl, unlessControlIsGone } from "../workspace/found-again.ts";
import { unlessNotOwn } from "../workspace/not-the-owner.ts";
import { recoverAcknowledged } from "../workspace/look.ts";
import { workspaceNamed } from "../workspace/find-workspace.ts";
import { readControl } from "../workspace/control-directory.ts";
import { prepareSave, saveWorkspace } from "../workspace/save.ts";
import { unwantedOf } from "../workspace/unwanted-kinds.ts";
import { type SealProblem, withSealed } from "../workspace/seal.ts";
import { Removals } from "../workspace/removals.ts";
import { type EngineFactory, Workspace } from "../workspace/workspace.ts";
import type {
  BackupRepository,
  CallOptions,
  CreateBackupOptions,
  CreateBackupResult,
  CleanupOptions,
  CleanupPlan,
  CleanupResult,
  DiffOptions,
  DiffResult,
  DoctorOptions,
  Conversion,
  DoctorResult,
  EngineOptions,
  EngineReason,
  EngineResult,
  EngineType,
  ForkOptions,
  ForkResult,
  HistoryOptions,
  HistoryResult,
  ListedEntry,
  PathInput,
  PolicyEdit,
  PolicyResult,
  ReleaseOptions,
  ReleaseResult,
  RestoreInPlaceOptions,
  RestoreInPlaceResult,
  RestoreOptions,
  RestorePlan,
  RestoreResult,
  RunOptions,
  RunResult,
  SaveOptions,
  SavePoint,
  SaveResult,
  SealWhenIdleOptions,
  ShowResult,
  StatusResult,
  StoreInfo,
  UndoOptions,
  VerifyOptions,
  VerifyResult,
  ViewLease,
  WorkspaceCallOptions,
  WorkspaceRef,
} from "./contract.ts";
import { checkCalls } from "./checked-calls.ts";
import { CLIENT_CALLS } from "./library-calls.ts";
import { createBackup } from "./backup/create.ts";
import { type Forwarding, withForwarding } from "./backup/forwarding.ts";
import { checkSnapshotTags } from "./backup/public-snapshot.ts";
import { withoutOwn } from "./backup/own-folder.ts";
import { restoreBackupInPlace } from "./backup/restore-in-place.ts";
import { OpenedRepository } from "./backup/opened-repository.ts";
import { callOf, type RepositoryAccess } from "./backup/repository-access.ts";
import { planOf, previewCleanup, runCleanup } from "./cleanup.ts";
import { diff } from "./diff.ts";
import { doctor } from "./doctor.ts";
import { currentReasons, setEngine } from "./engine.ts";
import { fork } from "./fork.ts";
import { history } from "./history.ts";
import { IdleSealer } from "./idle-sealer.ts";
import { pin } from "./pin.ts";
import { policy, setPolicy } from "./policy.ts";
import { release } from "./release.ts";
import { run } from "./run.ts";
import { publicPoint } from "./public-point.ts";
import { restore, restoreLatest, undo } from "./restore.ts";
import { restoreTo } from "./restore-to.ts";
import { planRestore, planUndo } from "./restore-plan.ts";
import { publicLeftOut, save } from "./save.ts";
import { read, show, walk } from "./show.ts";
import { seal } from "./seal.ts";
import { status } from "./status.ts";
import { shortIds } from "./short-ids.ts";
import { store } from "./store.ts";
import { tag, type TagEdit } from "./tag.ts";
import { unpin } from "./unpin.ts";
import { verify, verifyAll } from "./verify.ts";
import { closeView, listViews, view } from "./view.ts";
import { workspaceRef } from "./workspace-ref.ts";

const IDLE_MS = 2000;

export interface ClientOptions {
  found: FoundWorkspace;
  factory: EngineFactory;
  created: boolean;
  engineReasons: readonly EngineReason[];
  conversion?: Conversion | undefined;
}

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

  /** Of its own that where it was opened, whatever has become of it. */
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

  /** For calls that only read: a pack that another process moved away meanwhile is looked up once more. */
  async #reading<T>(name: string | undefined, work: (workspace: Workspace) => Promise<T>): Promise<T> {
    try {
      return await this.#with(name, work);
    } catch (error) {
      if (!(error instanceof CairnError) || error.details?.["missing_pack"] === undefined) throw error;
      return this.#with(name, work);
    }
  }

  /** For calls that need contents or digests: points that are only held are sealed first. */
  async #sealed<T>(
    name: string | undefined,
    options: WorkspaceCallOptions | CallOptions,
    work: (workspace: Workspace, problems: readonly SealProblem[]) => Promise<T>,
  ): Promise<T> {
    return this.#with(name, async (workspace) =>
      withSealed(workspace, options, async (problems) => work(workspace, problems)),
    );
  }

  /** Both: what is only held is sealed first, and what was moved away is looked up once more. */
  async #readingSealed<T>(
    name: string | undefined,
    options: WorkspaceCallOptions | CallOptions,
    work: (workspace: Workspace, problems: readonly SealProblem[]) => Promise<T>,
  ): Promise<T> {
    return this.#reading(name, async (workspace) =>
      withSealed(workspace, options, async (problems) => work(workspace, problems)),
    );
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
    return new Workspace(this.#found(name), this.#options.factory, this.#removals);
  }

  async save(options: SaveOptions = {}): Promise<SaveResult> {
    return this.#with(options.workspaceName, async (workspace) => save(workspace, options));
  }

  async restore(options: RestoreOptions): Promise<RestoreResult> {
    const { to } = options;
    if (to !== undefined)
      return this.#sealed(options.workspaceName, options, async (workspace) =>
        restoreTo(workspace, { ...options, to }),
      );
    return this.#with(options.workspaceName, async (workspace) => restore(workspace, options));
  }

  async previewCleanup(options: CleanupOptions = {}): Promise<CleanupPlan> {
    return this.#sealed(options.workspaceName, options, async (workspace) => previewCleanup(workspace, options));
  }

  async runCleanup(planId: string, options: CallOptions = {}): Promise<CleanupResult> {
    const { workspace_name: name } = planOf(this.#control(), planId);
    return this.#with(name, async (workspace) => runCleanup(workspace, planId, options));
  }

  async view(target: string, options: WorkspaceCallOptions = {}): Promise<ViewLease> {
    return this.#sealed(options.workspaceName, options, async (workspace) => view(workspace, target, options));
  }

  async listViews(_options: CallOptions = {}): Promise<ViewLease[]> {
    return this.#with(undefined, async (workspace) => listViews(workspace));
  }

  async closeView(viewId: string, _options: CallOptions = {}): Promise<ViewLease> {
    return this.#with(undefined, async (workspace) => closeView(workspace, viewId));
  }

  async fork(target: string, path: string, options: ForkOptions = {}): Promise<ForkResult> {
    return this.#sealed(options.workspaceName, options, async (workspace) =>
      fork(workspace, { point: target, path }, { ...options, factory: this.#options.factory }),
    );
  }

  async undo(options: UndoOptions = {}): Promise<RestoreResult> {
    return this.#with(options.workspaceName, async (workspace) => undo(workspace, options));
  }

  async restoreLatest(workspaceName?: string, options: CallOptions = {}): Promise<RestoreResult> {
    return this.#with(workspaceName, async (workspace) => restoreLatest(workspace, options));
  }

  async planRestore(options: RestoreOptions): Promise<RestorePlan> {
    return this.#readingSealed(options.workspaceName, options, async (workspace) => planRestore(workspace, options));
  }

  async planUndo(options: WorkspaceCallOptions = {}): Promise<RestorePlan> {
    return this.#readingSealed(options.workspaceName, options, async (workspace) => planUndo(workspace, options));
  }

  async status(options: WorkspaceCallOptions = {}): Promise<StatusResult> {
    return this.#readingSealed(options.workspaceName, options, async (workspace, unsealed) =>
      status(workspace, { ...options, unsealed }, await currentReasons(workspace.found, options)),
    );
  }

  async diff(a: string, b: string | null = null, options: DiffOptions = {}): Promise<DiffResult> {
    return this.#readingSealed(options.workspaceName, options, async (workspace) => diff(workspace, a, b, options));
  }

  async show(target: string, path: PathInput = "", options: WorkspaceCallOptions = {}): Promise<ShowResult> {
    return this.#readingSealed(options.workspaceName, options, async (workspace) =>
      show(workspace, target, path, options),
    );
  }

  async *read(target: string | null, path: PathInput, options: WorkspaceCallOptions = {}): AsyncGenerator<Uint8Array> {
    yield* this.#streaming(options, (workspace) => read(workspace, target, path, options));
  }

  async *walk(target: string, path: PathInput = "", options: WorkspaceCallOptions = {}): AsyncGenerator<ListedEntry> {
    yield* this.#streaming(options, (workspace) => walk(workspace, target, path, options));
  }

  async *#streaming<T>(
    { workspaceName: name }: WorkspaceCallOptions,
    work: (workspace: Workspace) => AsyncIterable<T>,
  ): AsyncGenerator<T> {
    using _call = await this.#begin();
    try {
      await using workspace = this.#open(name);
      await recoverAcknowledged(workspace);
      yield* work(workspace);
    } catch (error) {
      throw unlessControlIsGone(this.#options.found, error);
    }
  }

  async history(workspaceName?: string, limit = 0, options: HistoryOptions = {}): Promise<HistoryResult> {
    const work = async (workspace: Workspace): Promise<HistoryResult> => history(workspace, limit, options);
    return options.path === undefined
      ? this.#reading(workspaceName, work)
      : this.#readingSealed(workspaceName, options, work);
  }

  async latestSavePoint(workspaceName?: string, _options: CallOptions = {}): Promise<SavePoint | null> {
    return this.#with(workspaceName, async ({ points }) => {
      const latest = points.latest();
      return latest === null ? null : publicPoint(latest);
    });
  }

  async hasSavePoints(workspaceName?: string, options: CallOptions = {}): Promise<boolean> {
    return (await this.latestSavePoint(workspaceName, options)) !== null;
  }

  async resolve(target: string, options: WorkspaceCallOptions = {}): Promise<SavePoint> {
    return this.#with(options.workspaceName, async (workspace) => publicPoint(workspace.resolve(target)));
  }

  async pin(target: string, options: WorkspaceCallOptions = {}): Promise<SavePoint> {
    return this.#with(options.workspaceName, async (workspace) => pin(workspace, target, options));
  }

  async unpin(target: string, options: WorkspaceCallOptions = {}): Promise<SavePoint> {
    return this.#with(options.workspaceName, async (workspace) => unpin(workspace, target, options));
  }

  async tag(target: string, edit: TagEdit, options: WorkspaceCallOptions = {}): Promise<SavePoint> {
    return this.#with(options.workspaceName, async (workspace) => tag(workspace, target, { edit, options }));
  }

  async verify(target: string, options: VerifyOptions & WorkspaceCallOptions = {}): Promise<VerifyResult> {
    return this.#sealed(options.workspaceName, options, async (workspace, unsealed) =>
      verify(workspace, target, { ...options, unsealed: new Map([[workspace.found.workspace.name, unsealed]]) }),
    );
  }

  async verifyAll(options: VerifyOptions = {}): Promise<VerifyResult> {
    return this.#with(undefined, async (workspace) => verifyAll(workspace, this.#options.factory, options));
  }

  async doctor(options: DoctorOptions = {}): Promise<DoctorResult> {
    return this.#with(options.workspaceName, async (workspace) => doctor(workspace, options));
  }

  async store(options: CallOptions = {}): Promise<StoreInfo> {
    return this.#with(undefined, async (workspace) => store(workspace, options));
  }

  async setEngine(type: EngineType, options: EngineOptions = {}): Promise<EngineResult> {
    return this.#with(undefined, async (workspace) => setEngine(workspace, type, options));
  }

  /** Seals what is only held; how many points that were. */
  async seal(options: WorkspaceCallOptions = {}): Promise<{ sealed: number }> {
    return this.#with(options.workspaceName, async (workspace) => seal(workspace, options));
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
        return this.#sealed(name, options, async (workspace) => createBackup(workspace, access, options));
      if (point !== undefined) throw new CairnError("usage", "a point and `save` exclude each other");
      // Before anything is saved.
      checkSnapshotTags(options.tags ?? []);
      return this.#saveAndBackUp(access, options);
    });
  }

  async #saveAndBackUp(access: RepositoryAccess, options: CreateBackupOptions): Promise<CreateBackupResult> {
    const { workspaceName: name, message, reread, crossMounts, allow, dryRun } = options;
    const both = async (forwarding?: Forwarding): Promise<CreateBackupResult> =>
      this.#with(name, async (workspace) => {
        const forward = forwarding?.packs ?? undefined;
        const exclude = withoutOwn(access, workspace.root, options);
        const asked = { message, exclude, ...unwantedOf(options), reread, crossMounts, allow };
        const input = { ...callOf(options), ...asked, skipUnchanged: true, forward };
        const { point, scan, leftOut } = await saveWorkspace(workspace, input);
        const saved = { ...options, point: point.descriptor.save_point_id };
        const forwarded = forwarding === undefined ? undefined : { ...forwarding, isNewPoint: scan !== undefined };
        const call = { ...options, forward: forward && { point: saved.point, to: forward } };
        const result = await withSealed(workspace, call, async () => createBackup(workspace, access, saved, forwarded));
        return { ...result, left_out: leftOut.map(publicLeftOut) };
      });
    return dryRun === true ? both() : withForwarding(access, options, both);
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
}

function accessOf(call: string, repository: BackupRepository): RepositoryAccess {
  if (repository instanceof OpenedRepository) return repository.access;
  throw new CairnError("usage", `${call} wants a repository that this library has opened`);
}

checkCalls(CairnClient, CLIENT_CALLS);
