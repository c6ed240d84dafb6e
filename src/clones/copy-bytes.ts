import { ENXIO } from "../fs/linux/errno.ts";
import { syscallError, type Syscalls } from "../fs/linux/syscalls.ts";
import { type Arena, newArena } from "../native.ts";

const PIECE = 1024 * 1024;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

let buffer: Arena | undefined;

/**
 * Copies the content of an open file into an empty one, holes left out: 0, or minus errno when the source cannot be
 * read. Throws when the target cannot be written. For files that the file system does not clone.
 */
export function copyContent(
  sys: Syscalls,
  from: number,
  to: number,
  file: { size: number; checkStop(): void; path(): string },
): number {
  buffer ??= newArena(PIECE);
  const { size } = file;
  for (let at = 0; at < size;) {
    const data = sys.seek(from, at, SEEK_DATA);
    if (data === ENXIO) break;
    if (data < 0) return data;
    const hole = sys.seek(from, data, SEEK_HOLE);
    if (hole < 0) return hole;
    const end = Math.min(hole, size);
    for (at = data; at < end;) {
      file.checkStop();
      const n = sys.read(from, buffer, 0, Math.min(PIECE, end - at), at);
      if (n < 0) return n;
      if (n === 0) return 0;
      for (let done = 0; done < n;) {
        const written = sys.write(to, buffer, done, n - done, at + done);
        if (written < 0) throw syscallError(written, `cannot write ${file.path()}`);
        done += written;
      }
      at += n;
    }
    at = Math.max(at, hole);
  }
  const result = sys.ftruncate(to, size);
  if (result < 0) throw syscallError(result, `cannot write ${file.path()}`);
  return 0;
}
