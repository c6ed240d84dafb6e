import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { type Cover, coverageOf, repositoryOf } from "./covered.ts";

interface Scene {
  at(name: string): string;
  /** Runs git in a folder, by its name. */
  git(name: string, ...words: string[]): void;
  /** A repository with one commit. */
  repository(name: string, ...how: string[]): void;
}

function scene(t: TestContext): Scene {
  const root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "cairn-covered-")));
  t.after(() => fs.rmSync(root, { recursive: true }));
  const at = (name: string): string => path.join(root, name);
  const who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "protocol.file.allow=always"];
  const git: Scene["git"] = (name, ...words) =>
    void execFileSync("git", ["-C", at(name), ...who, ...words], {
      stdio: "ignore",
      env: { ...process.env, HOME: root },
    });
  const repository: Scene["repository"] = (name, ...how) => {
    fs.mkdirSync(at(`${name}/sub`), { recursive: true });
    fs.writeFileSync(at(`${name}/sub/file`), name);
    git(name, "init", "--quiet", ...how);
    git(name, "add", "--all");
    git(name, "commit", "--quiet", "-m", "first");
  };
  return { at, git, repository };
}

/** Each makes a repository; the name of its worktree, and that of git's common directory. */
const SHAPES: Readonly<Record<string, (of: Scene) => readonly [top: string, common: string]>> = {
  "a plain repository": ({ repository }) => (repository("a"), ["a", "a/.git"]),
  "no commit": ({ at, git }) => (fs.mkdirSync(at("a")), git("a", "init", "--quiet"), ["a", "a/.git"]),
  "a worktree": ({ repository, git, at }) => (
    repository("a"),
    git("a", "worktree", "add", "--quiet", at("w")),
    ["w", "a/.git"]
  ),
  "a worktree of a bare repository": ({ repository, git, at }) => (
    repository("a"),
    git("", "clone", "--quiet", "--bare", at("a"), at("bare")),
    git("bare", "worktree", "add", "--quiet", at("w")),
    ["w", "bare"]
  ),
  "a submodule": ({ repository, git, at }) => (
    repository("a"),
    repository("b"),
    git("a", "submodule", "--quiet", "add", at("b"), "module"),
    ["a/module", "a/.git/modules/module"]
  ),
  "a separate git directory": ({ repository, at }) => (repository("a", "--separate-git-dir", at("g")), ["a", "g"]),
  "a shallow clone": ({ repository, git, at }) => (
    repository("a"),
    git("", "clone", "--quiet", "--depth", "1", `file://${at("a")}`, at("c")),
    ["c", "c/.git"]
  ),
  "SHA-256": ({ repository }) => (repository("a", "--object-format=sha256"), ["a", "a/.git"]),
  "a detached HEAD": ({ repository, git }) => (repository("a"), git("a", "checkout", "--detach"), ["a", "a/.git"]),
};

for (const [name, make] of Object.entries(SHAPES))
  test(`the repository of a folder is found without git, and a hook there is covered: ${name}`, (t) => {
    const of = scene(t);
    const [top, common] = make(of).map((each) => of.at(each)) as [string, string];
    const inode = fs.statSync(common).ino.toString();
    assert.deepEqual(repositoryOf(path.join(top, "sub")), { top, common, inode });
    assert.equal(repositoryOf(of.at("")), null);
    const git = { common, inode, below: "" };
    const folder = { path: "/gone", inode: "0", made: "0", git };
    const cover: Cover = { tool: "codex", whom: "me", each: "tool", folder };
    assert.deepEqual(coverageOf([cover], "codex", path.join(top, "sub")), { cover, by: "family", root: top });
    const own: Cover = { ...cover, folder: { ...folder, path: top } };
    assert.deepEqual(coverageOf([own], "codex", path.join(top, "sub")), { cover: own, by: "folder", root: top });
    assert.equal(coverageOf([{ ...own, each: "never" }, cover], "codex", top), null);
    assert.equal(coverageOf([own], "gemini", top), null);
  });
