import { existsSync } from "node:fs";
import { databasesAmong, inWords, QuietDatabase } from "../../capture/sqlite/quiet-database.ts";
import { inFile, readHeader } from "../../capture/sqlite/header.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { beside, besideWhich, mayBeDatabase } from "../../formats/sqlite-header.ts";
import type { Step } from "../points/steps.ts";

const TYPE_MASK = 0xf000;
const REGULAR = 0x8000;

/** A step that makes, replaces or removes a database or a sidecar. */
export type DatabaseStep = Extract<Step, { op: "put" | "remove" }>;

/** The steps of one database, its sidecars first: a new database never lies beside an old log. */
export interface StepsOfDatabase {
  /** Absolute raw path. */
  place: Uint8Array;
  steps: DatabaseStep[];
}

/** Groups the steps by database. The steps of one database are done together while no process has it open. */
export class DatabaseSteps {
  readonly #groups = new Map<string, StepsOfDatabase>();
  readonly #root: Uint8Array;

  constructor(root: Uint8Array) {
    this.#root = root;
  }

  add(step: Step): void {
    if (step.op !== "put" && step.op !== "remove") return;
    const { path, old } = step;
    const database = besideWhich(path);
    const isOne = old !== null && (old.mode & TYPE_MASK) === REGULAR && mayBeDatabase(old);
    if (database === null && !isOne) return;
    const key = latin1(database ?? path);
    const group: StepsOfDatabase = this.#groups.get(key) ?? {
      place: joinPath(this.#root, database ?? path),
      steps: [],
    };
    if (database === null) group.steps.push(step);
    else group.steps.unshift(step);
    this.#groups.set(key, group);
  }

  /** Returns for each step's path (latin1) the steps of its database. */
  found(): Map<string, StepsOfDatabase> {
    const groups = [...this.#groups.values()];
    const are = new Set(databasesAmong(groups.map(({ place }) => place)));
    return new Map(
      groups.flatMap((group) =>
        are.has(group.place) ? group.steps.map(({ path }) => [latin1(path), group] as const) : [],
      ),
    );
  }
}

/** Holds a database while its steps are done. Returns the reason as text if it cannot be held. */
export function holdDatabase({ place }: StepsOfDatabase): QuietDatabase | string {
  const held = QuietDatabase.hold(place);
  return held instanceof QuietDatabase ? held : `the database ${inWords(held)}`;
}

/**
 * Returns the raw path of a log's index that would stay after its database is removed, because no point has it. Call
 * this before the removal.
 */
export function indexOfRemoved({ place, steps }: StepsOfDatabase): Buffer | null {
  const { op, path } = steps.at(-1)!;
  if (op !== "remove" || besideWhich(path) !== null || !existsSync(beside(place, "-shm"))) return null;
  try {
    return inFile(place, readHeader) === null ? null : beside(path, "-shm");
  } catch {
    return null;
  }
}
