import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chownSync, cpSync, globSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, ROOT, SCRATCH } from "../fixtures/command.ts";

/** As it is installed: the code is kept in the user's cache. */
function installed(): (...args: string[]) => void {
  const app = path.join(SCRATCH, "app");
  mkdirSync(app);
  cpSync(path.dirname(buildCommand()), path.join(app, "dist"), { recursive: true });
  cpSync(path.join(ROOT, "package.json"), path.join(app, "package.json"));
  symlinkSync(path.join(ROOT, "node_modules"), path.join(app, "node_modules"));
  const env: NodeJS.ProcessEnv = { ...process.env, XDG_CACHE_HOME: path.join(SCRATCH, "cache") };
  delete env["NODE_COMPILE_CACHE"];
  return (...args) => {
    const { status, stderr } = spawnSync(process.execPath, [path.join(app, "dist/cli.js"), ...args], {
      encoding: "utf8",
      env,
    });
    assert.equal(status, 0, stderr);
  };
}

const cairn = installed();

function keptCode(): Map<string, bigint> {
  const files = globSync(path.join(SCRATCH, "cache/cairn/compile-cache/*/cairn-*.{cjs,code}"));
  return new Map(files.toSorted().map((file) => [file, statSync(file, { bigint: true }).mtimeNs]));
}

/** What is kept once a run leaves it as it is: one may end before its threads have kept all of theirs. */
function settled(run: () => void): Map<string, bigint> {
  for (let times = 0; times < 10; times++) {
    const before = keptCode();
    run();
    const after = keptCode();
    const isSame = before.size === after.size && [...after].every(([file, at]) => before.get(file) === at);
    if (isSame && [...after.keys()].some((file) => file.includes("cairn-thread-main"))) return after;
  }
  throw new Error("each of ten runs has kept something anew");
}

test(
  "a command writes no compiled code into a cache folder that belongs to another user",
  { skip: process.geteuid?.() === 0 ? false : "only root may give folders away" },
  () => {
    const home = path.join(SCRATCH, "cache");
    mkdirSync(home, { recursive: true });
    chownSync(home, 65_534, 65_534);
    cairn("workspaces");
    assert.equal(keptCode().size, 0);
    chownSync(home, 0, 0);
    cairn("workspaces");
    assert.ok(keptCode().size > 0);
  },
);

test("a command runs from its compile cache, and runs if the cache is damaged", () => {
  const folder = path.join(SCRATCH, "work");
  mkdirSync(folder);
  // So many that worker threads look at them, which keep code of their own.
  for (let n = 0; n < 5000; n++) writeFileSync(path.join(folder, `file-${n}`), `${n}`);
  cairn("save", folder);
  const kept = settled(() => cairn("save", folder, "--reread"));
  assert.ok([...kept.keys()].some((file) => /cairn-save-\w+\.code$/.test(file)));
  assert.ok([...kept.keys()].some((file) => /cairn-thread-main-\w+\.code$/.test(file)));
  for (const file of kept.keys()) {
    const bytes = readFileSync(file);
    bytes[bytes.length >> 1]! ^= 0x10;
    writeFileSync(file, bytes);
  }
  cairn("save", folder, "--reread");
  cairn("verify", "-C", folder);
});
