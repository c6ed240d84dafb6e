import { makeCalls } from "../../contract/checked-calls.ts";
import { CLIENT_VERBS, type CairnLibrary, type Client, LIBRARY_VERBS } from "../../contract/index.ts";
import { REPOSITORY_VERBS } from "../../contract/repositories.ts";
import type { Verb } from "../../contract/verb.ts";
import type { StorageFactory } from "../../repository/storage/location.ts";
import { type FoundWorkspace } from "../../workspace/place/find-workspace.ts";
import { noteSelfContained } from "../../workspace/place/registry.ts";
import type { WorkspaceParts } from "../../workspace/open/workspace.ts";
import { CairnClient } from "../client.ts";
import { rememberedReasons } from "../engine.ts";
import { LIBRARY_ROWS } from "./library.ts";
import { OpenedRepository } from "../opened-repository.ts";
import { REPOSITORY_ROWS } from "./repository.ts";
import { CARE_ROWS } from "./repository-care.ts";
import * as settingUp from "../set-up.ts";
import type { HowOpened, LibraryHand, LibraryRows, RepositoryRows } from "./row.ts";
import { CLIENT_ROWS } from "./client.ts";
import { isBeside } from "../../workspace/place/control-directory.ts";

/** Verbs that need no open workspace: rows of a table. */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging
export interface Library extends CairnLibrary {}

export class Library implements LibraryHand {
  readonly parts: WorkspaceParts;
  readonly openStorage: StorageFactory;

  constructor(parts: WorkspaceParts, openStorage: StorageFactory) {
    this.parts = parts;
    this.openStorage = openStorage;
  }

  /** @internal */
  opened(found: FoundWorkspace, created = false, more: HowOpened = {}): Client {
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
    return new CairnClient({ found, parts: this.parts, created, engineReasons, ...more });
  }

  /** @internal Carries a verb out. */
  perform(_verb: Verb, row: (hand: LibraryHand, ...given: unknown[]) => unknown, given: unknown[]): unknown {
    return row(this, ...given);
  }
}

makeCalls(Library, LIBRARY_VERBS, { ...LIBRARY_ROWS, ...settingUp } satisfies LibraryRows);
makeCalls(CairnClient, CLIENT_VERBS, CLIENT_ROWS);
makeCalls(OpenedRepository, REPOSITORY_VERBS, { ...REPOSITORY_ROWS, ...CARE_ROWS } satisfies RepositoryRows);
