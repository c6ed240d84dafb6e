import type { BackupRepository, InitRepositoryOptions, RepositoryOptions } from "../contract/repositories.ts";
import type { CallOptions } from "../contract/words.ts";
import type { RepositoryInfo } from "../contract/snapshots.ts";
import type { Verb } from "../contract/verb.ts";
import { CairnError } from "../errors.ts";
import { OpenRepository } from "../backup/open/open-repository.ts";
import { findWorkspace } from "../workspace/place/find-workspace.ts";
import { learnPolynomial, ownPolynomial } from "../workspace/place/registry.ts";
import { storePolynomial } from "../workspace/store/embedded-store.ts";
import type { WorkspaceParts } from "../workspace/open/workspace.ts";
import type { LibraryHand, RepositoryHand } from "./hand.ts";
import { handedOver } from "../look/handed-over.ts";
import { requireNoMsgvault } from "../look/inspect/msgvault-folder.ts";

/** A verb of a repository with any types. */
interface RepositoryVerb extends Verb {
  needs?: "workspaces";
  run(access: OpenRepository | RepositoryHand, ...given: unknown[]): Promise<unknown>;
}

/** An open repository of the library; its verbs are generated from the contract. */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging
export interface OpenedRepository extends BackupRepository {}

export class OpenedRepository {
  /** @internal The open repository, for operations that also use a workspace or another repository. */
  readonly access: OpenRepository;
  /** @internal */
  isClosed = false;

  readonly #parts: WorkspaceParts;

  constructor(access: OpenRepository, parts: WorkspaceParts) {
    this.access = access;
    this.#parts = parts;
  }

  get info(): RepositoryInfo {
    return this.access.info;
  }

  async close(): Promise<void> {
    this.isClosed = true;
    await this.access.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal Runs a verb on a view of the repository that belongs to the call. */
  perform({ how, needs, run }: RepositoryVerb, given: unknown[]): unknown {
    const options = given.at(-1) as CallOptions;
    const parts = this.#parts;
    if (needs === "workspaces") return this.access.during(options, async (access) => run({ access, parts }, ...given));
    if (how !== "stream") return this.access.during(options, async (access) => run(access, ...given));
    return handedOver(async (hand) =>
      this.access.during(options, async (access) => void (await run(access, hand, ...given))),
    );
  }
}

/** Returns the repository behind an argument of a call. */
export function accessOf(call: string, repository: BackupRepository): OpenRepository {
  if (repository instanceof OpenedRepository && !repository.isClosed) return repository.access;
  throw new CairnError("usage", `${call} needs a repository that this library has opened and not closed`);
}

export async function initRepository(
  { openStorage, parts }: LibraryHand,
  options: InitRepositoryOptions,
): Promise<BackupRepository> {
  await requireNoMsgvault(options.repository, true);
  const found = options.like === undefined ? null : findWorkspace(options.like);
  const polynomial = found === null ? ownPolynomial() : await storePolynomial(found.control.root);
  learnPolynomial(polynomial);
  return new OpenedRepository(await OpenRepository.create(openStorage, options, polynomial), parts);
}

export async function openRepository(
  { openStorage, parts }: Pick<LibraryHand, "openStorage" | "parts">,
  options: RepositoryOptions,
): Promise<BackupRepository> {
  await requireNoMsgvault(options.repository);
  const access = await OpenRepository.open(openStorage, options);
  learnPolynomial(access.repository.chunkerPolynomial);
  return new OpenedRepository(access, parts);
}
