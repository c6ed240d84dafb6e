import fs from "node:fs";
import path from "node:path";
import { CairnError, toCairnError } from "../../errors.ts";
import { ASIDE_PREFIX, type ForkRemoval, type PartialFile } from "../../formats/records/partial.ts";
import { workOf } from "../../formats/records/unfinished.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import { nameOf } from "../../fs/linux/exchange-folders.ts";
import { namesIfThere } from "../../fs/paths/names-in.ts";
import { filesystemKind } from "../../fs/linux/mounts.ts";
import { DURABLE, Unfinished } from "../../fs/unfinished.ts";
import { writeRecord } from "./control-directory.ts";
import { livenessOf } from "../../fs/lock-owner.ts";
import type { ControlPaths } from "./control-layout.ts";
import { ownerBesidesUs } from "./owners.ts";

/** Records of folders that are being made elsewhere, or whose making was interrupted. */

/** Prefix of a folder's name until the folder is complete; 16 hex digits follow. */
export const PARTIAL_PREFIX = ".cairn-partial-";
const HINT = `remove that file, and the folder ${PARTIAL_PREFIX}… that it was written for`;

export interface DeadPartial {
  file: string;
  record: PartialFile;
  /** True: the folder got its final name before the process ended. */
  committed: boolean;
}

export interface RecordedPartials {
  readonly partials: { file: string; record: PartialFile }[];
  /** Errors of unreadable records: their folders are unknown. */
  readonly problems: CairnError[];
}

/** All records of unfinished folders, also of processes that still run. */
export function listPartials(control: ControlPaths): RecordedPartials {
  const listed: RecordedPartials = { partials: [], problems: [] };
  let names: string[];
  try {
    names = fs.readdirSync(control.partial);
  } catch {
    return listed;
  }
  for (const name of names) {
    if (!/^[0-9a-f]{16}\.json$/.test(name)) continue;
    const file = path.join(control.partial, name);
    try {
      const record = partialIn(control, file).read();
      if (record !== null) listed.partials.push({ file, record: whereItLies(control, record) });
    } catch (error) {
      listed.problems.push(toCairnError(error));
    }
  }
  return listed;
}

/** Corrects the paths of a view: its control directory may have been moved since. */
function whereItLies({ views }: ControlPaths, record: PartialFile): PartialFile {
  if (record.purpose !== "view") return record;
  const [staging, target] = [record.staging, record.target].map((place) =>
    recordPath(Buffer.concat([Buffer.from(`${views}/`), nameOf(Buffer.from(rawPath(place)))])),
  );
  return { ...record, staging: staging!, target: target! };
}

/** Unfinished folders that killed commands left. */
export interface LeftPartials {
  dead: DeadPartial[];
  /** The error for a folder that an earlier build left, which only that build can finish; null if there is none. */
  earlier: CairnError | null;
}

/** Lists unfinished folders of ended processes. Mostly there are none, which costs one look. Skips other users' folders. */
export function leftPartials(control: ControlPaths): LeftPartials {
  const { partials, problems } = listPartials(control);
  const local = partials.length > 0 && filesystemKind(control.partial).place === "local";
  const dead = partials.flatMap(({ file, record }): DeadPartial[] => {
    if (livenessOf(record.owner, local) !== "dead" || ownerBesidesUs(file) !== null) return [];
    const gone = fs.lstatSync(Buffer.from(rawPath(record.staging)), { throwIfNoEntry: false }) === undefined;
    const there = fs.lstatSync(Buffer.from(rawPath(record.target)), { throwIfNoEntry: false }) !== undefined;
    return [{ file, record, committed: record.moving === true || (gone && there) }];
  });
  return { dead, earlier: problems.find(({ code }) => code === "refused") ?? null };
}

/** Forks that are being removed, by processes that run or have ended. */
export function listRemovals(control: ControlPaths): {
  removals: { file: string; record: ForkRemoval }[];
  problems: CairnError[];
} {
  const removals: { file: string; record: ForkRemoval }[] = [];
  const problems: CairnError[] = [];
  for (const name of namesIfThere(control.partial).filter((each) => /^fork-[0-9a-f]{16}\.json$/.test(each))) {
    const file = path.join(control.partial, name);
    try {
      const record = removalIn(control, file).read();
      if (record !== null) removals.push({ file, record });
    } catch (error) {
      problems.push(toCairnError(error));
    }
  }
  return { removals, problems };
}

/** Lists removals of forks that commands left. Skips other users' removals. */
export function leftRemovals(control: ControlPaths): { file: string; record: ForkRemoval }[] {
  const { removals } = listRemovals(control);
  const local = removals.length > 0 && filesystemKind(control.partial).place === "local";
  return removals.filter(
    ({ file, record }) =>
      (record.rest === true || livenessOf(record.owner, local) === "dead") && ownerBesidesUs(file) === null,
  );
}

/** The record of a fork that is being removed. */
export function removalIn(control: ControlPaths, file: string): Unfinished<ForkRemoval> {
  const work = workOf(
    "fork-removal",
    `remove that file; the fork's folder may lie beside its path, as ${ASIDE_PREFIX}…`,
  );
  return new Unfinished(file, work, { carrier: carrierIn(control) });
}

function carrierIn(control: ControlPaths): typeof DURABLE {
  return { ...DURABLE, write: (file, bytes) => writeRecord(control, file, bytes) };
}

/** The record of a new folder. Writers of a control directory share no lock for such records. */
export function partialIn(control: ControlPaths, file: string): Unfinished<PartialFile> {
  const work = workOf("new-folder", HINT);
  const decode = (bytes: Uint8Array): PartialFile => requireOwnName(work.decode(bytes));
  return new Unfinished(file, { ...work, decode }, { carrier: carrierIn(control) });
}

function requireOwnName(record: PartialFile): PartialFile {
  if (!isStaging(record)) throw new CairnError("damaged", "its staging folder has a name that Cairn never gives");
  return record;
}

/** Cairn removes a staging folder only if it has a name that Cairn gives. */
function isStaging(record: PartialFile): boolean {
  const staging = Buffer.from(rawPath(record.staging));
  const target = Buffer.from(rawPath(record.target));
  const name = staging.subarray(target.length).toString("latin1");
  return (
    staging.subarray(0, target.length).equals(target) && new RegExp(`^/?\\${PARTIAL_PREFIX}[0-9a-f]{16}$`).test(name)
  );
}
