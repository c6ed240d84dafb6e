import { workerData } from "node:worker_threads";

// Entry point of the worker threads. Everything else is loaded after the compile cache is on, which halves the start.
const { compileCache } = workerData as { compileCache: string | null };
if (compileCache !== null) process.getBuiltinModule("node:module").enableCompileCache(compileCache);
await import("./thread-main.ts");
