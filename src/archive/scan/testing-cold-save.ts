import { join } from "node:path";
import { C } from "../cache/scan-table.ts";
import { loadStatCache } from "../cache/stat-cache.ts";
import { EmbeddedStore } from "../../workspace/store/embedded-store.ts";
import { threadsAreWarm } from "../../threads/threads.ts";
import { writeTree } from "../write/write-tree.ts";
import { scan } from "./scan.ts";
import { ScanMemory } from "./scan-memory.ts";

/**
 * The first scan of a process, of a folder that was saved before: CONTROL CACHE ROOT TARGET. Prints how many parts of
 * directories were given away and whether threads were started, and writes the result to TARGET.
 */

const [control = "", cache = "", root = "", target = ""] = process.argv.slice(2);
const store = await EmbeddedStore.open(control);
const { keys, chunkerPolynomial } = store.repository;
store.index.beginSession();
const saved = await scan({
  request: { root: Buffer.from(root), rules: null },
  memory: new ScanMemory(),
  cache: loadStatCache(cache),
  store: { keys, index: store.index, directory: store.paths.temporary },
  chunkerPolynomial,
});
const threads = threadsAreWarm();
await store.publish(saved.packs);
store.index.endSession();
await writeTree({
  keys,
  index: store.index,
  packs: join(store.paths.repository, "data"),
  target: Buffer.from(target),
  tree: saved.tree,
  holes: new Map(),
});
const { control: counts } = saved.table;
process.stdout.write(JSON.stringify({ parts: counts[C.JOBS]! - counts[C.DIRECTORIES]!, threads }));
store.close();
