import { makeCalls } from "../contract/checked-calls.ts";
import type { CairnLibrary, Client } from "../contract/index.ts";
import type { Verb } from "../contract/verb.ts";
import type { StorageFactory } from "../repository/storage/location.ts";
import { type FoundWorkspace } from "../workspace/place/find-workspace.ts";
import { entryOf, noteSelfContained } from "../workspace/place/registry.ts";
import type { WorkspaceParts } from "../workspace/open/workspace.ts";
import { CairnClient } from "./client.ts";
import { rememberedReasons } from "../look/engine-reasons.ts";
import { OpenedRepository } from "../keep/opened-repository.ts";
import type { HowOpened, LibraryHand, TasksOf } from "../keep/hand.ts";
import { CLIENT_VERBS, LIBRARY_VERBS, REPOSITORY_VERBS } from "./index.ts";
import { isBeside } from "../workspace/place/control-directory.ts";

interface LibraryVerb extends Verb {
  run(hand: LibraryHand, ...given: unknown[]): unknown;
}

/** The library, whose methods are verbs. */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging
export interface Library extends CairnLibrary {}

export class Library implements LibraryHand {
  readonly parts: WorkspaceParts;
  readonly openStorage: StorageFactory;

  readonly #tasksOf: TasksOf;

  constructor(parts: WorkspaceParts, openStorage: StorageFactory, tasksOf: TasksOf = () => null) {
    this.parts = parts;
    this.openStorage = openStorage;
    this.#tasksOf = tasksOf;
  }

  /** @internal */
  opened(found: FoundWorkspace, created = false, more: HowOpened = {}): Client {
    if (isBeside(found.recordedControl ?? found.control.root, found.folder)) noteSelfContained(entryOf(found));
    const engineReasons = rememberedReasons(found);
    const { parts, openStorage } = this;
    return new CairnClient({ found, parts, openStorage, tasksOf: this.#tasksOf, created, engineReasons, ...more });
  }

  /** @internal Runs a verb. */
  perform({ run }: LibraryVerb, given: unknown[]): unknown {
    return run(this, ...given);
  }
}

makeCalls(Library, LIBRARY_VERBS, {});
makeCalls(CairnClient, CLIENT_VERBS, {
  read: "stream",
  walk: "stream",
  sealWhenIdle: "at once",
  workspacePath: "at once",
});
makeCalls(OpenedRepository, REPOSITORY_VERBS, { read: "stream", walk: "stream" });
