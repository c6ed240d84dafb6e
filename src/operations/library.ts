import { existsSync } from "node:fs";
import { createEmbeddedStore, storePolynomial } from "../workspace/store/embedded-store.ts";
import { storePaths } from "../workspace/store/store-files.ts";
import { CairnError } from "../errors.ts";
import { NO_POLICY } from "../formats/records/policy.ts";
import {
  findWorkspace,
  type FoundWorkspace,
  isBeside,
  openControlDirectory,
  realPathOf,
  seemsMoved,
} from "../workspace/place/find-workspace.ts";
import { type Adopted, adoptFolder, checkPlainName, initSelfContained } from "../workspace/place/adopt.ts";
import { isPlainOnBtrfs, requireConvertible } from "../workspace/place/convert.ts";
import { checkLocation, realFolder } from "../workspace/place/guards.ts";
import type { ControlPaths } from "../workspace/place/control-layout.ts";
import { learnPolynomial, ownPolynomial } from "../workspace/place/own-polynomial.ts";
import { writePolicy } from "../workspace/place/control-directory.ts";
import { noteSelfContained } from "../workspace/place/registry.ts";
import type { StorageFactory } from "../repository/storage/location.ts";
import type { WorkspaceParts } from "../workspace/workspace.ts";
import { OpenedRepository } from "./opened-repository.ts";
import { verifyReceipt } from "../backup/restore/receipt.ts";
import { OpenRepository } from "../backup/open-repository.ts";
import { checkCalls } from "../contract/checked-calls.ts";
import { LIBRARY_VERBS } from "../contract/index.ts";
import { CairnClient } from "./client.ts";
import type {
  AdoptOptions,
  EngineResult,
  InitOptions,
  InspectOptions,
  InspectResult,
  OpenOptions,
  RelocateOptions,
  RelocateResult,
  WorkspaceInfo,
} from "../contract/care.ts";
import type { BackupRepository, InitRepositoryOptions, RepositoryOptions } from "../contract/repositories.ts";
import type { CallOptions, Conversion, EngineType } from "../contract/words.ts";
import type { VerifyReceiptOptions, VerifyReceiptResult } from "../contract/snapshots.ts";
import {
  convertAdopted,
  detectEngine,
  engineOfNew,
  placeOfPoints,
  probeEngines,
  probeReasons,
  rememberedReasons,
  rememberReasons,
  requireEngine,
} from "./engine.ts";
import { forget } from "../workspace/place/release.ts";
import { inspect } from "./inspect.ts";
import { checkedQuota } from "./cleanup.ts";
import { relocate } from "../workspace/place/relocate.ts";
import { listWorkspaces } from "./workspaces.ts";

/** Calls that need no open control directory. */
export class Library {
  readonly #parts: WorkspaceParts;
  readonly #openStorage: StorageFactory;

  constructor(parts: WorkspaceParts, openStorage: StorageFactory) {
    this.#parts = parts;
    this.#openStorage = openStorage;
  }

  async initRepository(options: InitRepositoryOptions): Promise<BackupRepository> {
    const found = options.like === undefined ? null : findWorkspace(options.like);
    const polynomial = found === null ? ownPolynomial() : await storePolynomial(storePaths(found.control.root));
    learnPolynomial(polynomial);
    return new OpenedRepository(await OpenRepository.create(this.#openStorage, options, polynomial));
  }

  async openRepository(options: RepositoryOptions): Promise<BackupRepository> {
    const access = await OpenRepository.open(this.#openStorage, options);
    learnPolynomial(access.repository.chunkerPolynomial);
    return new OpenedRepository(access);
  }

  async verifyReceipt(path: string, options: VerifyReceiptOptions = {}): Promise<VerifyReceiptResult> {
    return verifyReceipt(path, options);
  }

  async detectEngine(path: string, options: CallOptions = {}): Promise<EngineResult> {
    return detectEngine(path, options);
  }

  async validateEngine(path: string, type: EngineType, options: CallOptions = {}): Promise<void> {
    await requireEngine(path, type, options);
  }

  async init(path: string, options: InitOptions = {}): Promise<CairnClient> {
    const adopted = await this.#init(path, options);
    if (!adopted.created)
      throw new CairnError("already_exists", `${path} is a self-contained workspace already`, {
        hint: "open it instead",
      });
    return this.#client(adopted);
  }

  async adopt(path: string, options: AdoptOptions = {}): Promise<CairnClient> {
    const adopted = await this.#adopt(path, options);
    const { engineType } = options;
    if (!adopted.created)
      throw new CairnError("already_exists", `${path} is a workspace already`, {
        hint:
          engineType === undefined || engineType === adopted.found.controlFile.engine
            ? "see `cairn status`"
            : `its engine is ${adopted.found.controlFile.engine}; for the other one: \`cairn engine set ${engineType}\``,
      });
    return this.#client(adopted);
  }

  async open(path: string, options: OpenOptions = {}): Promise<CairnClient> {
    const found =
      options.controlDirectory === undefined
        ? findWorkspace(path, { exact: true })
        : openControlDirectory(options.controlDirectory, path);
    if (found === null) {
      const isThere = existsSync(path);
      throw new CairnError(
        "not_a_workspace",
        `${path} ${isThere ? "is not a workspace" : "is not there, and no workspace is known there"}`,
        {
          hint: isThere
            ? "save it once (`cairn save DIR`), or go to a folder that is one; `cairn workspaces` lists them"
            : "name one that is known: `cairn workspaces` lists them; what is to be one has to be there first",
        },
      );
    }
    return this.#opened(found, false);
  }

  async openOrInit(path: string, options: InitOptions = {}): Promise<CairnClient> {
    const found = findWorkspace(path, { exact: true });
    if (found !== null) return this.#opened(found, false);
    return this.#client(await this.#init(path, options));
  }

  async openOrAdopt(path: string, options: AdoptOptions = {}): Promise<CairnClient> {
    const found = findWorkspace(path, { exact: true });
    if (found !== null) return this.#opened(inWantedControl(found, path, options.controlDirectory), false);
    return this.#client(await this.#adopt(path, options));
  }

  async find(path: string, _options: CallOptions = {}): Promise<string | null> {
    return findWorkspace(path)?.folder.toString("utf8") ?? null;
  }

  async listWorkspaces(options: CallOptions = {}): Promise<WorkspaceInfo[]> {
    return listWorkspaces(this.#parts, options);
  }

  async relocate(oldPath: string, newPath: string, options: RelocateOptions = {}): Promise<RelocateResult> {
    return relocate(this.#parts, { from: oldPath, to: newPath, options });
  }

  async inspect(file: string, options: InspectOptions = {}): Promise<InspectResult> {
    return inspect(file, options);
  }

  async forget(path: string, options: CallOptions = {}): Promise<boolean> {
    return forget(path, options);
  }

  async #init(path: string, options: InitOptions): Promise<Adopted> {
    checkOptions(options);
    const adopted = await initSelfContained(path, {
      name: options.name,
      engine: await engineOfNew(path, options),
      populate: populateWith(options),
      guard: (root, chosen) => checkLocation(root, { allow: options.allow, control: chosen?.root }),
    });
    if (adopted.created) await probeReasons(adopted.found);
    return adopted;
  }

  async #adopt(path: string, options: AdoptOptions): Promise<AdoptedHere> {
    checkOptions(options);
    const folder = realFolder(path);
    const probed = await probeEngines(folder, options);
    const engine = options.engineType ?? probed.best;
    const toConvert = options.engineType === "btrfs-snapshot" && isPlainOnBtrfs(folder);
    if (toConvert)
      await requireConvertible(folder, {
        place: placeOfPoints(folder, options.controlDirectory),
        allow: options.allow,
        signal: options.signal,
      });
    else if (options.engineType !== undefined) await requireEngine(path, engine, options);
    const adopted = await adoptFolder(folder, {
      name: options.name,
      engine: toConvert ? "copy" : engine,
      controlDirectory: options.controlDirectory,
      populate: populateWith(options),
      guard: (real, chosen) =>
        checkLocation(real, { allow: options.allow, control: chosen?.root ?? options.controlDirectory }),
      lockTimeoutMs: options.lockTimeoutMs,
      signal: options.signal,
    });
    const moved = adopted.created ? seemsMoved(adopted.found.folder) : null;
    if (moved !== null) options.onWarning?.(moved);
    if (toConvert && adopted.created) return this.#converted(adopted, options);
    if (adopted.created) rememberReasons(adopted.found, adopted.found.controlFile.engine as EngineType, probed.reasons);
    return adopted;
  }

  async #converted(adopted: Adopted, options: AdoptOptions): Promise<AdoptedHere> {
    const { found, conversion } = await convertAdopted(adopted.found, this.#parts, options);
    await probeReasons(found);
    return { ...adopted, found, conversion };
  }

  #client(adopted: AdoptedHere): CairnClient {
    return this.#opened(adopted.found, adopted.created, adopted.conversion);
  }

  #opened(found: FoundWorkspace, created: boolean, conversion?: Conversion): CairnClient {
    const { control, controlFile, workspace } = found;
    if (isBeside(found.recordedControl ?? control.root, found.folder))
      noteSelfContained({
        folder: found.folder,
        control: control.root,
        controlId: controlFile.id,
        workspaceId: workspace.id,
        workspaceName: workspace.name,
      });
    const engineReasons = rememberedReasons(found);
    return new CairnClient({ found, parts: this.#parts, created, engineReasons, conversion });
  }
}

/** With what the folder was converted by, where it had to be. */
type AdoptedHere = Adopted & { conversion?: Conversion };

/** The workspace in the control directory that was named; `conflict` when that one does not keep the folder. */
function inWantedControl(found: FoundWorkspace, path: string, wanted: string | undefined): FoundWorkspace {
  const { root } = found.control;
  if (wanted === undefined || realPathOf(wanted).equals(realPathOf(root))) return found;
  try {
    return openControlDirectory(wanted, path);
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "not_a_workspace") throw error;
    throw new CairnError("conflict", `${path} is kept in ${root}, not in ${wanted}`, {
      hint: "leave --control-dir away; or stop keeping it there first: `cairn release`",
      cause: error,
    });
  }
}

function checkOptions({ name, quotaBytes }: InitOptions): void {
  if (name !== undefined) checkPlainName(name);
  checkedQuota(quotaBytes ?? null);
}

/** Fills a control directory that nobody uses yet. */
function populateWith(options: InitOptions): (staged: ControlPaths) => Promise<void> {
  return async (staged) => {
    await createEmbeddedStore(storePaths(staged.root), ownPolynomial());
    if (options.quotaBytes !== undefined) writePolicy(staged, { ...NO_POLICY, quota_bytes: options.quotaBytes });
  };
}

checkCalls(Library, LIBRARY_VERBS);
