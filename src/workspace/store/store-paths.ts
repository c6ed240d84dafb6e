import path from "node:path";

/** Places of the parts of an embedded store in a control directory, and of the notes in its cache. */
export interface StorePaths {
  repository: string;
  keyFile: string;
  passwordFile: string;
  /** Unfinished files of running processes. */
  temporary: string;
  /** Disposable files: Cairn can make all of them again. */
  cache: string;
  indexCache: string;
  storeSize: string;
  damagedPacks: string;
}

export function storePaths(control: string): StorePaths {
  const cache = path.join(control, "cache");
  return {
    repository: path.join(control, "store"),
    keyFile: path.join(control, "store-key"),
    passwordFile: path.join(control, "store-password"),
    temporary: path.join(control, "tmp"),
    cache,
    indexCache: path.join(cache, "index"),
    storeSize: path.join(cache, "store-size"),
    damagedPacks: path.join(cache, "damaged-packs"),
  };
}
