/** Waking another thread pays if a directory has at least so much work left, as {@link workOf} counts it. */
export const WORTH_SHARING = 128;
/** Bytes of content that take as long as the other work for a small file. */
const BYTES_OF_ONE = 64 * 1024;

/** Returns the work of reading or writing files, counted in small files. */
export function workOf(files: number, bytes: number): number {
  return files + bytes / BYTES_OF_ONE;
}
