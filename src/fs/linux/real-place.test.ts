import assert from "node:assert/strict";
import { closeSync, lchownSync, mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { CairnError } from "../../errors.ts";
import { inDirectory, openDirectory, openOwnWay, requireOwnWay, syscalls } from "./syscalls.ts";

const ONLY_ROOT = process.geteuid?.() === 0 ? false : "only root makes links of others";

const isConflict = (error: unknown): boolean => error instanceof CairnError && error.code === "conflict";

function scratch(t: TestContext): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "cairn-real-place-")));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const name of ["h/p/main", "v/main"]) mkdirSync(join(folder, name), { recursive: true });
  return folder;
}

test("openDirectory refuses a path that leads through another user's symbolic link", { skip: ONLY_ROOT }, (t) => {
  const folder = scratch(t);
  for (const [name, target] of [
    ["h/theirs", "../v"],
    ["h/absolute", join(folder, "v")],
    ["h/twice", "theirs"],
  ] as const) {
    symlinkSync(target, join(folder, name));
    if (name !== "h/twice") lchownSync(join(folder, name), 4000, 4000);
    assert.throws(() => openDirectory(join(folder, name, "main")), isConflict, name);
  }
  assert.throws(() => openOwnWay(join(folder, "h/theirs"), 0), isConflict);
});

test("openDirectory refuses this user's symbolic link if it is in another user's folder", { skip: ONLY_ROOT }, (t) => {
  const folder = scratch(t);
  symlinkSync("../v", join(folder, "h/mine"));
  closeSync(openDirectory(join(folder, "h/mine/main")));
  lchownSync(join(folder, "h"), 4000, 4000);
  assert.throws(() => openDirectory(join(folder, "h/mine/main")), isConflict);
  closeSync(openDirectory(join(folder, "h/p/main")));
});

test("openDirectory accepts this user's symbolic links, dots, repeated slashes and /proc/self/fd paths", (t) => {
  const folder = scratch(t);
  symlinkSync("../v/./../v/", join(folder, "h/mine"));
  symlinkSync(join(folder, "h/mine"), join(folder, "h/again"));
  for (const name of ["h/mine/main", "h/again/main/", "h//p/./main", "h/again/../h/p/main/."])
    closeSync(openDirectory(join(folder, "h").slice(0, -1) + name));
  closeSync(openDirectory("/"));
  closeSync(openDirectory("."));
  inDirectory(join(folder, "h"), (fd) => closeSync(openDirectory(`/proc/self/fd/${fd}/p`)));
});

test("requireOwnWay throws conflict if another directory has replaced the opened directory at its path", (t) => {
  const folder = scratch(t);
  const place = join(folder, "h/p/main");
  const fd = openDirectory(place);
  t.after(() => closeSync(fd));
  const sys = syscalls();
  requireOwnWay(sys, fd, place);
  renameSync(join(folder, "h/p"), join(folder, "h/q"));
  assert.throws(() => requireOwnWay(sys, fd, place), { code: "not_found", message: /main name by name: ENOENT$/ });
  symlinkSync("q", join(folder, "h/p"));
  requireOwnWay(sys, fd, place);
  rmSync(join(folder, "h/p"));
  mkdirSync(place, { recursive: true });
  assert.throws(() => requireOwnWay(sys, fd, place), isConflict);
  rmSync(join(folder, "h/p"), { recursive: true });
  renameSync(join(folder, "h/q"), join(folder, "h/p"));
});

test("requireOwnWay throws the system's error, such as ELOOP, if it cannot open the path again", (t) => {
  const folder = scratch(t);
  const links = join(folder, "links");
  mkdirSync(links);
  symlinkSync("../v", join(links, "41"));
  for (let each = 40; each >= 0; each--) symlinkSync(`./${each + 1}/`, join(links, String(each)));
  inDirectory(join(folder, "v/main"), (fd) => {
    requireOwnWay(syscalls(), fd, join(links, "2/main"));
    assert.throws(() => requireOwnWay(syscalls(), fd, join(links, "0/main")), { details: { errno: "ELOOP" } });
    const noMore = { ...syscalls(), open: () => -constants.errno.EMFILE };
    assert.throws(() => requireOwnWay(noMore, fd, join(links, "41/main")), { details: { errno: "EMFILE" } });
  });
});
