import { lstatSync } from "node:fs";
import { advice, CairnError, call, type Hint, line, toCairnError, word } from "../errors.ts";
import type {
  CancelResult,
  InitOptions,
  CairnLibrary,
  CallOptions,
  Client,
  Conversion,
  EngineOptions,
  ReleaseOptions,
  PastEvents,
  PastEventsOptions,
  ReleaseResult,
  RunningCalls,
  SaveOptions,
  SaveResult,
  WorkspaceInfo,
} from "../contract/index.ts";
import { failpoint } from "../failpoint.ts";
import { isAtOrBelow, printablePath } from "../fs/paths/safe-path.ts";
import { findWorkspace, realPathOf } from "../workspace/place/find-workspace.ts";
import { type DaemonConfig, readConfig } from "./config.ts";
import { bootstrap, type Instance, requireFirst, takeInstance } from "./bootstrap.ts";
import { Moves, requireMovable, requireSubvolume } from "./moves.ts";
import { migrateOld, oldStateDirectory } from "./ws-ckpt/migrate.ts";
import {
  type Caller,
  isBeside,
  isWholeOperator,
  requireOwner,
  requireRootsOwn,
  type Right,
  rightOn,
} from "./state/peer.ts";
import type { DaemonPlaces } from "./places.ts";
import { dropReleased, registeredWorkspaces } from "./reconcile.ts";
import { FreezeWindows } from "./freeze.ts";
import {
  type DaemonState,
  entryOf,
  type FolderMove,
  folderOf,
  KeptState,
  type ServedWorkspace,
} from "./state/kept-state.ts";
import { type EventPlace, KeptRecords, type Noted, type VerbOfWorkspace } from "./records/kept-records.ts";
import { type ScheduleHands, Schedules } from "./schedules/schedules.ts";
import { type Health, linkReplaced, lookAfter, PointCounts, pointsOf, statusOf, WELL } from "./status.ts";
import { MOST_FORKS } from "./state/tokens.ts";
import { Turns } from "./turns.ts";
import { WatchedWorkspaces } from "./watch/watched-workspaces.ts";

/** Milliseconds that a cleanup waits for a busy workspace. */
const PATIENCE_MS = 60_000;

/** Errors of a workspace that has nothing left to release. */
const GONE: ReadonlySet<string> = new Set(["not_found", "not_a_workspace"]);

/** Answer for a folder that is a plain folder already, so that nothing is converted. */
const NOT_CONVERTED: Conversion = { original: "", entries: 0, bytes: 0, duration_ms: 0 };

export interface DaemonOptions extends Pick<ScheduleHands, "log"> {
  places: DaemonPlaces;
  /** True: a state that cannot be read is replaced by a new state. */
  rebuildState?: boolean;
  openLibrary: (
    parts: Pick<WatchedWorkspaces, "changesOf" | "seenIn"> & Pick<Schedules, "tasksOf">,
  ) => Promise<CairnLibrary>;
}

/**
 * Serves many workspaces of one host: the list of workspaces, rights on them, and scheduled saves, backups and cleanups.
 */
export class Daemon {
  readonly #options: DaemonOptions;
  readonly #kept: KeptState;
  readonly #moves: Moves;
  readonly #counts: PointCounts;
  readonly #turns = new Turns();
  #schedules!: Schedules;
  readonly freezes = new FreezeWindows();
  readonly #readAgain = new Set<(config: DaemonConfig) => void>();
  /** Open clients by the id of their workspace. */
  readonly #clients = new Map<string, Promise<Client>>();
  readonly #health = new Map<string, Health>();
  readonly #startedAt = new Date().toISOString();
  #records!: KeptRecords;
  #library!: CairnLibrary;
  #watched!: WatchedWorkspaces;
  #config: DaemonConfig;
  #instance!: Instance;
  #decision!: ReturnType<typeof bootstrap>;
  #reconciling: Promise<void> = Promise.resolve();
  #isStopping = false;
  readonly #stopping = new AbortController();
  /** Statuses that `#askAhead()` asked for and whose answers no caller waits for. */
  #asked: Promise<unknown> = Promise.resolve();

  private constructor(options: DaemonOptions, config: DaemonConfig) {
    // A path that is kept for each workspace keeps the whole pool that it was cut from, 64 KiB by default.
    Buffer.poolSize = 4096;
    this.#options = options;
    this.#config = config;
    this.#kept = new KeptState(options.places);
    this.#moves = new Moves(this.#kept);
    this.#counts = new PointCounts(this.#kept, options.log);
  }

  /**
   * Takes the state directory, decides which backend is served, and is ready for calls. Throws `usage` for a
   * configuration that does not parse, `busy` if another daemon runs, `newer_version`, and `unsupported` that names
   * everything that cannot be served.
   */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const { places } = options;
    const config = readConfig(places);
    const daemon = new Daemon(options, config);
    requireFirst(daemon.#kept, { config, places, rebuildState: options.rebuildState });
    daemon.#instance = await takeInstance(places.state);
    try {
      await daemon.#begin();
      return daemon;
    } catch (error) {
      // Undefined if the start failed early.
      (daemon.#records as KeptRecords | undefined)?.close();
      await (daemon.#watched as WatchedWorkspaces | undefined)?.stop();
      daemon.#instance[Symbol.dispose]();
      throw error;
    }
  }

  async #begin(): Promise<void> {
    const { places, log, rebuildState } = this.#options;
    const { killed } = this.#instance;
    if (killed !== null) log(`unclean shutdown: the previous daemon was killed, ${killed}`);
    // The daemon of all users has its own records, not root's.
    this.#kept.marks.begin();
    this.#decision = bootstrap(this.#kept, { config: this.#config, places, rebuildState, log });
    this.#watched = new WatchedWorkspaces({ kept: this.#kept, log });
    this.#library = await this.#options.openLibrary({
      changesOf: this.#watched.changesOf,
      seenIn: this.#watched.seenIn,
      tasksOf: (id) => this.#schedules.tasksOf(id),
    });
    this.#records = new KeptRecords(places.state, { killed: killed !== null, log });
    this.#watched.tell(this.events);
    for (const served of this.#kept.state.workspaces) this.#watched.add(served);
    for (const move of this.#moves.left) await this.#finish(move);
    await this.#finishReleases();
    await this.#migrate();
    this.#schedules = new Schedules({
      kept: this.#kept,
      changes: this.#watched.changes,
      lastPointAt: (served) => pointsOf(served)?.last_point_at ?? null,
      openRepository: async (options) => this.#library.openRepository(options),
      client: async (served) => this.#client(served),
      save: async (served, signal, how) => this.#saveBySelf(served, signal, how),
      cleanUp: async (signal) => this.#cleanUp(signal),
      running: this.running,
      log,
    });
    this.#schedules.begin(this.#config);
  }

  /** Takes over the workspaces of an older daemon (ws-ckpt) before anything is served. */
  async #migrate(): Promise<void> {
    const { places, log } = this.#options;
    const state = oldStateDirectory(this.#config, places);
    if (state === null) return;
    const migrated = (): NonNullable<DaemonState["migrated"]> => this.#kept.state.migrated ?? [];
    await migrateOld(
      { state, dataRoot: this.#config.migrate.data_root },
      {
        log,
        // The folder stays at its place: its snapshots are on the same file system.
        register: async (folder, link) =>
          (await this.#serve(folder, { engineType: "btrfs-snapshot" }, { link })).client,
        taken: (id) => migrated().find((each) => each.id === id)?.snapshots ?? [],
        note: (id, snapshots) =>
          this.#kept.change({
            migrated: [...migrated().filter((each) => each.id !== id), { id, snapshots: [...snapshots] }],
          }),
      },
    );
  }

  /**
   * Finishes or takes back a move that was killed. A move that cannot be ended now is tried again at the next start;
   * the daemon starts without it.
   */
  async #finish(move: FolderMove): Promise<void> {
    const { path, target, aside, back } = move;
    const shown = `the move of ${printablePath(path)} (${printablePath(target)}, ${printablePath(aside)})`;
    try {
      const { state, kept } = await this.#moves.finish(move);
      const served = this.#kept.at(Buffer.from(target)) ?? this.#kept.at(Buffer.from(path));
      if (state === "moved" && back && served !== null) await this.#leaveImage(served, path);
      else if (state === "moved" && !back) await this.#serve(target, {}, { link: path });
      this.#moves.end(move);
      const said =
        state === "unknown" ? "it is not known how far it got, so everything stays as it is" : `the folder is ${state}`;
      if (kept !== null)
        this.#options.log(`files that were written into the new copy meanwhile are in ${printablePath(kept)}`);
      this.#options.log(`${shown} was interrupted: ${said}`);
    } catch (error) {
      this.#options.log(`${shown} was interrupted and cannot be finished yet: ${toCairnError(error).message}`);
    }
  }

  /** Tokens of programs that act for a user. */
  get tokens(): KeptState["tokens"] {
    return this.#kept.tokens;
  }

  get events(): KeptRecords["events"] {
    return this.#records.events;
  }

  get jobs(): KeptRecords["jobs"] {
    return this.#records.jobs;
  }

  get running(): KeptRecords["running"] {
    return this.#records.running;
  }

  listRunning(peer: Caller): RunningCalls {
    return { calls: this.running.list(peer) };
  }

  /**
   * Stored events of a workspace and of the scheduled work on its repositories, and calls for it that failed or were
   * refused, as far as the caller may hear of them. Throws the errors of `require()`.
   */
  listEvents(peer: Caller, path: string, options: PastEventsOptions): PastEvents {
    const { id, path: folder } = this.require(peer, path);
    const repositories = new Set(this.#schedules.tasksOf(id).map(({ repository }) => repository));
    const isAbout = ({ place, event }: Noted): boolean => {
      if (place !== null || event.type !== "call") return place?.id === id;
      // Work on a whole repository has no workspace, and neither has a call of somebody without a right on it.
      const { scheduled, repository, workspace } = event.data;
      if (scheduled) return repository !== null && repositories.has(repository);
      return workspace !== null && `${workspace}/`.startsWith(`${folder}/`);
    };
    return { events: this.events.before(options, (noted) => isAbout(noted) && this.mayHear(peer, noted)) };
  }

  cancel(peer: Caller, id: string): Promise<CancelResult> {
    return this.running.cancel(peer, id);
  }

  get config(): DaemonConfig {
    return this.#config;
  }

  get library(): CairnLibrary {
    return this.#library;
  }

  /** Calls `take` with each configuration that is read. If `take` throws, the previous configuration stays. */
  onReload(take: (config: DaemonConfig) => void): void {
    this.#readAgain.add(take);
  }

  /**
   * Reads the configuration again. Throws `usage` if the file does not parse; the previous configuration stays then.
   */
  reload(): void {
    const { places, log } = this.#options;
    const config = readConfig(places);
    const { type } = config.backend;
    if (type !== null && type !== this.#decision.type)
      log(`backend.type = "${type}" takes effect at the next start; ${this.#decision.type} is served until then`);
    if (config.http.listen !== this.#config.http.listen) log("http.listen takes effect at the next start");
    for (const take of this.#readAgain) take(config);
    this.#config = config;
    this.#schedules.begin(config);
    log("the configuration was read again");
  }

  /** True until the daemon begins to stop. */
  get isReady(): boolean {
    return !this.#isStopping;
  }

  /** Begins no scheduled work any more, and ends connections that wait for events. */
  letGo(): void {
    this.#isStopping = true;
    void this.#schedules.stop();
    this.freezes.close();
    this.events.close();
  }

  /** Ends the daemon's own work and saves the state. The caller waits for calls that are under way. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#stopping.abort();
    await this.#schedules.stop();
    await this.#reconciling;
    await this.#asked;
    const clients = await Promise.allSettled(this.#clients.values());
    await Promise.allSettled(
      clients.map(async (each) => (each.status === "fulfilled" ? each.value.close() : undefined)),
    );
    await this.#watched.stop();
    this.#records.close();
    this.#counts.settle();
    this.#instance[Symbol.dispose]();
  }

  /**
   * Returns the workspace at or above a path on which the peer may act; null if none is served there. Throws
   * `permission` if the path is the folder itself and the peer has no right on it.
   */
  at(peer: Caller, path: string): ServedWorkspace | null {
    const place = realPathOf(path);
    const served = this.#kept.at(place);
    const replaced = this.#kept.state.workspaces.find(
      ({ link }) => link !== undefined && Buffer.from(link).equals(place),
    );
    if (replaced !== undefined && isFor(peer, replaced)) throw linkReplaced(replaced);
    if (served === null || (!folderOf(served).equals(place) && !isFor(peer, served))) return null;
    rightOn(peer, served);
    return served;
  }

  /** Returns the workspace as `at()` does. Throws `not_a_workspace` too, if none is served. */
  require(
    peer: Caller,
    path: string,
    hint: Hint = advice`save the folder once: ${call("save DIR", "openOrInit", word("DIR"))}`,
  ): ServedWorkspace {
    const served = this.at(peer, path);
    if (served !== null) return served;
    throw new CairnError("not_a_workspace", `this daemon serves no workspace at or above ${printablePath(path)}`, {
      hint,
    });
  }

  /** Runs `work` with the client of a served workspace. Calls that change the workspace run one at a time. */
  async withClient<T>(
    peer: Caller,
    { path, changes, signal }: { path: string; changes: boolean; signal?: AbortSignal | undefined },
    work: (client: Client, right: Right) => Promise<T>,
  ): Promise<T> {
    const served = this.require(peer, path);
    // The right is asked for when the turn has come, because the call may have waited long.
    const whole = async (): Promise<T> => work(await this.#client(served), rightOn(peer, served));
    return changes ? this.#turns.take(served.id, whole, signal) : whole();
  }

  /** True if the daemon gets change notices of the workspace with this id. */
  isWatched(id: string): boolean {
    return this.#watched.changes.tells(id);
  }

  /** Appends the event of a verb that changed a workspace. */
  tellOf(name: VerbOfWorkspace, { id }: Omit<EventPlace, "owner_uid">, answered: unknown): void {
    const served = this.#kept.state.workspaces.find((each) => each.id === id);
    const verb = this.#records.tellOf(name, served, answered);
    if (verb.changesPoints !== true || served === undefined) return;
    // A restore may have exchanged the folder for another subvolume.
    this.#kept.marks.add(served);
    this.#counts.changed(id);
    if (verb.makesPoint === "save") this.#askAhead(served, answered as SaveResult);
  }

  /**
   * Asks btrfs at once for the status after a first point with ignore files: btrfs takes long for many entries. The
   * answer is kept, and the next status and save need not wait.
   */
  #askAhead(served: ServedWorkspace, { parent_id: parent, engine }: SaveResult): void {
    if (parent !== null || engine !== "btrfs-snapshot" || this.#isStopping) return;
    const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(PATIENCE_MS)]);
    const ask = async (): Promise<unknown> => (await this.#client(served)).status({ signal });
    // A failure is told to the next caller who asks for the status.
    this.#asked = Promise.allSettled([this.#asked, ask()]);
  }

  /** True if the peer may see an event by its present rights. */
  mayHear(peer: Caller, { place, uid }: Noted): boolean {
    // Events of a user's jobs are told to that user, but not to agents and narrow tokens.
    if (uid !== null) return isWholeOperator(peer) || (peer.uid === uid && !peer.isAgent && peer.only === null);
    return place === null || isFor(peer, place);
  }

  #client(served: ServedWorkspace): Promise<Client> {
    const open = this.#clients.get(served.id);
    if (open !== undefined) return open;
    this.#watched.add(served);
    const made = this.#library.open(served.path, { controlDirectory: served.control_directory });
    this.#clients.set(served.id, made);
    made.catch(() => this.#clients.delete(served.id));
    return made;
  }

  /**
   * Opens a folder, or makes it a workspace, and lists it in the state: the folder's own record first, then the state.
   * A kill in between leaves a record without an entry, which the next start lists. Throws `permission` if the peer
   * does not own a folder that becomes a workspace.
   */
  async register(peer: Caller, path: string, options: InitOptions): Promise<{ client: Client; created: boolean }> {
    const folder = realPathOf(path);
    const opened = async (): Promise<{ client: Client; created: boolean } | null> => {
      const known = this.at(peer, path);
      if (known === null || !folderOf(known).equals(folder)) return null;
      return { client: await this.#client(known), created: false };
    };
    const open = await opened();
    if (open !== null) return open;
    if (peer.isAgent || peer.only !== null)
      throw new CairnError(
        "permission",
        `${printablePath(folder)} is not a workspace yet, and only a person may make it one`,
        {
          hint: advice`ask a person to save it once: ${call("save DIR", "openOrInit", word("DIR"))}`,
        },
      );
    requireOwner(peer, folder);
    const isForOther = peer.uid !== 0 && process.geteuid?.() === 0;
    const kept = isForOther ? findWorkspace(folder, { exact: true }) : null;
    if (kept !== null) requireRootsOwn(kept.control.root, folder);
    if (isForOther && options.controlDirectory !== undefined)
      throw new CairnError("permission", "only root may name a control directory to root's daemon");
    return this.#turns.take(folder.toString("latin1"), async () => {
      // Another call may have registered the folder meanwhile.
      const again = await opened();
      if (again !== null) return again;
      const { type, dataRoot } = this.#decision;
      const place = folder.toString("utf8");
      if (type !== "btrfs-loop") return this.#serve(place, options, { isForOther });
      if (isAtOrBelow(folder, Buffer.from(dataRoot!)))
        return this.#serve(place, options, { isForOther, ...linkTo(path, place) });
      if (isForOther)
        throw new CairnError("permission", "only root may move a folder onto the image", {
          hint: advice`ask root to run once: ${line("init DIR", "openOrInit", word("DIR"))}; from then on you can save the folder`,
        });
      await requireMovable(folder, options);
      const move = await this.#moves.onto(place, dataRoot!, options);
      options.onWarning?.(
        `${place} is a link to ${move.target} now; the original folder lies in ${move.aside}: remove it when you do not need it`,
      );
      // The move has taken place, so the caller's abort no longer counts. A step that fails here is done again by the next start.
      const done = await this.#serve(move.target, { ...options, signal: undefined }, { link: place, isForOther });
      this.#moves.end(move);
      return done;
    });
  }

  /** Opens a folder, or makes it a workspace, and lists it. `link`: the path that is a link to the folder. */
  async #serve(
    folder: string,
    options: InitOptions,
    { link, isForOther = false }: { link?: string | undefined; isForOther?: boolean },
  ): Promise<{ client: Client; created: boolean }> {
    const place = { path: folder, ...(link === undefined ? {} : { link }) };
    const from = this.#kept.marks.movedFrom(folder);
    if (from !== null) {
      await this.#library.relocate(from, folder, { allow: options.allow, signal: options.signal });
      this.#kept.marks.drop({ path: from });
    }
    this.#kept.marks.add(place);
    failpoint("daemon.marked");
    const isTakenUp = link !== undefined && (await this.#moves.followReleased(link, folder));
    const client = await this.#openOrInit(folder, this.#initOptions(options), isForOther).catch((error: unknown) => {
      if (!this.#kept.state.workspaces.some(({ path }) => path === place.path)) this.#kept.marks.drop(place);
      throw error;
    });
    if (this.#decision.type === "btrfs-loop" && client.engineType === "copy") await client.setEngine("btrfs-snapshot");
    failpoint("daemon.kept");
    const created = client.created || isTakenUp;
    const { id, control_directory } = client.workspace;
    const others = this.#kept.state.workspaces.filter((each) => each.id !== id);
    const known = this.#kept.state.workspaces.find((each) => each.id === id);
    const linked = link ?? known?.link;
    const registered_at = known?.registered_at ?? new Date().toISOString();
    const facts = { id, registered_at, origin_backend: this.#decision.type, control_directory };
    const served: ServedWorkspace = {
      ...entryOf(client.workspace, facts),
      points: known?.points ?? 0,
      ...(linked === undefined ? {} : { link: linked }),
    };
    this.#kept.change({ workspaces: [...others, served] });
    this.#kept.marks.add(served);
    this.#clients.set(served.id, Promise.resolve(client));
    if (known === undefined) this.events.append({ workspace: served, type: "registered", data: { created } });
    this.#watched.add(served);
    this.#schedules?.refresh();
    return { client, created };
  }

  async #openOrInit(folder: string, options: InitOptions, isForOther: boolean): Promise<Client> {
    const client = await this.#library.openOrInit(folder, options);
    try {
      if (isForOther) requireRootsOwn(client.controlDirectory, Buffer.from(folder));
      return client;
    } catch (error) {
      if (client.created) await client.release({ deletePoints: true });
      throw error;
    }
  }

  /** Throws `refused` if an agent has made as many forks as it may: with its token, else of one folder and of that folder's forks. */
  requireForkable({ token }: Caller, { path }: { path: string }): void {
    if (token !== null) return this.tokens.requireForkable(token);
    const paths = this.#kept.state.workspaces.map((each) => each.path);
    const [first = path] = paths
      .filter((each) => isBeside(each, path))
      .toSorted((one, other) => one.length - other.length);
    const forks = paths.filter((each) => isBeside(first, each)).length;
    if (forks < MOST_FORKS) return;
    throw new CairnError("refused", `${forks} forks of ${printablePath(first)} exist, and no more are allowed`, {
      hint: "ask a person to release some of them",
    });
  }

  /**
   * Lists a fork: its own record first, then the state, then the token with which it was made. A kill after the first
   * leaves a record that the next start lists. A kill after the second leaves a fork of the user that the token may not
   * use.
   */
  async serveFork(caller: Caller, folder: string): Promise<void> {
    failpoint("daemon.forked");
    const { client } = await this.#serve(folder, {}, {});
    failpoint("daemon.fork-served");
    const served = this.#kept.state.workspaces.find(({ id }) => id === client.workspace.id);
    if (caller.token !== null && caller.only !== null) this.tokens.addWorkspace(caller.token, served!);
  }

  /** Serves a workspace at the place to which it was moved. Does nothing if the workspace was not served. */
  async serveMoved(from: string, to: string): Promise<void> {
    const known = this.#kept.state.workspaces.find(({ path }) => path === from);
    if (known !== undefined) await this.#serve(to, {}, {});
  }

  /** With a btrfs backend a folder becomes a subvolume; below the data root a plain folder is refused. */
  #initOptions(options: InitOptions): InitOptions {
    if (options.engineType !== undefined || this.#decision.type === "plain") return options;
    return { ...options, engineType: "btrfs-snapshot" };
  }

  /** Returns the workspaces on which a peer may act, in the form of the library's list. */
  async list(peer: Caller, options: CallOptions): Promise<WorkspaceInfo[]> {
    const mine = new Set(this.#kept.state.workspaces.filter((each) => isFor(peer, each)).map(({ id }) => id));
    return (await this.#library.listWorkspaces(options)).filter(({ id }) => mine.has(id));
  }

  /** Returns the workspace with exactly this folder, for its owner. Throws `not_a_workspace`, `permission`. */
  requireOwn(peer: Caller, path: string): ServedWorkspace {
    const served = this.require(peer, path, "`cairn service status` lists the folders that it serves");
    if (!folderOf(served).equals(realPathOf(path)))
      throw new CairnError(
        "not_a_workspace",
        `${printablePath(path)} is not a workspace; ${printablePath(folderOf(served))} above it is one`,
        {
          hint: "name the workspace above, if you mean it",
        },
      );
    if (rightOn(peer, served) !== "owner") requireOwner(peer, folderOf(served));
    return served;
  }

  /** Releases a folder and serves it no longer. Null: the folder had nothing left to release. */
  async release(peer: Caller, path: string, options: ReleaseOptions): Promise<ReleaseResult | null> {
    const served = this.requireOwn(peer, path);
    return this.#turns.take(served.id, async () => this.#giveUp(served, options), options.signal);
  }

  /**
   * Makes a workspace a plain folder again and serves it no longer: its subvolume is copied, compared and exchanged.
   * The subvolume stays beside the folder, and its points stay in place. Throws `refused`, `conflict`; nothing has
   * changed then.
   */
  async recover(peer: Caller, path: string, options: EngineOptions): Promise<ServedWorkspace & Conversion> {
    const served = this.requireOwn(peer, path);
    return this.#turns.take(served.id, async () => {
      const isOnImage =
        this.#decision.type === "btrfs-loop" && isAtOrBelow(folderOf(served), Buffer.from(this.#decision.dataRoot!));
      if (isOnImage) {
        if (served.link === undefined)
          throw new CairnError(
            "refused",
            `${printablePath(folderOf(served))} lies on the image, and no link to it is known`,
            { hint: "register the workspace by the path of the link, and recover that path" },
          );
        if (peer.uid !== 0) throw new CairnError("permission", "only root may take a folder back from the image");
        const { move, copied } = await this.#moves.back(served.link, served.path, options);
        await this.#leaveImage(served, served.link);
        this.#moves.end(move);
        this.events.append({ workspace: served, type: "recovered", data: { original: served.path } });
        return { ...served, ...NOT_CONVERTED, ...copied, path: served.link, original: served.path };
      }
      requireSubvolume(folderOf(served));
      const client = await this.#client(served);
      const { conversion } = await client.setEngine("reflink-copy", { ...options, plain: true });
      failpoint("daemon.recovered");
      await this.#giveUp(served);
      const { original } = conversion ?? NOT_CONVERTED;
      this.events.append({ workspace: served, type: "recovered", data: { original } });
      return { ...served, ...(conversion ?? NOT_CONVERTED) };
    });
  }

  /** Gives up a workspace whose folder moved back from the image. Its points follow first, so that `init` finds them. */
  async #leaveImage({ link: _link, ...served }: ServedWorkspace, path: string): Promise<void> {
    await this.#moves.follow(served, path);
    failpoint("daemon.left-image");
    const back = { ...served, path };
    this.#clients.delete(served.id);
    this.#kept.note(back);
    await (await this.#client(back)).setEngine("copy");
    await this.#giveUp(back);
  }

  /**
   * Releases a workspace and serves it no longer. Null if the workspace was released before. Intent: the state says
   * `releasing`. ● The release. The next start finishes a release that was killed.
   */
  async #giveUp(served: ServedWorkspace, options: ReleaseOptions = {}): Promise<ReleaseResult | null> {
    let result: ReleaseResult | null = null;
    this.#kept.note({ ...served, releasing: { delete_points: options.deletePoints === true } });
    failpoint("daemon.releasing");
    try {
      result = await (await this.#client(served)).release(options);
    } catch (error) {
      const { code, message } = toCairnError(error);
      if (!GONE.has(code)) {
        this.#kept.note(served);
        throw error;
      }
      this.#options.log(
        `${printablePath(folderOf(served))} was already released (${message}), and is not served any more`,
      );
    }
    failpoint("daemon.released");
    this.#forget(served);
    return result;
  }

  /** Finishes releases that were killed, and drops workspaces that root released without this daemon. */
  async #finishReleases(): Promise<void> {
    for (const served of this.#kept.state.workspaces) {
      const { releasing, ...kept } = served;
      try {
        const isReleased = dropReleased(served);
        if (releasing !== undefined) await this.#giveUp(kept, { deletePoints: releasing.delete_points });
        else if (isReleased) this.#forget(kept);
        else continue;
        this.#options.log(
          `${printablePath(folderOf(served))} was released before this start, and is not served any more`,
        );
      } catch (error) {
        this.#options.log(
          `${printablePath(folderOf(served))} could not be released yet: ${toCairnError(error).message}`,
        );
      }
    }
  }

  #forget(served: ServedWorkspace): void {
    const client = this.#clients.get(served.id);
    this.#clients.delete(served.id);
    this.#health.delete(served.id);
    this.#watched.remove(served);
    void client?.then(async (each) => each.close()).catch(() => undefined);
    this.#kept.change({ workspaces: this.#kept.state.workspaces.filter(({ id }) => id !== served.id) });
    failpoint("daemon.forgotten");
    this.#kept.marks.drop(served);
    const { control_directory } = served;
    this.events.append({ workspace: served, type: "released", data: { control_directory } });
    this.#schedules?.refresh();
  }

  /** Compares the state's list with the file system and the registry. A failure of one workspace does not stop the others. */
  async reconcile(): Promise<void> {
    const next = this.#reconciling.then(async () => this.#reconcile());
    this.#reconciling = next.catch(() => undefined);
    return next;
  }

  async #reconcile(): Promise<void> {
    const { workspaces } = this.#kept.state;
    const found = registeredWorkspaces(new Set(workspaces.map(({ id }) => id)), this.#decision.type);
    for (const { path } of found)
      this.#options.log(`${printablePath(path)} has records but was missing from the daemon's state; it was added`);
    if (found.length > 0) this.#kept.change({ workspaces: [...workspaces, ...found] });
    for (const workspace of found) this.events.append({ workspace, type: "registered", data: { created: false } });
    if (found.length > 0) this.#schedules.refresh();
    for (const served of this.#kept.state.workspaces) this.#kept.marks.add(served);
    this.#kept.marks.sweep();
    for (const link of this.#moves.linkAgain())
      this.#options.log(`the link ${printablePath(link)} was missing and was made again`);
    for (const served of this.#kept.state.workspaces) {
      if (this.#isStopping) return;
      const hand = { open: async () => this.#client(served), log: this.#options.log };
      const before = this.#health.get(served.id) ?? WELL;
      const health = await lookAfter(served, hand);
      this.#health.set(served.id, health);
      if (health.health !== before.health) this.events.append({ workspace: served, type: "health", data: health });
    }
  }

  /**
   * Saves a changed workspace in its turn. A folder of another user is saved with that user's rights: not if another
   * user's folder lies there now, and its databases are not opened. `how`: whether hooks run.
   */
  async #saveBySelf(
    served: ServedWorkspace,
    signal: AbortSignal,
    how: Pick<SaveOptions, "hooks" | "onProgress">,
  ): Promise<SaveResult> {
    const save = async (): Promise<SaveResult> => {
      const { owner_uid: uid } = served;
      const client = await this.#client(served);
      const isOther = uid !== undefined && uid !== process.geteuid?.();
      if (isOther) rightOn({ pid: 0, uid, gid: uid, isAgent: false, token: null, only: null }, served);
      const databases = isOther && client.engineType !== "btrfs-snapshot" ? { databases: "copy" as const } : {};
      const options = { cause: { kind: "schedule" }, skipUnchanged: true, signal, ...databases, ...how };
      const carryOut = async (): Promise<SaveResult> => client.save(options);
      const saved = await (this.freezes.isOffered(served.id)
        ? this.freezes.during(served.id, carryOut, this.#options.log)
        : carryOut());
      if (saved.made) this.tellOf("save", served, saved);
      return saved;
    };
    return this.#turns.take(served.id, save, signal);
  }

  async #cleanUp(signal: AbortSignal): Promise<{ removed: number; failed: string[] }> {
    let removed = 0;
    const failed: string[] = [];
    for (const served of this.#kept.state.workspaces) {
      if (signal.aborted) break;
      try {
        // A workspace that stays busy is cleaned up the next time, so that the others need not wait.
        const patience = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]);
        removed += await this.#turns.take(served.id, async () => this.#cleanUpOne(served, patience), patience);
      } catch (error) {
        failed.push(`${served.path}: ${toCairnError(error).message}`);
      }
    }
    return { removed, failed };
  }

  async #cleanUpOne(served: ServedWorkspace, signal: AbortSignal): Promise<number> {
    const client = await this.#client(served);
    const { retention } = await client.policy();
    const wanted = retention ?? this.#config.retention.keep;
    if (wanted === null) return 0;
    const plan = await client.previewCleanup({ retention: wanted, signal });
    if (plan.reclaimable_save_points.length === 0) return 0;
    const done = await client.runCleanup({ retention: wanted });
    this.tellOf("runCleanup", served, done);
    this.#options.log(`${served.path}: ${done.removed.length} points removed by the keep rules`, {
      workspace: folderOf(served),
      verb: "cleanup",
    });
    return done.removed.length;
  }

  status(peer: Caller): ReturnType<typeof statusOf> {
    return statusOf({
      workspaces: this.#kept.state.workspaces.filter((each) => isFor(peer, each)),
      isAll: isWholeOperator(peer),
      health: this.#health,
      kept: this.#kept,
      decision: this.#decision,
      instance: this.#instance,
      startedAt: this.#startedAt,
      config: this.#config,
      schedules: this.#schedules,
      places: this.#options.places,
    });
  }
}

/** Returns the path itself if it is a link to the folder. */
function linkTo(path: string, folder: string): { link?: string } {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true && path !== folder ? { link: path } : {};
}

function isFor(peer: Caller, served: EventPlace): boolean {
  try {
    rightOn(peer, served);
    return true;
  } catch {
    return false;
  }
}
