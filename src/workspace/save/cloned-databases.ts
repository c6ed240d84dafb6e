import fs from "node:fs";
import { originsBeside } from "../../archive/cache/origins.ts";
import { readHeader, whyHalf } from "../../capture/sqlite/header.ts";
import type { DatabaseCapture } from "../../archive/scan/databases.ts";
import { notTogether, WRITTEN_TO } from "../../archive/scan/summary.ts";
import type { Captured, HolderCall, TreeHolder } from "../../clones/holder.ts";
import { toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import type { ConsistencyLabel, Descriptor } from "../../formats/records/descriptor.ts";
import { beside, besideWhich, LOGS } from "../../formats/sqlite-header.ts";
import { isSuperJournalName, journalsOf, SUPER_JOURNAL_BYTES } from "../../formats/sqlite-journal.ts";
import { rawPath, type RecordedPath, recordPath } from "../../formats/records/record.ts";
import { cloneAnswer, cloneFile } from "../../fs/linux/reflink.ts";
import { openRegular, readRegular } from "../../fs/regular-file.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import type { SaveInput } from "./record-point.ts";
import type { Workspace } from "../open/workspace.ts";
import type { LeftOutEntry } from "../points/left-out.ts";
import { whileStill } from "./still-databases.ts";

const TRIES = 2;

interface ClonedDatabases {
  captured: Captured;
  labels: ConsistencyLabel[];
  /** bytes that were written for databases in use: the clone does not share them with the folder */
  written: number;
}

/** A tree that was made, with the labels of its databases. */
export interface DescribedTree extends ClonedDatabases {
  /** databases that no process wrote to meanwhile */
  still: RecordedPath[];
}

interface TreeToMake extends Pick<HolderCall, "announce"> {
  holder: TreeHolder;
  from: Buffer;
  tree: string;
}

/** Clones a folder. If the clone driver is not atomic, puts a capture of each database in use into the clone. */
export async function withDatabases(
  workspace: Workspace,
  input: Pick<SaveInput, "databases" | "signal"> & { temporary: string },
  { holder, from, tree, announce }: TreeToMake,
): Promise<DescribedTree> {
  const { signal, temporary } = input;
  const capture = async (call: HolderCall): Promise<Captured> =>
    holder.capture(from, tree, { signal, temporary, ...call });
  const { cloned, still, written, journaled } = await whileStill(
    workspace,
    { ...input, holder, from, tree, announce },
    capture,
  );
  const described = holder.atomic
    ? labelSnapshot(cloned, { from, tree: Buffer.from(tree), written, journaled })
    : await withCaptured(workspace, input, { from, tree, cloned });
  return { ...described, still: still.map(recordPath) };
}

async function withCaptured(
  { engine, found }: Workspace,
  { databases, signal }: Pick<SaveInput, "databases" | "signal">,
  { from, tree, cloned }: { from: Buffer; tree: string; cloned: Captured },
): Promise<ClonedDatabases> {
  const isAny = cloned.torn.length + (cloned.logs ?? []).length > 0;
  if (!isAny || databases === "copy" || engine.databases === null) return { captured: cloned, labels: [], written: 0 };
  const scratch = newWorkDirectory(found.control.temporary);
  fs.mkdirSync(scratch, { recursive: true, mode: 0o700 });
  try {
    const made = { captured: cloned, root: from, tree: Buffer.from(tree) };
    return await putDatabases(made, { capture: engine.databases, scratch, signal });
  } finally {
    clearAway(scratch);
  }
}

const CHANGED = "it was changed while it was cloned";

/** Adds labels of torn entries and of databases to a descriptor, and the bytes that were written for databases. */
export function labelled(descriptor: Descriptor, { captured, labels, written }: ClonedDatabases): Descriptor {
  const torn = captured.torn.map((path) => ({ ...recordPath(path), label: "torn-possible", reason: CHANGED }));
  const all: ConsistencyLabel[] = [...torn, ...labels];
  return { ...descriptor, bytes_stored: written, complete: all.every(isNotTorn), labels: all };
}

function isNotTorn({ label }: ConsistencyLabel): boolean {
  return label !== "torn-possible";
}

/** Lists entries, also databases, that changed while they were cloned. */
export function tornIn({ labels }: Pick<Descriptor, "labels">): LeftOutEntry[] {
  return labels.flatMap((label) =>
    label.label === "torn-possible"
      ? [{ path: rawPath(label), reason: "changing" as const, detail: String(label["reason"]) }]
      : [],
  );
}

/**
 * Puts databases that were in use into an entry-by-entry clone, each as it is after a transaction: its own files while
 * they are locked, or an image. Logs and journals become empty. No other process uses the clone yet.
 */
async function putDatabases(
  { captured, root, tree }: { captured: Captured; root: Buffer; tree: Buffer },
  { capture, scratch, signal }: { capture: DatabaseCapture; scratch: string; signal?: AbortSignal | undefined },
): Promise<ClonedDatabases> {
  const { databases, torn } = databasesIn(captured, tree);
  const labels: ConsistencyLabel[] = [];
  let written = 0;
  const put: Put = { inodes: new Set(), tree };
  try {
    for (const place of databases) {
      for (let tries = 1; ; tries++) {
        const how = tries === 1 ? "own" : "image";
        const held = await capture.hold(joinPath(root, place), { signal, how, scratch });
        if (held === null) {
          labels.push({ ...recordPath(place), label: "torn-possible", reason: "it was removed while it was cloned" });
          break;
        }
        let isWhole = true;
        let own = 0;
        try {
          const from = held.image === null ? Buffer.from(joinPath(root, place)) : Buffer.from(held.image);
          const isShared = putContent(place, from, put) && held.image === null;
          if (!isShared) own = fs.statSync(from).size;
          for (const ending of LOGS) {
            const log = Buffer.concat([place, Buffer.from(ending)]);
            const content = held.sidecars.includes(ending) ? beside(from, ending) : null;
            if (isFile(joinPath(tree, log))) putContent(log, content, put);
          }
        } finally {
          isWhole = await held.release();
        }
        failpoint("capture.database-put");
        if (!isWhole && tries < TRIES) continue;
        written += own;
        const { label, reason } = isWhole
          ? held
          : { label: "torn-possible", reason: "it was changed although Cairn held a lock on it" };
        const one = { label, reason };
        const said = databases.length < 2 ? one : notTogether(one);
        labels.push({ ...recordPath(place), label, ...(said.reason === null ? {} : { reason: said.reason }) });
        break;
      }
    }
  } finally {
    await capture.close();
  }
  return {
    captured: {
      ...captured,
      torn,
      ...(captured.origins === undefined ? {} : { origins: originsBeside(captured.origins, put.inodes) }),
    },
    labels,
    written,
  };
}

/**
 * Labels databases that were written to during a snapshot as crash-consistent: the snapshot has all flushed writes of
 * SQLite, in order, and may lack the rest. Without a journal it may have half of a transaction. A super-journal is whole
 * if it has content; then its databases were written to.
 */
function labelSnapshot(
  captured: Captured,
  {
    from,
    tree,
    written,
    journaled,
  }: { from: Buffer; tree: Buffer } & Record<"written" | "journaled", readonly Uint8Array[]>,
): ClonedDatabases {
  const { databases, torn } = databasesIn(captured, tree);
  const whole = torn.filter((path) => isSuperJournalName(path) && journalsIn(joinPath(tree, path)).length > 0);
  const joined = whole.flatMap((path) => databasesOf(path, { from, tree }));
  // An empty file is a new database before its first transaction. With half of that, it may lack its header.
  const half = (place: Buffer): string | null =>
    isFile(place) && fs.lstatSync(place).size > 0 ? whyHalf(place) : null;
  const labels = new Map<string, ConsistencyLabel>();
  for (const place of [...databases, ...joined, ...journaled.filter((place) => isDatabase(joinPath(tree, place)))])
    labels.set(latin1(place), { ...recordPath(place), label: "crash-consistent", reason: WRITTEN_TO });
  for (const place of written) {
    const reason = half(joinPath(tree, place));
    if (reason !== null) labels.set(latin1(place), { ...recordPath(place), label: "torn-possible", reason });
  }
  return {
    captured: { ...captured, torn: torn.filter((path) => !whole.includes(path)) },
    labels: [...labels.values()],
    written: 0,
  };
}

function journalsIn(superJournal: Buffer): Buffer[] {
  return isFile(superJournal) ? journalsOf(readRegular(superJournal)) : [];
}

/** Returns the databases in a tree whose journals a super-journal lists by the folder's path, and its own database. */
function databasesOf(superJournal: Uint8Array, { from, tree }: { from: Buffer; tree: Buffer }): Uint8Array[] {
  const listed = journalsIn(joinPath(tree, superJournal)).flatMap((journal) => {
    const database = besideWhich(journal);
    return database !== null && latin1(database).startsWith(`${latin1(from)}/`)
      ? [database.subarray(from.length + 1)]
      : [];
  });
  return [superJournal.subarray(0, -SUPER_JOURNAL_BYTES), ...listed].filter((path) => isDatabase(joinPath(tree, path)));
}

/** Returns databases in a tree that may have been written to while it was made, and the other torn entries. */
function databasesIn({ torn, logs = [] }: Captured, tree: Buffer): { databases: Buffer[]; torn: Uint8Array[] } {
  const databases = new Map<string, Buffer>();
  const others: Uint8Array[] = [];
  for (const place of [...torn, ...logs]) {
    const own = Buffer.from(besideWhich(place) ?? place);
    if (isDatabase(joinPath(tree, own))) databases.set(latin1(own), own);
    else if (torn.includes(place)) others.push(place);
  }
  return { databases: [...databases.values()], torn: others };
}

function isDatabase(place: Uint8Array): boolean {
  if (!isFile(place)) return false;
  const fd = openRegular(Buffer.from(place));
  try {
    return readHeader(fd) !== null;
  } finally {
    fs.closeSync(fd);
  }
}

interface Put {
  /** inodes of files whose content differs from the files they were cloned from */
  inodes: Set<bigint>;
  tree: Buffer;
}

/**
 * Replaces the content of a file of the clone durably and keeps its times. `content` null: empties the file. True if the
 * file shares its blocks with `content`.
 */
function putContent(place: Buffer, content: Buffer | null, { inodes, tree }: Put): boolean {
  const full = Buffer.from(joinPath(tree, place));
  const { mode, atime, mtime, ino } = fs.statSync(full, { bigint: false });
  inodes.add(BigInt(ino));
  fs.chmodSync(full, mode | 0o600);
  const to = openRegular(full, { flags: fs.constants.O_RDWR });
  try {
    fs.ftruncateSync(to);
    const isShared = content !== null && copyInto(to, content);
    fs.futimesSync(to, atime, mtime);
    fs.fchmodSync(to, mode & 0o7777);
    fs.fsyncSync(to);
    return isShared;
  } finally {
    fs.closeSync(to);
  }
}

/** Returns true if the file was cloned, false if its bytes were copied. */
function copyInto(to: number, content: Buffer): boolean {
  const from = openRegular(content);
  try {
    if (cloneAnswer(cloneFile(from, to)) === "cloned") return true;
    const room = Buffer.allocUnsafe(1 << 20);
    for (let at = 0, length = 0; (length = fs.readSync(from, room, 0, room.length, at)) > 0; at += length)
      for (let done = 0; done < length;) done += fs.writeSync(to, room, done, length - done, at + done);
    return false;
  } finally {
    fs.closeSync(from);
  }
}

function isFile(place: Uint8Array): boolean {
  try {
    return fs.lstatSync(Buffer.from(place)).isFile();
  } catch (error) {
    if (toCairnError(error).code === "not_found") return false;
    throw error;
  }
}
