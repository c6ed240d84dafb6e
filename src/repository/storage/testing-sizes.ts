import type { StoredFile } from "./storage.ts";

/** Returns the names and sizes of a list: the storage's times differ in each run. */
export function sizesOf(files: readonly StoredFile[]): { name: string; size: number }[] {
  return files.map(({ name, size }) => ({ name, size }));
}
