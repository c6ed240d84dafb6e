import { createHash, hash } from "node:crypto";
import { closeSync, fstatSync, readSync } from "node:fs";
import type { Pacer } from "../pacer.ts";
import { openRegular } from "./regular-file.ts";
import type { RawPath } from "./paths/safe-path.ts";

const PIECE = 1 << 20;
/** Reused for each file that is smaller than a piece: such a file is read without a pause. */
const reusedPiece = Buffer.allocUnsafe(PIECE);
const oneShot = (bytes: Uint8Array): string => hash("sha256", bytes, "hex");

export interface FileDigest {
  size: number;
  /** Bytes on the disk; fewer than the size if the file has holes. */
  allocated: number;
  sha256: string;
}

/**
 * Reads a regular file for its digest, with pauses for other work. `look` gets each piece in order, valid until it
 * returns. Throws the errors of `openRegular()`.
 */
export async function digestOfFile(file: RawPath, pace: Pacer, look?: (piece: Buffer) => void): Promise<FileDigest> {
  const fd = openRegular(file);
  try {
    const { size, blocks } = fstatSync(fd);
    const piece = size < PIECE ? reusedPiece : Buffer.allocUnsafe(PIECE);
    let length = readSync(fd, piece, 0, piece.length, null);
    // One read reaches the end of most files, and one call makes their digest.
    if (length < PIECE && length === size) {
      look?.(piece.subarray(0, length));
      return { size, allocated: blocks * 512, sha256: oneShot(piece.subarray(0, length)) };
    }
    const running = createHash("sha256");
    for (; length > 0; length = readSync(fd, piece, 0, piece.length, null)) {
      running.update(piece.subarray(0, length));
      look?.(piece.subarray(0, length));
      if (piece !== reusedPiece) await pace();
    }
    return { size, allocated: blocks * 512, sha256: running.digest("hex") };
  } finally {
    closeSync(fd);
  }
}
