#!/usr/bin/env node
// The first file that runs, even on a too old Node: no imports, and nothing newer than Node 18 before the check.

const NEEDED_MAJOR = 24;

/** In a clone the compiled code is kept beside the runtime; elsewhere in the user's cache, never in a shared temporary folder. */
function compileCacheFolder(): string | undefined {
  const { existsSync } = process.getBuiltinModule("node:fs");
  const { fileURLToPath } = process.getBuiltinModule("node:url");
  const runtime = fileURLToPath(
    new URL(import.meta.url.endsWith(".ts") ? "../../../.runtime" : "../.runtime", import.meta.url),
  );
  if (existsSync(runtime)) return `${runtime}/compile-cache`;
  const { HOME: home, XDG_CACHE_HOME: caches } = process.env;
  // A relative path would depend on the current folder.
  const cache = [caches, home && `${home}/.cache`].find((each) => each?.startsWith("/"));
  return cache && isOwn(cache) ? `${cache}/cairn/compile-cache` : undefined;
}

/** Root may have another user's home. A user who can write compiled code there could run it as root. */
function isOwn(folder: string): boolean {
  const { statSync } = process.getBuiltinModule("node:fs");
  const { dirname } = process.getBuiltinModule("node:path");
  try {
    for (let at = folder; ; at = dirname(at)) {
      const owner = statSync(at, { throwIfNoEntry: false })?.uid;
      if (owner !== undefined) return owner === 0 || owner === process.geteuid?.();
    }
  } catch {
    return false;
  }
}

// Status 2 of a hook makes a tool stop its agent, and any other failure disturbs the turn.
if (process.argv[2] === "agent" && process.argv[3] === "hook") process.on("exit", () => void (process.exitCode = 0));

// Node would open a debugger to all users of the machine. process.ts handles the signal.
process.on("SIGUSR1", () => undefined);

if (Number.parseInt(process.versions.node, 10) < NEEDED_MAJOR) {
  const message = `Node ${NEEDED_MAJOR} or newer is needed, this is ${process.versions.node} (${process.execPath})`;
  const hint = "install it from https://nodejs.org, or use Cairn's archive for Linux or a clone, which bring their own";
  const end = process.argv.indexOf("--");
  if ((end === -1 ? process.argv : process.argv.slice(0, end)).includes("--json")) {
    const error = { code: "unsupported", message, hint, retryable: false };
    const answer = { schema_version: 1, command: null, ok: false, data: null, warnings: [], error };
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  } else process.stderr.write(`cairn: ${message}: ${hint}\n`);
  process.exitCode = 2;
} else {
  const folder = compileCacheFolder();
  if (folder !== undefined) process.getBuiltinModule("node:module").enableCompileCache(folder);
  // In dist this is another module, which loads the command with V8's stored code; see tools/build.ts.
  const { main } = await import("./main.ts");
  await main();
}

export {};
