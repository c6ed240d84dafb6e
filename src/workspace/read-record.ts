import { CairnError, toCairnError } from "../errors.ts";
import { readSmallFile } from "../fs/durable.ts";

export interface ReadOptions {
  maxBytes?: number;
  /** What to do about a file that is damaged. */
  hint?: string;
}

/** What `decode` makes of a file, null where there is none. Throws what `decode` throws, with the file's path. */
export function readRecord<T>(path: string, decode: (bytes: Uint8Array) => T, options: ReadOptions = {}): T | null {
  const { maxBytes = 16 << 20, hint = "see `cairn doctor`" } = options;
  const bytes = readSmallFile(path, maxBytes);
  if (bytes === null) return null;
  try {
    return decode(bytes);
  } catch (error) {
    const failed = toCairnError(error);
    throw new CairnError(failed.code, `${path}: ${failed.message}`, { hint: failed.hint ?? hint, cause: error });
  }
}
