import type { BackupRepository } from "../contract/repositories.ts";
import type { CallOptions } from "../contract/words.ts";
import type { RepositoryInfo } from "../contract/snapshots.ts";
import type { Verb } from "../contract/verb.ts";
import { CairnError } from "../errors.ts";
import type { OpenRepository } from "../backup/open/open-repository.ts";
import { handedOver } from "./handed-over.ts";

/** A row of whatever verb. */
type AnyRow = (access: OpenRepository, ...given: unknown[]) => Promise<unknown>;

/** An open repository as the library gives it: its verbs are those of the contract. */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging
export interface OpenedRepository extends BackupRepository {}

export class OpenedRepository {
  /** @internal For operations that need more than one side. */
  readonly access: OpenRepository;
  /** @internal */
  isClosed = false;

  constructor(access: OpenRepository) {
    this.access = access;
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

  /** @internal Carries a verb out on a view of the repository that belongs to the call. */
  perform({ how }: Verb, row: AnyRow, given: unknown[]): unknown {
    const options = given.at(-1) as CallOptions;
    if (how !== "stream") return this.access.during(options, async (access) => row(access, ...given));
    return handedOver(async (hand) =>
      this.access.during(options, async (access) => void (await row(access, hand, ...given))),
    );
  }
}

/** The repository behind an argument of a call. */
export function accessOf(call: string, repository: BackupRepository): OpenRepository {
  if (repository instanceof OpenedRepository && !repository.isClosed) return repository.access;
  throw new CairnError("usage", `${call} needs a repository that this library has opened and not closed`);
}
