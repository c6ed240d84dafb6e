#!/usr/bin/env node
// The first file that runs, also on a Node that is too old to load any other: nothing here may be newer than Node 18.
import { existsSync } from "node:fs";
import nodeModule from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const NEEDED_MAJOR = 24;

/** In a clone the compiled code is kept beside the runtime; elsewhere in the user's own cache, never in a shared temporary folder. */
function compileCacheFolder(): string | undefined {
  const runtime = fileURLToPath(
    new URL(import.meta.url.endsWith(".ts") ? "../../.runtime" : "../.runtime", import.meta.url),
  );
  if (existsSync(runtime)) return path.join(runtime, "compile-cache");
  const home = process.env["HOME"];
  const caches = process.env["XDG_CACHE_HOME"] ?? (home === undefined ? undefined : path.join(home, ".cache"));
  return caches === undefined ? undefined : path.join(caches, "cairn", "compile-cache");
}

if (Number.parseInt(process.versions.node, 10) < NEEDED_MAJOR) {
  process.stderr.write(
    `cairn: Node ${NEEDED_MAJOR} or newer is needed, this is ${process.versions.node} (${process.execPath}).\n` +
      "Install it from https://nodejs.org, or run ./cairn in a clone of the repository: it brings its own.\n",
  );
  process.exitCode = 2;
} else {
  const folder = compileCacheFolder();
  if (folder !== undefined) nodeModule.enableCompileCache(folder);
  await import("./main.ts");
}
