import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  globSync,
  lchownSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, ROOT, SCRATCH } from "../fixtures/command.ts";

const APP = path.join(SCRATCH, "app");
mkdirSync(APP);
cpSync(path.dirname(buildCommand()), path.join(APP, "dist"), { recursive: true });
cpSync(path.join(ROOT, "package.json"), path.join(APP, "package.json"));
symlinkSync(path.join(ROOT, "node_modules"), path.join(APP, "node_modules"));

/** As it is installed: the code is kept in the user's cache. */
function runIn(cache: string, ...args: string[]): void {
  const env: NodeJS.ProcessEnv = { ...process.env, XDG_CACHE_HOME: cache };
  delete env["NODE_COMPILE_CACHE"];
  const { status, stderr } = spawnSync(process.execPath, [path.join(APP, "dist/cli.js"), ...args], {
    encoding: "utf8",
    env,
  });
  assert.equal(status, 0, stderr);
}

const cairn = (...args: string[]): void => runIn(path.join(SCRATCH, "cache"), ...args);

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

const skip = process.geteuid?.() === 0 ? false : "only root may give folders away";
const OTHER_USER = 65_534;

test("a command keeps no code in a cache folder that another user owns or can change", { skip }, (t) => {
  t.after(() => rmSync(path.join(SCRATCH, "caches"), { recursive: true, force: true }));
  const top = path.join(SCRATCH, "caches");
  const [cache, elsewhere] = [path.join(top, "cache"), path.join(top, "elsewhere")];
  const place = path.join(cache, "cairn/compile-cache");
  const of = (folder: string, owner = 0, mode = 0o755): void => {
    mkdirSync(folder, { recursive: true });
    chownSync(folder, owner, owner);
    chmodSync(folder, mode);
  };
  const link = (target: string, name: string, owner = 0): void => {
    symlinkSync(target, name);
    lchownSync(name, owner, owner);
  };
  const cases: Record<string, [keeps: boolean, prepare: () => void]> = {
    "nothing is there yet": [true, () => {}],
    "the cache is another user's": [false, () => of(cache, OTHER_USER)],
    "the cache is a shared temporary folder": [false, () => of(cache, 0, 0o1777)],
    "a shared temporary folder has another user's folder": [
      false,
      () => [of(cache, 0, 0o1777), of(path.join(cache, "cairn"), OTHER_USER)],
    ],
    "a shared temporary folder has root's own folders": [true, () => [of(place), of(cache, 0, 0o1777)]],
    "a group can write above the cache": [false, () => [of(cache), of(top, 0, 0o775)]],
    "Cairn's folder is another user's": [false, () => of(path.join(cache, "cairn"), OTHER_USER)],
    "others can write the folder of compiled code": [false, () => of(place, 0, 0o777)],
    "the folder of this Node is another user's": [false, () => of(path.join(place, "v24"), OTHER_USER)],
    "the folder of this Node is a link": [
      false,
      () => [of(elsewhere), of(place), link(elsewhere, path.join(place, "v24"))],
    ],
    "the cache is root's link to a folder of root's": [true, () => [of(elsewhere), link(elsewhere, cache)]],
    "the cache is root's relative link to a shared folder": [
      false,
      () => [of(elsewhere, 0, 0o1777), link("elsewhere", cache)],
    ],
    "the cache is another user's link to a folder of root's": [
      false,
      () => [of(elsewhere), link(elsewhere, cache, OTHER_USER)],
    ],
    "the cache is a link to itself": [false, () => link(cache, cache)],
  };
  for (const [name, [keeps, prepare]] of Object.entries(cases)) {
    rmSync(top, { recursive: true, force: true });
    mkdirSync(top);
    prepare();
    runIn(cache, "workspaces");
    // Not through a link: what counts is all that the run has left.
    const found = globSync("**/cairn-workspaces-*.cjs", { cwd: existsSync(cache) ? cache : top });
    assert.equal(found.length > 0, keeps, name);
  }
});

test("the folders of kept code are this user's alone, whatever the umask", () => {
  const cache = path.join(SCRATCH, "cache-umask");
  const umask = process.umask(0o002);
  try {
    for (let run = 0; run < 2; run++) runIn(cache, "workspaces");
  } finally {
    process.umask(umask);
  }
  const folders = globSync("cairn/{compile-cache,compile-cache/*}", { cwd: cache });
  assert.equal(folders.length, 2);
  for (const folder of folders) assert.equal(statSync(path.join(cache, folder)).mode & 0o777, 0o700, folder);
  assert.equal(globSync("**/cairn-workspaces-*.code", { cwd: cache }).length, 1, "the second run trusts them");
});

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
