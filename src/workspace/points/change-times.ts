import { existsSync, lstatSync } from "node:fs";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { D, DIRECTORY_FLAG, DIRECTORY_WORDS, R, RECORD_WORDS } from "../../archive/cache/scan-table.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { type MasterKeys, openMessage, sealMessage } from "../../crypto/seal.ts";
import { decodeMasterKeys } from "../../formats/restic/key-file.ts";
import { readSmallFile } from "../../fs/durable.ts";
import { filesystemKind } from "../../fs/linux/mounts.ts";
import { signedWide } from "../../fs/linux/syscalls.ts";
import { readRegular, writeRegular } from "../../fs/regular-file.ts";
import type { FoundWorkspace } from "../place/find-workspace.ts";
import type { Point } from "./point-files.ts";
import type { Points } from "./points.ts";

/**
 * When the entries of a point that changed since the point before it were changed: `times.json` beside the descriptor, written before the
 * commit, and only if agents' hooks save the folder. Without it the time between two saves tells whose a change is.
 */

interface Place {
  readonly found: FoundWorkspace;
  readonly points: Points;
}

interface TimesFile {
  format: "cairn.change-times";
  version: 1;
  /** milliseconds: when the scan began */
  began: number;
  /** pairs of a latin1 path and its change time in milliseconds, as JSON, compressed and sealed with the store's key */
  sealed: string;
}

const MOST_BYTES = 256 << 20;
/** A scan may have begun, or a tree may have been made, so many milliseconds before `created_at` of its point. */
const EARLIER_MS = 60_000;
/** The kernel sets change times by its last tick. */
const TICK_MS = 10;

/** True if the file system of a folder keeps change times by this kernel's clock. */
export function keepsChangeTimes(folder: Buffer): boolean {
  return ["local", "memory"].includes(filesystemKind(folder).place);
}

const keysOf = ({ control }: FoundWorkspace): MasterKeys => decodeMasterKeys(readRegular(control.storeKey));

function read(points: Points, sequence: number): TimesFile | null {
  try {
    const bytes = readSmallFile(points.pathsOf(sequence).times, MOST_BYTES);
    const file = bytes === null ? null : (JSON.parse(bytes.toString("utf8")) as TimesFile);
    return file?.version === 1 ? file : null;
  } catch {
    return null;
  }
}

/** Writes the change times of a scan that becomes the point `sequence`. `root`: the folder whose time the root has; null: unknown. Never throws. */
export function writeChangeTimes(
  { found, points }: Place,
  {
    sequence,
    head,
    scan,
    began,
    root,
  }: { sequence: number; head: Point | null; scan: ScanResult; began: number; root: Buffer | null },
): void {
  if (head === null || !existsSync(found.paths.agentEvents)) return;
  try {
    const since = (read(points, head.sequence)?.began ?? Date.parse(head.descriptor.created_at) - EARLIER_MS) - TICK_MS;
    const times = [...changedSince(scan, since), ...(root === null ? [] : [["", lstatSync(root).ctimeMs] as const])];
    const sealed = sealMessage(keysOf(found), zstdCompressSync(JSON.stringify(times)));
    const file: TimesFile = {
      format: "cairn.change-times",
      version: 1,
      began,
      sealed: Buffer.from(sealed).toString("base64"),
    };
    writeRegular(points.pathsOf(sequence).times, `${JSON.stringify(file)}\n`);
  } catch {
    // The key cannot be read: intervals decide.
  }
}

function* changedSince({ table, old, directories }: ScanResult, since: number): Generator<readonly [string, number]> {
  for (let directory = 0; directory < directories; directory++) {
    const base = directory * DIRECTORY_WORDS;
    const from = table.directories[base + D.FLAGS]! & DIRECTORY_FLAG.SAME ? old! : table;
    const first = table.directories[base + D.FIRST]!;
    for (let record = first; record < first + table.directories[base + D.COUNT]!; record++) {
      const words = record * RECORD_WORDS;
      const at = signedWide(from.records, words + R.CTIME) * 1000 + from.records[words + R.CTIME_NS]! / 1e6;
      if (at < since || from.records[words + R.MODE] === 0) continue;
      const path = table.directoryPath(directory).toString("latin1");
      yield [`${path}${path === "" ? "" : "/"}${from.recordName(record).toString("latin1")}`, Math.floor(at)];
    }
  }
}

/** Returns the change times of a point's entries by latin1 path; null if they are not known. */
export function changeTimesOf({ found, points }: Place, { sequence }: Point): ((path: string) => number | null) | null {
  const file = read(points, sequence);
  if (file === null) return null;
  try {
    const text = zstdDecompressSync(openMessage(keysOf(found), Buffer.from(file.sealed, "base64"))).toString("utf8");
    const times = new Map(JSON.parse(text) as [string, number][]);
    return (path) => times.get(path) ?? null;
  } catch {
    return null;
  }
}

/** Writes the change times of a held tree that was read, if it has them: clones have those of their sources only if these are recorded. */
export function noteTimesOfTree(
  place: Place,
  { sequence, descriptor }: Point,
  { scan, parent }: { scan: ScanResult; parent: Point | null },
): void {
  const { origins, tree } = place.points.pathsOf(sequence);
  const isSnapshot = descriptor.effective_engine === "btrfs-snapshot";
  const began = Date.parse(descriptor.created_at) - EARLIER_MS;
  if (isSnapshot || existsSync(origins))
    writeChangeTimes(place, { sequence, head: parent, scan, began, root: isSnapshot ? Buffer.from(tree) : null });
}
