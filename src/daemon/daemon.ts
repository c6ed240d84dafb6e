import { lstatSync, realpathSync } from "node:fs";
import { CairnError, toCairnError } from "../errors.ts";
import type {
  AdoptOptions,
  CairnLibrary,
  CallOptions,
  Client,
  Conversion,
  EngineOptions,
  ReleaseOptions,
  ReleaseResult,
  WorkspaceInfo,
} from "../contract/index.ts";
import type { DaemonStatus } from "../contract/daemon.ts";
import { failpoint } from "../failpoint.ts";
import type { DaemonState, FolderMove, ServedWorkspace } from "../formats/records/daemon-state.ts";
import { displayPath, isAtOrBelow, printablePath } from "../fs/safe-path.ts";
import type { ChangesOf } from "../workspace/store/engine.ts";
import { findWorkspace, realPathOf } from "../workspace/place/find-workspace.ts";
import { type DaemonConfig, readConfig } from "./config.ts";
import { bootstrap } from "./bootstrap.ts";
import { Moves, requireMovable } from "./moves.ts";
import { type Instance, takeInstance } from "./instance.ts";
import { migrateOld } from "./migrate-ws-ckpt.ts";
import { type Peer, requireOwner, requireRootsOwn, type Right, rightOn } from "./peer.ts";
import type { DaemonPlaces } from "./places.ts";
import { registeredWorkspaces } from "./reconcile.ts";
import { Retainer } from "./retainer.ts";
import { FreezeWindows } from "./freeze.ts";
import { entryOf, folderOf, KeptState } from "./kept-state.ts";
import { adviceOn, fileSystemsOf, type Health, lookAfter, pointsOf, WELL } from "./health.ts";
import { Turns } from "./turns.ts";
import { Watcher } from "./watch/watcher.ts";

/** Milliseconds that a cleanup waits for a workspace. */
const PATIENCE_MS = 60_000;

/** Errors of a workspace of which nothing is left to be released. */
const GONE: ReadonlySet<string> = new Set(["not_found", "not_a_workspace"]);

/** Answer for a folder that was plain already. */
const NOT_CONVERTED: Conversion = { original: "", entries: 0, bytes: 0, duration_ms: 0 };

export interface DaemonOptions {
  places: DaemonPlaces;
  openLibrary: (parts: { changesOf: ChangesOf }) => Promise<CairnLibrary>;
  /** A line for the operator's log. */
  log: (message: string) => void;
}

/** Many workspaces of one host: which they are, who may act on them, and what is done for them by itself. */
export class Daemon {
  readonly #options: DaemonOptions;
  readonly #kept: KeptState;
  readonly #moves: Moves;
  readonly #turns = new Turns();
  readonly #retainer: Retainer;
  readonly freezes = new FreezeWindows();
  /** Open clients by the id of their workspace. */
  readonly #clients = new Map<string, Promise<Client>>();
  readonly #health = new Map<string, Health>();
  readonly #startedAt = new Date().toISOString();
  #library!: CairnLibrary;
  #watcher: Watcher | null = null;
  #config: DaemonConfig;
  #instance!: Instance;
  #decision!: ReturnType<typeof bootstrap>;
  #reconciling: Promise<void> = Promise.resolve();
  #isStopping = false;

  private constructor(options: DaemonOptions, config: DaemonConfig) {
    this.#options = options;
    this.#config = config;
    this.#kept = new KeptState(options.places.state);
    this.#moves = new Moves(this.#kept);
    this.#retainer = new Retainer(async (rules) => this.#cleanUp(rules));
  }

  /**
   * Takes the state directory, decides what is served, and is ready for calls. Throws `usage` for a configuration that does
   * not parse, `busy` where another daemon is there, `newer_version`, and `unsupported` naming all that cannot be served.
   */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const { places } = options;
    const daemon = new Daemon(options, readConfig(places.config));
    daemon.#instance = await takeInstance(places.state);
    // What the kernel says of mounts and loop devices has no links in it.
    places.state = realpathSync.native(places.state);
    try {
      await daemon.#begin();
      return daemon;
    } catch (error) {
      await daemon.#watcher?.stop();
      daemon.#instance[Symbol.dispose]();
      throw error;
    }
  }

  async #begin(): Promise<void> {
    const { places, log } = this.#options;
    const { killed } = this.#instance;
    if (killed !== null) log(`unclean shutdown: the daemon before this one was killed, ${killed}`);
    // The daemon of all users has records of its own, and none of root's.
    if (places.isSystem) process.env["XDG_STATE_HOME"] = places.state;
    this.#decision = bootstrap(this.#kept, { config: this.#config, places, log });
    this.#watcher = Watcher.start(log);
    this.#library = await this.#options.openLibrary({ changesOf: (root) => this.#watcher?.journalOf(root) ?? null });
    for (const move of this.#moves.left) await this.#finish(move);
    await this.#migrate();
    this.#retainer.start(this.#config.retention, this.#kept.state.schedules.cleanup_at);
  }

  /** Takes over what an older daemon has left, before anything is served. */
  async #migrate(): Promise<void> {
    const { places, log } = this.#options;
    const { state, data_root: dataRoot } = this.#config.migrate;
    if (state === null && dataRoot === null && !places.isSystem) return;
    const migrated = (): NonNullable<DaemonState["migrated"]> => this.#kept.state.migrated ?? [];
    await migrateOld(
      { state: state ?? "/var/lib/ws-ckpt", dataRoot },
      {
        log,
        // Where it lies: its snapshots are on the same file system.
        register: async (folder) => (await this.#serve(folder, { engineType: "btrfs-snapshot" }, {})).client,
        taken: (id) => migrated().find((each) => each.id === id)?.snapshots ?? [],
        note: (id, snapshots) =>
          this.#kept.change({
            migrated: [...migrated().filter((each) => each.id !== id), { id, snapshots: [...snapshots] }],
          }),
      },
    );
  }

  /** Ends what a kill has left of a move; one that cannot be ended now is tried again at the next start, and stops nothing. */
  async #finish(move: FolderMove): Promise<void> {
    const { path, target, aside, back } = move;
    const shown = `the move of ${printablePath(path)} (${printablePath(target)}, ${printablePath(aside)})`;
    try {
      const how = await this.#moves.finish(move);
      const served = this.#kept.at(Buffer.from(target));
      if (how === "moved" && back && served !== null) await this.#giveUp(served);
      else if (how === "moved" && !back) await this.#serve(target, {}, { link: path });
      this.#moves.end(move);
      const said =
        how === "unknown" ? "nobody can tell any more how far it had got, so all of it stays" : `the folder is ${how}`;
      this.#options.log(`${shown} was interrupted: ${said}`);
    } catch (error) {
      this.#options.log(`${shown} was interrupted and cannot be ended yet: ${toCairnError(error).message}`);
    }
  }

  get config(): DaemonConfig {
    return this.#config;
  }

  /** Reads the configuration again. Throws `usage` for one that does not parse, and goes on with the old one then. */
  reload(): void {
    const { places, log } = this.#options;
    const config = readConfig(places.config);
    const { type } = config.backend;
    if (type !== null && type !== this.#decision.type)
      log(`backend.type = "${type}" counts from the next start on; ${this.#decision.type} is served until then`);
    this.#config = config;
    this.#retainer.start(config.retention, this.#kept.state.schedules.cleanup_at);
    log("the configuration was read again");
  }

  /** Lets go of connections that wait for what may never come. */
  letGo(): void {
    this.freezes.close();
  }

  /** Ends what goes on, and keeps the state. Calls that are under way are the caller's to wait for. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#retainer.stop();
    await this.#reconciling;
    const clients = await Promise.allSettled(this.#clients.values());
    await Promise.allSettled(
      clients.map(async (each) => (each.status === "fulfilled" ? each.value.close() : undefined)),
    );
    await this.#watcher?.stop();
    try {
      this.#kept.save();
    } catch (error) {
      this.#options.log(`the state is as it was saved before: ${toCairnError(error).message}`);
    }
    this.#instance[Symbol.dispose]();
  }

  /**
   * The workspace at or above a path that this peer may act on; null where none is served there. Throws `permission` for the
   * folder itself where they may not: one above is nothing to them then.
   */
  at(peer: Peer, path: string): ServedWorkspace | null {
    const place = realPathOf(path);
    const served = this.#kept.at(place);
    if (served === null || (!folderOf(served).equals(place) && !isFor(peer, served))) return null;
    rightOn(peer, folderOf(served), served.owner_uid);
    return served;
  }

  /** As `at` gives it. Throws `not_a_workspace` too, where none is served. */
  require(peer: Peer, path: string): ServedWorkspace {
    const served = this.at(peer, path);
    if (served !== null) return served;
    throw new CairnError("not_a_workspace", `this daemon serves no workspace at or above ${printablePath(path)}`, {
      hint: "save the folder once: `cairn save DIR`",
    });
  }

  /** The client of a workspace that is served, for one call at a time where the call changes something. */
  async withClient<T>(
    peer: Peer,
    { path, changes, signal }: { path: string; changes: boolean; signal?: AbortSignal | undefined },
    work: (client: Client, right: Right) => Promise<T>,
  ): Promise<T> {
    const served = this.require(peer, path);
    // Asked when it is done, too: it may have waited for its turn for long.
    const whole = async (): Promise<T> =>
      work(await this.#client(served), rightOn(peer, folderOf(served), served.owner_uid));
    return changes ? this.#turns.take(served.id, whole, signal) : whole();
  }

  #client(served: ServedWorkspace): Promise<Client> {
    const open = this.#clients.get(served.id);
    if (open !== undefined) return open;
    this.#watcher?.add(folderOf(served), [served.control_directory]);
    const made = this.#library.open(served.path, { controlDirectory: served.control_directory });
    this.#clients.set(served.id, made);
    made.catch(() => this.#clients.delete(served.id));
    return made;
  }

  /**
   * Opens a folder, or makes it a workspace, and lists it in the state: the folder's own record first, then the state. A
   * kill in between leaves a record without an entry, which the next start lists. Throws `permission` where the peer does
   * not own a folder that is to be made one.
   */
  async register(peer: Peer, path: string, options: AdoptOptions): Promise<{ client: Client; created: boolean }> {
    const folder = realPathOf(path);
    const opened = async (): Promise<{ client: Client; created: boolean } | null> => {
      const known = this.at(peer, path);
      if (known === null || !folderOf(known).equals(folder)) return null;
      return { client: await this.#client(known), created: false };
    };
    const open = await opened();
    if (open !== null) return open;
    requireOwner(peer, folder);
    const isForOther = peer.uid !== 0 && process.geteuid?.() === 0;
    const kept = isForOther ? findWorkspace(folder, { exact: true }) : null;
    if (kept !== null) requireRootsOwn(kept.control.root, folder);
    if (isForOther && options.controlDirectory !== undefined)
      throw new CairnError("permission", "only root names a control directory to root's daemon");
    return this.#turns.take(folder.toString("latin1"), async () => {
      // Somebody else may have asked for it at the same time.
      const again = await opened();
      if (again !== null) return again;
      const { type, dataRoot } = this.#decision;
      const place = folder.toString("utf8");
      if (type !== "btrfs-loop") return this.#serve(place, options, { isForOther });
      if (isAtOrBelow(folder, Buffer.from(dataRoot!)))
        return this.#serve(place, options, { isForOther, ...linkTo(path, place) });
      if (isForOther)
        throw new CairnError("permission", "only root moves a folder onto the image", {
          hint: "ask root for it once: cairn init DIR; from then on it is yours to save",
        });
      await requireMovable(folder, options);
      const move = await this.#moves.onto(place, dataRoot!, options);
      options.onWarning?.(
        `${place} is a link to ${move.target} now; it lies as it was in ${move.aside}: remove that when you do not need it`,
      );
      // It has taken place, whatever the caller does now: what fails here is done again by the next start.
      const done = await this.#serve(move.target, { ...options, signal: undefined }, { link: place, isForOther });
      this.#moves.end(move);
      return done;
    });
  }

  /** Opens a folder or adopts it, and lists it. `link`: the path that is a link to it. */
  async #serve(
    place: string,
    options: AdoptOptions,
    { link, isForOther = false }: { link?: string | undefined; isForOther?: boolean },
  ): Promise<{ client: Client; created: boolean }> {
    const client = await this.#library.openOrAdopt(place, this.#adoptOptions(options));
    try {
      if (isForOther) requireRootsOwn(client.controlDirectory, Buffer.from(place));
    } catch (error) {
      if (client.created) await client.release({ deletePoints: true });
      throw error;
    }
    failpoint("daemon.adopted");
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
    this.#clients.set(served.id, Promise.resolve(client));
    this.#watcher?.add(folderOf(served), [served.control_directory]);
    return { client, created: client.created };
  }

  /** With a btrfs backend a folder becomes a subvolume; below the data root nothing less will do. */
  #adoptOptions(options: AdoptOptions): AdoptOptions {
    if (options.engineType !== undefined || this.#decision.type === "plain") return options;
    return { ...options, engineType: "btrfs-snapshot" };
  }

  /** Workspaces that a peer may act on, as the library lists them. */
  async list(peer: Peer, options: CallOptions): Promise<WorkspaceInfo[]> {
    const mine = new Set(this.#kept.state.workspaces.filter((each) => isFor(peer, each)).map(({ id }) => id));
    return (await this.#library.listWorkspaces(options)).filter(({ id }) => mine.has(id));
  }

  /** The workspace whose folder this is; one above it is not meant. For its owner. */
  #requireOwn(peer: Peer, path: string): ServedWorkspace {
    const served = this.require(peer, path);
    if (!folderOf(served).equals(realPathOf(path)))
      throw new CairnError(
        "not_a_workspace",
        `${printablePath(path)} is no workspace; ${printablePath(folderOf(served))} above it is one`,
        {
          hint: "name that, if it is meant",
        },
      );
    if (rightOn(peer, folderOf(served), served.owner_uid) !== "owner") requireOwner(peer, folderOf(served));
    return served;
  }

  /** Serves a folder no longer, and keeps it no longer. Null: nothing of it was left to be released. */
  async release(peer: Peer, path: string, options: ReleaseOptions): Promise<ReleaseResult | null> {
    const served = this.#requireOwn(peer, path);
    return this.#turns.take(served.id, async () => this.#giveUp(served, options), options.signal);
  }

  /**
   * Makes a workspace a plain folder again and serves it no longer: a copy of its subvolume, compared and exchanged with it.
   * The subvolume stays beside it, and its points where they are. Throws `refused`, `conflict`; all is as it was then.
   */
  async recover(peer: Peer, path: string, options: EngineOptions): Promise<ServedWorkspace & Conversion> {
    const served = this.#requireOwn(peer, path);
    return this.#turns.take(served.id, async () => {
      const isOnImage =
        this.#decision.type === "btrfs-loop" && isAtOrBelow(folderOf(served), Buffer.from(this.#decision.dataRoot!));
      if (isOnImage) {
        if (served.link === undefined)
          throw new CairnError(
            "refused",
            `${printablePath(folderOf(served))} lies on the image, and no link to it is known`,
            { hint: "register it by the path that is the link, and recover that" },
          );
        if (peer.uid !== 0) throw new CairnError("permission", "only root takes a folder back from the image");
        const move = await this.#moves.back(served.link, served.path, options);
        await this.#giveUp(served);
        this.#moves.end(move);
        return { ...served, ...NOT_CONVERTED, path: served.link, original: served.path };
      }
      const client = await this.#client(served);
      const { conversion } = await client.setEngine("reflink-copy", { ...options, plain: true });
      failpoint("daemon.recovered");
      await this.#giveUp(served);
      return { ...served, ...(conversion ?? NOT_CONVERTED) };
    });
  }

  /** Stops keeping a workspace and serving it; null where it was not kept any more. */
  async #giveUp(served: ServedWorkspace, options: ReleaseOptions = {}): Promise<ReleaseResult | null> {
    let result: ReleaseResult | null = null;
    try {
      result = await (await this.#client(served)).release(options);
    } catch (error) {
      const { code, message } = toCairnError(error);
      if (!GONE.has(code)) throw error;
      this.#options.log(
        `${printablePath(folderOf(served))} is not served any more, and was not kept any more: ${message}`,
      );
    }
    failpoint("daemon.released");
    this.#forget(served);
    return result;
  }

  #forget(served: ServedWorkspace): void {
    const client = this.#clients.get(served.id);
    this.#clients.delete(served.id);
    this.#health.delete(served.id);
    this.#watcher?.remove(folderOf(served));
    void client?.then(async (each) => each.close()).catch(() => undefined);
    this.#kept.change({ workspaces: this.#kept.state.workspaces.filter(({ id }) => id !== served.id) });
  }

  /** Compares what the state lists with what is there, both ways. One sick workspace stops no other. */
  async reconcile(): Promise<void> {
    const next = this.#reconciling.then(async () => this.#reconcile());
    this.#reconciling = next.catch(() => undefined);
    return next;
  }

  async #reconcile(): Promise<void> {
    const { workspaces } = this.#kept.state;
    const found = registeredWorkspaces(new Set(workspaces.map(({ id }) => id)), this.#decision.type);
    for (const { path } of found)
      this.#options.log(`${printablePath(path)} has records and was not listed in the state; it is now`);
    if (found.length > 0) this.#kept.change({ workspaces: [...workspaces, ...found] });
    for (const link of this.#moves.linkAgain())
      this.#options.log(`${printablePath(link)} was gone and is a link again`);
    for (const served of this.#kept.state.workspaces) {
      if (this.#isStopping) return;
      const hand = { open: async () => this.#client(served), log: this.#options.log };
      this.#health.set(served.id, await lookAfter(served, hand));
    }
  }

  async #cleanUp(rules: () => DaemonConfig["retention"]["keep"]): Promise<{ removed: number; failed: string[] }> {
    let removed = 0;
    const failed: string[] = [];
    for (const served of this.#kept.state.workspaces) {
      if (this.#isStopping) break;
      try {
        // One that is busy for long is cleaned up the next time, and keeps no other waiting.
        const patience = AbortSignal.timeout(PATIENCE_MS);
        removed += await this.#turns.take(served.id, async () => this.#cleanUpOne(served, rules(), patience), patience);
      } catch (error) {
        failed.push(`${served.path}: ${toCairnError(error).message}`);
      }
    }
    this.#kept.change({ schedules: { ...this.#kept.state.schedules, cleanup_at: new Date().toISOString() } });
    return { removed, failed };
  }

  async #cleanUpOne(
    served: ServedWorkspace,
    rules: DaemonConfig["retention"]["keep"],
    signal: AbortSignal,
  ): Promise<number> {
    const client = await this.#client(served);
    const { retention } = await client.policy();
    const wanted = retention ?? rules;
    if (wanted === null) return 0;
    const plan = await client.previewCleanup({ retention: wanted, signal });
    if (plan.reclaimable_save_points.length === 0) return 0;
    const { removed } = await client.runCleanup(plan.plan_id);
    this.#options.log(`${served.path}: ${removed.length} points removed by the keep rules`);
    return removed.length;
  }

  status(peer: Peer): DaemonStatus {
    const { places } = this.#options;
    const mine = this.#kept.state.workspaces.filter((each) => isFor(peer, each));
    const workspaces = mine.map((each) => ({
      ...each,
      ...(pointsOf(each) ?? { points: each.points, last_point_at: null }),
      ...(this.#health.get(each.id) ?? WELL),
      ...displayPath(folderOf(each)),
    }));
    const facts = this.#retainer.facts();
    const fileSystems = fileSystemsOf(mine, places.state);
    return {
      pid: process.pid,
      started_at: this.#startedAt,
      unclean_shutdown: this.#instance.killed,
      backend: { ...this.#kept.state.backend, reason: this.#decision.reason, warning: this.#decision.warning },
      state_file: this.#kept.path,
      config_file: places.config,
      socket: places.socket,
      workspaces,
      retention: {
        cleanup_at: this.#kept.state.schedules.cleanup_at,
        ...facts,
        failed: facts.failed.filter((each) => workspaces.some(({ path }) => each.startsWith(`${path}: `))),
      },
      file_systems: fileSystems,
      advice: adviceOn(workspaces, fileSystems),
    };
  }
}

/** The path itself, where it is a link to the folder. */
function linkTo(path: string, folder: string): { link?: string } {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true && path !== folder ? { link: path } : {};
}

function isFor(peer: Peer, served: ServedWorkspace): boolean {
  try {
    rightOn(peer, folderOf(served), served.owner_uid);
    return true;
  } catch {
    return false;
  }
}
