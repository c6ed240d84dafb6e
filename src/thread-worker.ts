import { workerData } from "node:worker_threads";
import type { ThreadStart } from "./threads/serve.ts";

// Entry point of the worker threads. Everything else is loaded after the compile cache is on, which halves the start.
const { compileCache } = workerData as ThreadStart;
if (compileCache !== null) process.getBuiltinModule("node:module").enableCompileCache(compileCache);
// In dist this is another module, as for the command.
const { main } = await import("./thread-main.ts");
await main();
