import { EngineClauses, type EngineSubject } from "../../../test/fixtures/engine-clauses.ts";
import { cleanupClauses } from "./contract/cleanup.contract.ts";
import { corpusClauses } from "./contract/corpus.contract.ts";
import { fullDiskClauses } from "./contract/full-disk.contract.ts";
import { heldTreeClauses } from "./contract/held-trees.contract.ts";
import { holderClauses } from "./contract/holders.contract.ts";
import { killRemovalClauses } from "./contract/kill-removals.contract.ts";
import { killRestoreClauses } from "./contract/kill-restores.contract.ts";
import { killSaveClauses } from "./contract/kill-saves.contract.ts";
import { momentClauses } from "./contract/moments.contract.ts";
import { readerClauses } from "./contract/readers.contract.ts";
import { stateClauses } from "./contract/states.contract.ts";

/**
 * The contract of all engines, on real file systems with real processes. The clauses lie here, beside the engines. The
 * few lines per engine lie in test/engines: they take minutes, and `npm run ok` runs every test of src.
 */
const CLAUSES = {
  states: stateClauses,
  corpus: corpusClauses,
  moments: momentClauses,
  holders: holderClauses,
  "held-trees": heldTreeClauses,
  "full-disk": fullDiskClauses,
  readers: readerClauses,
  cleanup: cleanupClauses,
  "kill-saves": killSaveClauses,
  "kill-removals": killRemovalClauses,
  "kill-restores": killRestoreClauses,
};

export type ClauseGroup = keyof typeof CLAUSES;

/** Registers all clauses, or some groups if the others give the same result as on another file system. */
export function engineContract(subject: EngineSubject, only?: readonly ClauseGroup[]): void {
  const clauses = new EngineClauses(subject);
  for (const group of only ?? (Object.keys(CLAUSES) as ClauseGroup[])) CLAUSES[group](clauses);
}
