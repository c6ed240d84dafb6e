import { createHash, hash } from "node:crypto";
import { closeSync, fstatSync, readSync } from "node:fs";
import type { Pacer } from "../pacer.ts";
import { openRegular } from "./regular-file.ts";
import type { RawPath } from "./paths/safe-path.ts";

const PIECE = 1 << 20;
/** For files that are read between two waits. */
const small = Buffer.allocUnsafe(PIECE);
const oneShot = (bytes: Uint8Array): string => hash("sha256", bytes, "hex");

export interface FileDigest {
  size: number;
  /** Bytes that it takes on the disk; fewer than its size where it has holes. */
  allocated: number;
  sha256: string;
}

/** Reads a regular file for its digest, with pauses for others. Throws as `openRegular` does. */
export async function digestOfFile(file: RawPath, pace: Pacer): Promise<FileDigest> {
  const fd = openRegular(file);
  try {
    const { size, blocks } = fstatSync(fd);
    const piece = size < PIECE ? small : Buffer.allocUnsafe(PIECE);
    let length = readSync(fd, piece, 0, piece.length, null);
    // One read tells of most files that they end there, and their digest is one call.
    if (length < PIECE && length === size)
      return { size, allocated: blocks * 512, sha256: oneShot(piece.subarray(0, length)) };
    const running = createHash("sha256");
    for (; length > 0; length = readSync(fd, piece, 0, piece.length, null)) {
      running.update(piece.subarray(0, length));
      if (piece !== small) await pace();
    }
    return { size, allocated: blocks * 512, sha256: running.digest("hex") };
  } finally {
    closeSync(fd);
  }
}
