/** Verbs of a repository's snapshots. */
export { copyTo } from "./copy-to.ts";
export { createFromPaths } from "./create-from-paths.ts";
export { createFromCommand, createFromStream } from "./create-from-stream.ts";
export { DiffBackupsEntry, DiffBackupsOptions, DiffBackupsResult, diff } from "./diff.ts";
export { find } from "./find.ts";
export { forget } from "./forget.ts";
export { list } from "./list.ts";
export { read } from "./read.ts";
export { restore } from "./restore.ts";
export { rewrite } from "./rewrite.ts";
export { show } from "./show.ts";
export { stats } from "./stats.ts";
export { tag } from "./tag.ts";
export { walk } from "./walk.ts";
