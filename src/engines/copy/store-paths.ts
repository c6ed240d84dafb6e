import path from "node:path";

/** Where the parts of an embedded store lie in a control directory. */
export interface StorePaths {
  repository: string;
  keyFile: string;
  passwordFile: string;
  /** Unfinished things of processes. */
  temporary: string;
  /** What can be made again. */
  cache: string;
  indexCache: string;
  storeSize: string;
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
  };
}
