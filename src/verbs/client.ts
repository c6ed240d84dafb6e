import type { Client } from "../contract/index.ts";
import type { Rights, Verb } from "../contract/verb.ts";
import type {
  CallOptions,
  Conversion,
  EngineReason,
  EngineType,
  WorkspaceCallOptions,
  WorkspaceRef,
} from "../contract/words.ts";
import { CairnError, see } from "../errors.ts";
import { isSilent, requireAnswer } from "../fs/silent-mounts.ts";
import type { ControlId } from "../ids.ts";
import type { Hand, HowOpened, Opened } from "../keep/hand.ts";
import { endRemovals } from "../workspace/care/fork-aside.ts";
import { unlessFolderIsGone } from "../workspace/open/missing-folder.ts";
import { Workspace, type WorkspaceParts } from "../workspace/open/workspace.ts";
import { readControl } from "../workspace/place/control-directory.ts";
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
import { namingInodes } from "../workspace/place/room.ts";
import { Removals } from "../workspace/points/held-trees.ts";
import { recoverAcknowledged } from "../workspace/save/look.ts";
import { withOutside } from "../workspace/save/outside.ts";
import { withSealed } from "../workspace/save/seal.ts";
import { IdleSealer, type IdleSealerOptions } from "./idle-sealer.ts";
import { existsSync } from "node:fs";

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

export interface ClientOptions extends HowOpened, Pick<Opened, "openStorage" | "tasksOf"> {
  found: FoundWorkspace;
  parts: WorkspaceParts;
  created: boolean;
  engineReasons: readonly EngineReason[];
}

/** The client's methods are generated from the table of verbs, except for two about the client itself. */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging
export interface CairnClient extends Client {}

/** An open control directory with a selected workspace. Every call opens the files that it needs and closes them again. */
export class CairnClient {
  readonly #options: ClientOptions;
  readonly #removals = new Removals();
  #idle: IdleSealer | undefined;
  /** the number of running calls */
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
    // Another process may have changed the engine. The file is ignored if another control directory is at the path now.
    const controlFile = readControl(found.control);
    return workspaceRef(controlFile?.id === found.controlFile.id ? { ...found, controlFile } : found);
  }

  /** Returns the path of a workspace; for the client's own the path at which it was opened, even if it moved. */
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

  /** Returns the control directory. Throws if another one was made at its path since. */
  #control(): ControlPaths {
    const { found } = this.#options;
    requireSameControl(found);
    return found.control;
  }

  /** @internal Runs a verb. */
  perform(verb: AnyVerb, given: unknown[]): unknown {
    if (verb.needs === "control") return verb.run(this.#control(), ...given);
    if (verb.needs === "nothing")
      return verb.run(
        {
          client: this,
          removals: this.#removals,
          openStorage: this.#options.openStorage,
          parts: this.#options.parts,
          tasksOf: this.#options.tasksOf,
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
      const hand = this.#handOf(workspace);
      const isSealed = typeof row.seals === "function" ? row.seals(...given) : row.seals === true;
      if (!isSealed) return row.run({ ...hand, unsealed: [] }, ...given);
      const call = given.at(-1) as CallOptions;
      return withOutside(workspace, call, async () =>
        withSealed(workspace, call, async (unsealed) => row.run({ ...hand, unsealed }, ...given)),
      );
    };
    try {
      return await this.#with(name, work, row);
    } catch (error) {
      const isMoved = error instanceof CairnError && error.details?.["missing_pack"] !== undefined;
      if (row.looks !== true || !isMoved) throw error;
      return this.#with(name, work, row);
    }
  }

  #handOf(workspace: Workspace): Omit<Hand, "unsealed"> {
    const { parts, openStorage } = this.#options;
    return {
      workspace,
      parts,
      backups: async (...given) => (await import("../keep/kept-backups.ts")).withBackups(openStorage, ...given),
    };
  }

  async #with<T>(
    name: string | undefined,
    work: (workspace: Workspace) => Promise<T>,
    { withoutFolder }: Rights = {},
  ): Promise<T> {
    using _call = await this.#begin();
    return await this.#inWorkspace(name, work, withoutFolder);
  }

  /** Counts a call as running until the result is disposed of. */
  async #begin(): Promise<Disposable> {
    this.#calls++;
    await this.#idle?.begin();
    return {
      [Symbol.dispose]: () => {
        this.#calls--;
        // The present sealer, which counts this call too.
        this.#idle?.end();
      },
    };
  }

  async #inWorkspace<T>(
    name: string | undefined,
    work: (workspace: Workspace) => Promise<T>,
    withoutFolder?: true,
  ): Promise<T> {
    const wasThere = this.#isThere(withoutFolder);
    try {
      await using workspace = this.#open(name);
      await recoverAcknowledged(workspace);
      // A killed removal of this fork left its folder at another name.
      if (!wasThere) await endRemovals(workspace, {});
      return await work(workspace);
    } catch (error) {
      throw unlessNotOwn(this.#options.found.control, this.#unlessGone(error, wasThere));
    }
  }

  /** Throws `io` if the folder's mount does not answer, unless the call needs no folder. */
  #isThere(withoutFolder: true | undefined): boolean {
    const { folder } = this.#options.found;
    if (withoutFolder !== true) requireAnswer(folder);
    else if (isSilent(folder)) return true;
    return existsSync(folder);
  }

  #unlessGone(error: unknown, wasThere: boolean): unknown {
    const { found } = this.#options;
    const known = namingInodes([found.control.root, found.folder], unlessControlIsGone(found, error));
    return wasThere ? unlessFolderIsGone(found, known) : known;
  }

  #open(name: string | undefined): Workspace {
    return new Workspace(this.#found(name), this.#options.parts, this.#removals);
  }

  async *#stream(name: string | undefined, row: Rights & WorkspaceRow, given: unknown[]): AsyncGenerator<unknown> {
    using _call = await this.#begin();
    const wasThere = this.#isThere(row.withoutFolder);
    try {
      await using workspace = this.#open(name);
      await recoverAcknowledged(workspace);
      yield* (await row.run({ ...this.#handOf(workspace), unsealed: [] }, ...given)) as AsyncIterable<unknown>;
    } catch (error) {
      throw this.#unlessGone(error, wasThere);
    }
  }

  sealWhenIdle(options: Partial<Pick<IdleSealerOptions, "idleMs" | "onWarning">> = {}): void {
    this.#idle = new IdleSealer({
      idleMs: options.idleMs ?? IDLE_MS,
      calls: this.#calls,
      before: this.#idle?.close() ?? Promise.resolve(),
      onWarning: options.onWarning,
      seal: async (signal) =>
        this.#inWorkspace(undefined, async (workspace) => {
          const { sealNewest } = await import("../look/verify.ts");
          await sealNewest(workspace, { signal, lockTimeoutMs: 0, onWarning: options.onWarning });
        }),
    });
  }

  /** Ends background work. Later calls are refused. */
  async close(): Promise<void> {
    this.isClosed = true;
    await this.#idle?.close();
    await this.#removals.settled();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
