import { bindNativeLater } from "../../native.ts";

const KEEP_SIZE = 1;
const fallocate = bindNativeLater("int fallocate(int fd, int mode, int64_t offset, int64_t length)");

/** Reserves the blocks of an open file's first `length` bytes and keeps its size. False if the file system refuses. */
export function allocate(fd: number, length: number): boolean {
  return length === 0 || fallocate()?.(fd, KEEP_SIZE, 0, length) === 0;
}
