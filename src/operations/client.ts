import { existsSync } from "node:fs";
import { CairnError, see } from "../errors.ts";
import type {
  CallOptions,
  Conversion,
  EngineReason,
  EngineType,
  SealWhenIdleOptions,
  WorkspaceCallOptions,
  WorkspaceRef,
} from "../contract/words.ts";
import type { Client } from "../contract/index.ts";
import type { Rights, Verb } from "../contract/verb.ts";
import type { ControlId } from "../ids.ts";
import type { ControlPaths } from "../workspace/place/control-layout.ts";
import {
  foundAgain,
  type FoundWorkspace,
  requireSameControl,
  unlessControlIsGone,
  workspaceNamed,
  workspaceRef,
} from "../workspace/place/find-workspace.ts";
import { namingInodes } from "../workspace/place/room.ts";
import { unlessNotOwn } from "../workspace/place/owners.ts";
import { recoverAcknowledged } from "../workspace/save/look.ts";
import { readControl } from "../workspace/place/control-directory.ts";
import { withOutside } from "../workspace/save/outside.ts";
import { withSealed } from "../workspace/save/seal.ts";
import { unlessFolderIsGone } from "../workspace/open/missing-folder.ts";
import { Removals } from "../workspace/points/held-trees.ts";
import { Workspace, type WorkspaceParts } from "../workspace/open/workspace.ts";
import { IdleSealer } from "./idle-sealer.ts";
import type { HowOpened, Hand, Opened } from "./hand.ts";

/** A verb of a workspace with any types. */
type AnyVerb = Verb & (WorkspaceRow | ControlRow | FreeRow);

interface WorkspaceRow {
  needs?: undefined;
  seals?: boolean | ((...given: unknown[]) => boolean);
  run(hand: Hand, ...given: unknown[]): unknown;
}

interface ControlRow {
  needs: "control";
  run(control: ControlPaths, ...given: unknown[]): unknown;
}

interface FreeRow {
  needs: "nothing";
  run(opened: Opened, ...given: unknown[]): unknown;
}

const IDLE_MS = 2000;

export interface ClientOptions extends HowOpened {
  found: FoundWorkspace;
  parts: WorkspaceParts;
  created: boolean;
  engineReasons: readonly EngineReason[];
}

/** Its verbs are made from their table, but for two that are about the client itself. */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging
export interface CairnClient extends Client {}

/** One open control directory with one of its workspaces in hand. Every call opens what it needs and closes it again. */
export class CairnClient {
  readonly #options: ClientOptions;
  readonly #removals = new Removals();
  #idle: IdleSealer | undefined;
  /** Calls under way. */
  #calls = 0;
  /** @internal */
  isClosed = false;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  get created(): boolean {
    return this.#options.created;
  }

  get engineReasons(): readonly EngineReason[] {
    return this.#options.engineReasons;
  }

  get followedFrom(): string | null {
    return this.#options.followedFrom ?? null;
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
        hint: see("workspaces", "listWorkspaces"),
      });
    return other;
  }

  /** Not another's that was made at its path since. */
  #control(): ControlPaths {
    const { found } = this.#options;
    requireSameControl(found);
    return found.control;
  }

  /** @internal Carries a verb out. */
  perform(verb: AnyVerb, given: unknown[]): unknown {
    if (verb.needs === "control") return verb.run(this.#control(), ...given);
    if (verb.needs === "nothing")
      return verb.run(
        {
          client: this,
          removals: this.#removals,
          control: () => this.#control(),
          within: async (name, work) => this.#with(name, work),
        },
        ...given,
      );
    const place = verb.takes.findIndex((each) => each.name === "workspaceName");
    const name =
      place >= 0 ? (given[place] as string | undefined) : (given.at(-1) as WorkspaceCallOptions).workspaceName;
    return verb.how === "stream" ? this.#stream(name, verb, given) : this.#answer(name, verb, given);
  }

  async #answer(name: string | undefined, row: Rights & WorkspaceRow, given: unknown[]): Promise<unknown> {
    const work = async (workspace: Workspace): Promise<unknown> => {
      const hand = { workspace, parts: this.#options.parts };
      const isSealed = typeof row.seals === "function" ? row.seals(...given) : row.seals === true;
      if (!isSealed) return row.run({ ...hand, unsealed: [] }, ...given);
      const call = given.at(-1) as CallOptions;
      return withOutside(workspace, call, async () =>
        withSealed(workspace, call, async (unsealed) => row.run({ ...hand, unsealed }, ...given)),
      );
    };
    try {
      return await this.#with(name, work);
    } catch (error) {
      const isMoved = error instanceof CairnError && error.details?.["missing_pack"] !== undefined;
      if (row.looks !== true || !isMoved) throw error;
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
    const wasThere = existsSync(this.#options.found.folder);
    try {
      await using workspace = this.#open(name);
      await recoverAcknowledged(workspace);
      return await work(workspace);
    } catch (error) {
      throw unlessNotOwn(this.#options.found.control, this.#unlessGone(error, wasThere));
    }
  }

  #unlessGone(error: unknown, wasThere: boolean): unknown {
    const { found } = this.#options;
    const known = namingInodes([found.control.root, found.folder], unlessControlIsGone(found, error));
    return wasThere ? unlessFolderIsGone(found, known) : known;
  }

  #open(name: string | undefined): Workspace {
    return new Workspace(this.#found(name), this.#options.parts, this.#removals);
  }

  async *#stream(name: string | undefined, row: WorkspaceRow, given: unknown[]): AsyncGenerator<unknown> {
    using _call = await this.#begin();
    const wasThere = existsSync(this.#options.found.folder);
    try {
      await using workspace = this.#open(name);
      await recoverAcknowledged(workspace);
      yield* (await row.run(
        { workspace, parts: this.#options.parts, unsealed: [] },
        ...given,
      )) as AsyncIterable<unknown>;
    } catch (error) {
      throw this.#unlessGone(error, wasThere);
    }
  }

  sealWhenIdle(options: SealWhenIdleOptions = {}): void {
    this.#idle = new IdleSealer({
      idleMs: options.idleMs ?? IDLE_MS,
      calls: this.#calls,
      before: this.#idle?.close() ?? Promise.resolve(),
      onWarning: options.onWarning,
      seal: async (signal) =>
        this.#inWorkspace(undefined, async (workspace) => {
          const { sealNewest } = await import("./verify.ts");
          await sealNewest(workspace, { signal, lockTimeoutMs: 0, onWarning: options.onWarning });
        }),
    });
  }

  /** Nothing stays open between calls; what goes on by itself ends. Later calls are refused. */
  async close(): Promise<void> {
    this.isClosed = true;
    await this.#idle?.close();
    await this.#removals.settled();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
