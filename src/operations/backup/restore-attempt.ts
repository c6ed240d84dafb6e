import { lstatSync } from "node:fs";
import type { WriteTreeResult } from "../../engines/write/write-tree.ts";
import { CairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { DeadPartial } from "../../workspace/partial-folder.ts";
import type { RestoreBackupOptions } from "../contract.ts";
import type { FetchArea } from "./fetch-area.ts";

/** How a restore is tried. */
export interface Attempt {
  area: FetchArea | null;
  /** Unfinished folders beside the target. */
  left: readonly DeadPartial[];
  /** Each piece of content with its id. False leaves that to the proof of the whole, where there is one: a piece with a right seal is another one than it should be next to never. */
  comparesPieces: boolean;
  /** What came of an attempt that left it to the proof. */
  earlier?: NotAllCompared;
}

/** A proof of the whole does not tell of each piece that it is right. Its message says why. */
export class NotAllCompared extends CairnError {
  /** What the restore ends with unless the repository is at fault; null where nothing is known to be wrong. */
  readonly #failure: CairnError | null;
  readonly #wrong: readonly Uint8Array[];

  /** `wrong`: raw paths of what reads back otherwise, with what the restore would end with for it. */
  constructor(known: { failure: CairnError; wrong: readonly Uint8Array[] } | null) {
    super(known?.failure.code ?? "damaged", known?.failure.message ?? "not all that was written may be read again");
    this.#failure = known?.failure ?? null;
    this.#wrong = known?.wrong ?? [];
  }

  /** Once each piece was compared: throws the failure where not all that was wrong is `damaged`, since then this machine, or somebody, has made another thing of it. */
  settle({ damaged }: WriteTreeResult): void {
    if (this.#failure === null) return;
    const lost = new Set(damaged.map(({ path }) => latin1(path)));
    if (!this.#wrong.every((path) => lost.has(latin1(path)))) throw this.#failure;
  }
}

/** Whether pieces of what may not be read again were compared all the same: those of files that their owner may not read are. `path`: raw, below the folder. */
export function isComparedAsWritten(folder: Buffer, path: Uint8Array): boolean {
  try {
    const facts = lstatSync(Buffer.concat([folder, SLASH, path]));
    return facts.isFile() && (facts.mode & 0o400) === 0;
  } catch {
    return false;
  }
}

/** The same options with a warning that is given again said once. */
export function warningOnce(options: RestoreBackupOptions): RestoreBackupOptions {
  const said = new Set<string>();
  const onWarning = (message: string): void => {
    if (said.has(message)) return;
    said.add(message);
    options.onWarning?.(message);
  };
  return { ...options, onWarning };
}

const SLASH = Buffer.from("/");
