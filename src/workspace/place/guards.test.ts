import type { GuardName } from "../../contract/words.ts";
import { freeSpace } from "../../fs/linux/mounts.ts";
import { CairnError } from "../../errors.ts";
import { makeWorkspace, initSelfContained } from "./make-workspace.ts";
import { checkLocation, checkSpace, quotaReached, realFolder } from "./guards.ts";
import assert from "node:assert/strict";
import fs, { mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { controlDirectoriesInside, ownInside, unregister } from "./registry.ts";

const OPTIONS = { engine: "copy", populate: async () => undefined };

function scratch(context: TestContext): string {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), "cairn-guards-")));
  process.env["XDG_STATE_HOME"] = join(directory, "state");
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function check(path: string, allow: GuardName[] = []): void {
  checkLocation(realFolder(path), { allow });
}

/** Expects `refused` with exit 7, and a hint with the overriding flag, if there is one. */
function isRefused(guard?: GuardName): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CairnError && error.code === "refused", String(error));
    assert.equal(error.exitStatus, 7);
    assert.equal(error.details?.["guard"], guard);
    assert.equal(error.hint?.includes("--allow"), guard !== undefined);
    return true;
  };
}

test("checkLocation accepts an ordinary folder", (context) => {
  const directory = scratch(context);
  mkdirSync(join(directory, "a.git"));
  check(join(directory, "a.git"));
});

test("checkLocation refuses / and paths that are not directories, even if all guards are allowed", (context) => {
  const directory = scratch(context);
  assert.throws(() => check("/", ["home", "nested", "git", "space"]), isRefused());
  writeFileSync(join(directory, "file"), "");
  assert.throws(() => check(join(directory, "file")), isRefused());
  assert.throws(
    () => check(join(directory, "none")),
    (error) => error instanceof CairnError && error.code === "not_found",
  );
  assert.throws(() => checkLocation(Buffer.from("/.cairn/x"), { allow: ["nested"] }), isRefused());
});

test("checkLocation refuses folders in /proc and /sys, even if all guards are allowed", () => {
  for (const path of ["/proc", "/proc/self", "/sys", "/sys/kernel"])
    assert.throws(() => check(path, ["home", "nested", "git", "space"]), isRefused(), path);
});

test("a home directory and folders around it are refused unless the guard home is allowed", (context) => {
  const directory = scratch(context);
  const home = process.env["HOME"];
  context.after(() => {
    if (home === undefined) delete process.env["HOME"];
    else process.env["HOME"] = home;
  });
  process.env["HOME"] = join(directory, "people", "me");
  mkdirSync(join(homedir(), "project"), { recursive: true });
  assert.throws(() => check(homedir()), isRefused("home"));
  assert.throws(() => check(join(directory, "people")), isRefused("home"));
  symlinkSync(homedir(), join(directory, "link"));
  assert.throws(() => check(join(directory, "link")), isRefused("home"));
  check(homedir(), ["home"]);
  check(join(homedir(), "project"));
});

test("a folder inside a .git is refused unless the guard git is allowed", (context) => {
  const path = join(scratch(context), "repo", ".git", "objects");
  mkdirSync(path, { recursive: true });
  assert.throws(() => check(path), isRefused("git"));
  check(path, ["git"]);
  check(join(path, "..", ".."));
});

test("folders inside or around a workspace with points are refused unless the guard nested is allowed", async (context) => {
  const directory = scratch(context);
  mkdirSync(join(directory, "outer", "ws", "inner"), { recursive: true });
  const { found } = await makeWorkspace(join(directory, "outer", "ws"), OPTIONS);
  // Without a point it stands in nobody's way.
  for (const path of ["outer", "outer/ws/inner"]) check(join(directory, path));
  mkdirSync(join(found.paths.points, "0000000001"), { recursive: true });
  for (const path of ["outer", "outer/ws/inner"]) {
    assert.throws(() => check(join(directory, path)), isRefused("nested"), path);
    check(join(directory, path), ["nested"]);
  }
  check(join(directory, "outer", "ws"));
});

test("the check of a folder reads the list of mounts as often beside many workspaces as beside one", async (context) => {
  const directory = scratch(context);
  const read = context.mock.method(fs, "readFileSync");
  syncBuiltinESMExports();
  context.after(() => {
    read.mock.restore();
    syncBuiltinESMExports();
  });
  mkdirSync(join(directory, "other"));
  const counts: number[] = [];
  for (const name of ["a", "b", "c"]) {
    mkdirSync(join(directory, name));
    await makeWorkspace(join(directory, name), OPTIONS);
    read.mock.resetCalls();
    check(join(directory, "other"));
    counts.push(read.mock.calls.filter((call) => call.arguments[0] === "/proc/self/mountinfo").length);
  }
  assert.ok(counts[0]! > 0);
  assert.deepEqual(counts.slice(1), [counts[0], counts[0]]);
});

test("a folder is refused while a workspace with points below it is away, with the ways to forget that workspace", async (context) => {
  const directory = scratch(context);
  const [outer, child] = [join(directory, "outer"), join(directory, "outer/deep/child")];
  mkdirSync(join(child, "part"), { recursive: true });
  const { found } = await makeWorkspace(child, OPTIONS);
  renameSync(join(outer, "deep"), join(directory, "away"));
  check(outer);
  mkdirSync(join(found.paths.points, "0000000001"), { recursive: true });
  assert.throws(() => check(outer), isRefused("nested"));
  assert.throws(
    () => check(outer),
    ({ hint }: CairnError) => hint?.includes(`relocate ${child} NEW`) === true && hint.includes(`release ${child}`),
  );
  check(outer, ["nested"]);
  check(join(directory, "away"));
  symlinkSync("../away", join(outer, "deep"));
  check(join(directory, "away/child"));
  assert.throws(() => check(join(directory, "away/child/part")), isRefused("nested"), "the moved folder's new path");
  rmSync(join(outer, "deep"));
  unregister(child);
  check(outer);
});

test("a folder in a control directory is always refused, a folder around one unless the guard nested is allowed", async (context) => {
  const directory = scratch(context);
  const { found } = await initSelfContained(join(directory, "whole"), OPTIONS);
  for (const path of [found.control.root, found.control.temporary]) {
    assert.throws(() => check(path, ["nested", "home"]), isRefused());
  }
  assert.throws(() => check(join(directory, "whole")), isRefused("nested"));
  check(join(directory, "whole"), ["nested"]);
  assert.deepEqual(controlDirectoriesInside(realFolder(join(directory, "whole"))), [found.control.root]);
  check(join(directory, "whole", "main"));
  mkdirSync(join(directory, "ws"));
  const made = await makeWorkspace(join(directory, "ws"), OPTIONS);
  assert.throws(() => check(made.found.control.temporary, ["nested"]), isRefused());
  assert.throws(() => check(join(directory, "state"), []), isRefused("nested"));
});

test("ownInside lists Cairn's directories in a folder by real path, also if XDG variables name them through a link", (context) => {
  const directory = scratch(context);
  const before = process.env["XDG_CACHE_HOME"];
  context.after(() => {
    if (before === undefined) delete process.env["XDG_CACHE_HOME"];
    else process.env["XDG_CACHE_HOME"] = before;
  });
  const home = join(directory, "home");
  mkdirSync(join(home, "state/cairn"), { recursive: true });
  symlinkSync(home, join(directory, "a-link-to-it"));
  process.env["XDG_STATE_HOME"] = join(directory, "a-link-to-it/state");
  process.env["XDG_CACHE_HOME"] = join(directory, "a-link-to-it/cache");
  const inside = (folder: string): string[] => ownInside(realFolder(folder)).map(String);
  assert.deepEqual(inside(home), [join(home, "state/cairn")]);
  mkdirSync(join(home, "cache/cairn"), { recursive: true });
  assert.deepEqual(inside(home), [join(home, "state/cairn"), join(home, "cache/cairn")]);
  assert.deepEqual(inside(join(home, "cache")), [join(home, "cache/cairn")]);
  // Who keeps the cache itself has asked for that.
  assert.deepEqual(inside(join(home, "cache/cairn")), []);
});

test("checkSpace fails with exit status 8 if space is short, unless the guard space is allowed", (context) => {
  const control = join(scratch(context), "not", "yet");
  checkSpace(control, 1);
  assert.throws(
    () => checkSpace(control, Number.MAX_SAFE_INTEGER),
    (error) => error instanceof CairnError && error.exitStatus === 8 && error.hint?.includes("--allow space") === true,
  );
  const { freeBytes } = freeSpace(tmpdir());
  assert.throws(
    () => checkSpace(control, freeBytes - (1 << 20)),
    (error) =>
      error instanceof CairnError &&
      / free; .* are needed, and Cairn keeps 16 MiB free for other programs$/.test(error.message),
  );
  checkSpace(control, Number.MAX_SAFE_INTEGER, { allow: ["space"] });
});

test("the error of a reached quota names the bytes in the store and the command that raises the quota", () => {
  const use = { quota: 100, usedBytes: 60, addedBytes: 41, points: 2, hasRules: false };
  const { code, hint } = quotaReached("/c", use);
  assert.deepEqual([code, hint?.includes("`cairn cleanup --keep-last 1`")], ["no_space", true]);
  assert.match(quotaReached("/c", { ...use, points: 15 }).hint!, /--keep-last 8`/);
  assert.match(quotaReached("/c", { ...use, points: 400 }).hint!, /--keep-last 10`/);
  const withRules = quotaReached("/c", { ...use, hasRules: true }).hint!;
  assert.match(
    withRules,
    /^the rules of the policy keep the other points: remove some of them \(`cairn cleanup drop POINT`/,
  );
  const first = quotaReached("/c", { ...use, usedBytes: 60_000_000, points: 1 });
  assert.match(
    first.message,
    /; 57\.2 MiB are needed: the store holds 57\.2 MiB and about 41 B would be added; nothing/,
  );
  assert.equal(
    first.hint,
    "raise it with `cairn cleanup policy --quota 63MiB`, or leave some of the folder out: `.cairnignore`",
  );
  assert.match(
    quotaReached("/c", { ...use, addedBytes: null }).message,
    /was stopped when it reached the quota: the store holds 60 B/,
  );
});

test("the error for a missing folder mentions non-UTF-8 names if the path has a replacement character", (context) => {
  const directory = scratch(context);
  const hintFor = (name: string): string | undefined => {
    try {
      realFolder(join(directory, name));
    } catch (error) {
      return (error as CairnError).hint;
    }
    return assert.fail(name);
  };
  assert.equal(hintFor("absent"), undefined);
  assert.match(hintFor("non\uFFFDutf") ?? "", /not UTF-8/);
});

test("a workspace of another state directory of the user is refused unless nested is allowed", async (context) => {
  const directory = scratch(context);
  const [home, folder] = [join(directory, "home"), join(directory, "kept")];
  for (const path of [home, join(folder, "below")]) mkdirSync(path, { recursive: true });
  const before = process.env["HOME"];
  process.env["HOME"] = home;
  context.after(() => (before === undefined ? delete process.env["HOME"] : (process.env["HOME"] = before)));
  const ownState = join(home, ".local/state");
  for (const [state, other] of [
    [join(directory, "state"), ownState],
    [ownState, join(directory, "state")],
  ] as const) {
    process.env["XDG_STATE_HOME"] = state;
    const { found } = await makeWorkspace(folder, OPTIONS);
    process.env["XDG_STATE_HOME"] = other;
    for (const path of [folder, join(folder, "below")]) {
      assert.throws(() => check(path), isRefused("nested"));
      checkLocation(realFolder(path), { control: found.control.root });
      check(path, ["nested"]);
    }
    process.env["XDG_STATE_HOME"] = state;
    const aside = `${found.control.root}-aside`;
    renameSync(found.control.root, aside);
    process.env["XDG_STATE_HOME"] = other;
    check(folder);
    renameSync(aside, found.control.root);
    assert.throws(() => check(folder), isRefused("nested"));
    process.env["XDG_STATE_HOME"] = state;
    unregister(folder);
    process.env["XDG_STATE_HOME"] = other;
    check(folder);
    rmSync(found.control.root, { recursive: true });
  }
});
