import { createHash } from "node:crypto";
import { closeSync, fstatSync, readSync } from "node:fs";
import type { Pacer } from "../pacer.ts";
import { openRegular } from "./regular-file.ts";
import type { RawPath } from "./safe-path.ts";

const PIECE = 1 << 20;

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
    const hash = createHash("sha256");
    const piece = Buffer.allocUnsafe(Math.min(PIECE, size + 1));
    for (;;) {
      const length = readSync(fd, piece, 0, piece.length, null);
      if (length === 0) break;
      hash.update(piece.subarray(0, length));
      await pace();
    }
    return { size, allocated: blocks * 512, sha256: hash.digest("hex") };
  } finally {
    closeSync(fd);
  }
}
