/** Verbs of a repository's snapshots. */
export { list } from "./list.ts";
export { createFromPaths } from "./create-from-paths.ts";
export { createFromStream, createFromCommand } from "./create-from-stream.ts";
export { restore } from "./restore.ts";
export { forget } from "./forget.ts";
export { tag } from "./tag.ts";
export { copyTo } from "./copy-to.ts";
export { rewrite } from "./rewrite.ts";
export { find } from "./find.ts";
export { diff } from "./diff.ts";
export { show } from "./show.ts";
export { walk } from "./walk.ts";
export { read } from "./read.ts";
export { stats } from "./stats.ts";
