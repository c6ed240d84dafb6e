import fs from "node:fs";
import path from "node:path";
import { CairnError, toCairnError } from "../../errors.ts";
import { ASIDE_PREFIX, type ForkRemoval, type PartialFile } from "../../formats/records/partial.ts";
import { workOf } from "../../formats/records/unfinished.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import { nameOf } from "../../fs/linux/exchange-folders.ts";
import { namesIfThere, namesIn } from "../../fs/paths/names-in.ts";
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

interface Recorded<T> {
  readonly records: { file: string; record: T }[];
  /** Errors of unreadable records: their folders are unknown. */
  readonly problems: CairnError[];
}

/** Reads the records whose file names match a pattern. `names`: of the files in a directory. */
function readRecords<T>(
  directory: string,
  names: readonly string[],
  { pattern, open }: { pattern: RegExp; open(file: string): Unfinished<T> },
): Recorded<T> {
  const found: Recorded<T> = { records: [], problems: [] };
  for (const name of names.filter((each) => pattern.test(each))) {
    const file = path.join(directory, name);
    try {
      const record = open(file).read();
      if (record !== null) found.records.push({ file, record });
    } catch (error) {
      found.problems.push(toCairnError(error));
    }
  }
  return found;
}

/** All records of unfinished folders, also of processes that still run. */
export function listPartials(control: ControlPaths): Recorded<PartialFile> {
  const { records, problems } = readRecords(control.partial, namesIn(control.partial), {
    pattern: /^[0-9a-f]{16}\.json$/,
    open: (file) => partialIn(control, file),
  });
  return { records: records.map(({ file, record }) => ({ file, record: whereItLies(control, record) })), problems };
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
  const { records, problems } = listPartials(control);
  const local = records.length > 0 && filesystemKind(control.partial).place === "local";
  const dead = records.flatMap(({ file, record }): DeadPartial[] => {
    if (livenessOf(record.owner, local) !== "dead" || ownerBesidesUs(file) !== null) return [];
    const gone = fs.lstatSync(Buffer.from(rawPath(record.staging)), { throwIfNoEntry: false }) === undefined;
    const there = fs.lstatSync(Buffer.from(rawPath(record.target)), { throwIfNoEntry: false }) !== undefined;
    return [{ file, record, committed: record.moving === true || (gone && there) }];
  });
  return { dead, earlier: problems.find(({ code }) => code === "refused") ?? null };
}

/** Forks that are being removed, by processes that run or have ended. */
export function listRemovals(control: ControlPaths): Recorded<ForkRemoval> {
  return readRecords(control.partial, namesIfThere(control.partial), {
    pattern: /^fork-[0-9a-f]{16}\.json$/,
    open: (file) => removalIn(control, file),
  });
}

/** Lists removals of forks that commands left. Skips other users' removals. */
export function leftRemovals(control: ControlPaths): Recorded<ForkRemoval>["records"] {
  const { records } = listRemovals(control);
  const local = records.length > 0 && filesystemKind(control.partial).place === "local";
  return records.filter(
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
