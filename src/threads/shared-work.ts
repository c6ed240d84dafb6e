/** From this on what is left of a directory is worth another thread's waking, by {@link workOf}: less is done before that has begun. */
export const WORTH_SHARING = 128;
/** Content that takes as long to read or write as a small file takes beside its content. */
const BYTES_OF_ONE = 64 * 1024;

/** Returns how much work it is to read or write files, counted in small ones. */
export function workOf(files: number, bytes: number): number {
  return files + bytes / BYTES_OF_ONE;
}
