import fs from "node:fs";
import { openRegular } from "../../fs/regular-file.ts";
import type { Captured, CaptureRequest } from "./captured.ts";
import { beside, type DatabaseHeader, LOGS, type SIDECARS } from "../../formats/sqlite-header.ts";
import { forgetFile } from "../../fs/linux/flush.ts";
import { inFile, isBeingWritten, isShort, readHeader, whyHalf } from "./header.ts";
import { clearLockPage, copyBytes, hashOf } from "./image.ts";

/** Endings of the files that a plain copy of a database includes. */
const COPIED = ["", ...LOGS] as const;
const TRIES = 3;
/** The usual way where SQLite's locks cannot keep writers off. */
const UNCACHED_TRIES = 8;

/** Size of a sidecar of a database; null if there is none. */
export function sizeOf(path: Uint8Array, ending: (typeof SIDECARS)[number]): number | null {
  return fs.statSync(beside(path, ending), { throwIfNoEntry: false })?.size ?? null;
}

const CHANGED = "the file was changed while it was copied";
/** A file system that remembers sizes for a while may show the old size of a file that grew. */
const SHORT = "the file is shorter than its header says";

/**
 * Copies a file with its sidecars, without SQLite; `fd` is the open file. The copy is crash-consistent if sizes, times
 * and all bytes are the same before and after, torn-possible if every try finds a difference, or if a program is in a
 * transaction and the copy has no journal of it. `isUncached`: each reading asks the server of the file system.
 */
export async function plainCopy(
  fd: number,
  { path, stage }: Pick<CaptureRequest, "path" | "stage">,
  { header, reason, isUncached = false }: { header: DatabaseHeader | null; reason: string; isUncached?: boolean },
): Promise<Captured> {
  const wasWritten = isBeingWritten(fd);
  const walBefore = sizeOf(path, "-wal") ?? 0;
  const pageSize = header?.page_size ?? null;
  let copied = await copyOnce(fd, path, { stage, pageSize, isUncached });
  for (let tries = 1; !copied.isSame && tries < (isUncached ? UNCACHED_TRIES : TRIES); tries++)
    copied = await copyOnce(fd, path, { stage, pageSize, isUncached });
  const { isSame, bytes, sha256, sidecars } = copied;
  const image = Buffer.from(`${stage}/image`);
  const isWritten = header?.journal_mode === "rollback" && (wasWritten || isBeingWritten(fd));
  const half = isSame && isWritten ? whyHalf(image) : null;
  const isCut = (): boolean => isUncached && isShort(image, inFile(image, readHeader), bytes);
  const why = !isSame ? CHANGED : (half ?? (isCut() ? SHORT : null));
  return {
    label: why === null ? "crash-consistent" : "torn-possible",
    method: "copy",
    reason: why === null ? reason : `${reason}; and ${why}`,
    bytes,
    page_size: header?.page_size ?? null,
    // The header's count is that of the last transaction that ended.
    pages: header === null ? null : Math.floor(bytes / header.page_size),
    sha256,
    held_ms: 0,
    wal_bytes_before: walBefore,
    wal_bytes_after: sizeOf(path, "-wal") ?? 0,
    statistics: null,
    problems: null,
    warnings: [],
    sidecars,
  };
}

type Copied = Pick<Captured, "bytes" | "sha256" | "sidecars"> & { isSame: boolean };

async function copyOnce(
  fd: number,
  path: Uint8Array,
  { stage, pageSize, isUncached }: { stage: string; pageSize: number | null; isUncached: boolean },
): Promise<Copied> {
  for (const ending of COPIED) fs.rmSync(`${stage}/image${ending}`, { force: true });
  const before = looksOfFiles(path);
  const sources: { ending: (typeof COPIED)[number]; from: number; sha256: string }[] = [];
  try {
    for (const ending of COPIED) {
      const from = ending === "" ? fd : openSidecar(path, ending);
      if (from === null) continue;
      sources.push({ ending, from, sha256: "" });
      if (isUncached) forgetFile(from);
      const gap = ending === "" ? pageSize : null;
      sources.at(-1)!.sha256 = await copyFile(from, `${stage}/image${ending}`, gap);
    }
    let isSame = true;
    for (const { ending, from, sha256 } of sources) {
      if (isUncached) forgetFile(from);
      isSame &&= (await hashOf(from, ending === "" ? pageSize : null)) === sha256;
    }
    return {
      isSame: isSame && looksOfFiles(path) === before,
      bytes: fs.statSync(`${stage}/image`).size,
      sha256: sources[0]!.sha256,
      sidecars: sources.flatMap(({ ending }) => (ending === "" ? [] : [ending])),
    };
  } finally {
    for (const { from } of sources) if (from !== fd) fs.closeSync(from);
  }
}

function openSidecar(path: Uint8Array, ending: string): number | null {
  try {
    return openRegular(beside(path, ending));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/** Copies an open file, flushes the copy, and returns its hash. */
async function copyFile(from: number, to: string, pageSize: number | null): Promise<string> {
  const fd = fs.openSync(to, "wx+", 0o600);
  try {
    await copyBytes(from, fd, fs.fstatSync(from).size).catch((error: unknown) => {
      // The file was truncated meanwhile, which the second comparison finds.
      if ((error as NodeJS.ErrnoException).code !== undefined) throw error;
    });
    if (pageSize !== null) clearLockPage(fd, pageSize);
    fs.fsyncSync(fd);
    return await hashOf(fd, pageSize);
  } finally {
    fs.closeSync(fd);
  }
}

/** Inodes, sizes and times of a database's file, log and journal, as one text to compare. */
export function looksOfFiles(path: Uint8Array): string {
  const looks = COPIED.map((ending) => {
    const facts = fs.statSync(beside(path, ending), { bigint: true, throwIfNoEntry: false });
    return facts === undefined ? "-" : [facts.ino, facts.size, facts.mtimeNs, facts.ctimeNs].join();
  });
  return looks.join(" ");
}
