#!/usr/bin/env node
// The first file that runs, even on a too old Node: nothing newer than Node 18 before the check. In dist it has its imports in it.
import { VERSION } from "../../formats/program.ts";

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
  return cache && isOwn(`${cache}/cairn/compile-cache`) ? `${cache}/cairn/compile-cache` : undefined;
}

/**
 * True if only this user and root can change `folder`, the folders in it and the way to it: another user who can put
 * compiled code there could run it as this user. Root may have another user's home.
 */
function isOwn(folder: string): boolean {
  const { lstatSync, readdirSync, readlinkSync } = process.getBuiltinModule("node:fs");
  const { resolve } = process.getBuiltinModule("node:path");
  const isOwned = ({ uid }: { uid: number }): boolean => uid === 0 || uid === process.geteuid?.();
  const isShared = ({ mode }: { mode: number }): boolean => (mode & 0o22) !== 0;
  const isSafe = (at: string, links: number): boolean => {
    const names = at.split("/");
    let mayOthersAdd = false;
    for (let count = 1; count <= names.length; count++) {
      const part = names.slice(0, count).join("/") || "/";
      const found = lstatSync(part, { throwIfNoEntry: false });
      if (found === undefined) return !mayOthersAdd;
      if (!isOwned(found)) return false;
      if (found.isSymbolicLink())
        return links > 0 && isSafe(resolve(part, "..", readlinkSync(part), ...names.slice(count)), links - 1);
      mayOthersAdd = isShared(found);
      // In a sticky folder others can add a name, and can neither remove nor replace one of this user.
      if (mayOthersAdd && (found.mode & 0o1000) === 0) return false;
    }
    const inside = readdirSync(at).map((name) => lstatSync(`${at}/${name}`));
    return !mayOthersAdd && inside.every((found) => isOwned(found) && !isShared(found));
  };
  try {
    return isSafe(resolve(folder), 40);
  } catch {
    return false;
  }
}

// Status 2 of a hook makes a tool stop its agent, and any other failure disturbs the turn.
const first = ["-C", "--directory"].includes(process.argv[2]!) ? 4 : 2;
const isHook = process.argv.slice(first, first + 2).join(" ") === "agent hook";
if (isHook) process.on("exit", () => void (process.exitCode = 0));
if (isHook && process.argv.includes("--if-covered")) {
  const { hasNothingToDo } = await import("../../agents/hook-start.ts");
  if (hasNothingToDo(process.argv.slice(first))) process.exit();
}

// Node sets ignored signals to their defaults; the launchers name them in hex. The variable goes on to programs that are
// started, so that they can be started alike.
const ignored = Number.parseInt(process.env["CAIRN_IGNORED"]?.slice(-8) ?? "", 16) & 0x4003;
if (ignored === 0) delete process.env["CAIRN_IGNORED"];
for (const [bit, signal] of [
  [0, "SIGHUP"],
  [1, "SIGINT"],
  [14, "SIGTERM"],
] as const)
  if (((ignored >> bit) & 1) === 1) process.on(signal, () => undefined);

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
} else if (process.argv.length === 3 && ["--version", "-V"].includes(process.argv[2]!)) {
  // No other module is needed.
  process.stdout.write(`${VERSION}\n`);
} else {
  const folder = compileCacheFolder();
  if (folder !== undefined) {
    // Node makes folders that the user's group may write, if the umask says so.
    const umask = process.umask(0o77);
    process.getBuiltinModule("node:module").enableCompileCache(folder);
    process.umask(umask);
  }
  // In dist this is another module, which loads the command with V8's stored code; see tools/build.ts.
  const { main } = await import("./main.ts");
  await main();
}
