import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test as plainTest } from "node:test";
import { buildCommand, cairn, cairnOk, type Outcome, SCRATCH } from "../fixtures/command.ts";

/** What a rewind, an undo and a redo do to a git repository that an agent and a person use. */

const HAS_GIT = spawnSync("git", ["--version"]).status === 0;
const skip = HAS_GIT ? false : "there is no git here";
const test = (name: string, run: () => void): void => void plainTest(name, { skip }, run);

let count = 0;

class Repository {
  readonly folder = path.join(SCRATCH, `git-${count++}`, "work");

  constructor() {
    fs.mkdirSync(this.folder, { recursive: true });
    this.git("init", "-q", "-b", "main");
    this.commit("first", { a: "one", b: "one" });
    cairnOk(["save", this.folder]);
  }

  git(...args: string[]): string {
    return this.gitIn(this.folder, ...args);
  }

  gitIn(folder: string, ...args: string[]): string {
    const own = [
      "-c",
      "user.name=A",
      "-c",
      "user.email=a@localhost",
      "-c",
      "protocol.file.allow=always",
      "-c",
      "gc.auto=0",
    ];
    const env = { ...process.env, GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_SYSTEM: "/dev/null", GIT_EDITOR: "true" };
    return execFileSync("git", [...own, ...args], { cwd: folder, env, encoding: "utf8", stdio: "pipe" }).trim();
  }

  /** Runs git and ignores that it stops, as a rebase does at a conflict. */
  tryGit(...args: string[]): void {
    try {
      this.git(...args);
    } catch {
      // The state that git left is looked at.
    }
  }

  write(name: string, content: string): void {
    fs.mkdirSync(path.dirname(path.join(this.folder, name)), { recursive: true });
    fs.writeFileSync(path.join(this.folder, name), content);
  }

  read(name: string): string {
    return fs.readFileSync(path.join(this.folder, name), "utf8");
  }

  has(name: string): boolean {
    return fs.existsSync(path.join(this.folder, name));
  }

  commit(message: string, files: Record<string, string>): string {
    for (const [name, content] of Object.entries(files)) this.write(name, content);
    this.git("add", "-A");
    this.git("commit", "-q", "-m", message);
    return this.at("HEAD");
  }

  at(name: string): string {
    return this.git("rev-parse", name);
  }

  refs(): string {
    return this.git("for-each-ref", "--format=%(refname) %(objectname)");
  }

  status(): string {
    return this.git("status", "--porcelain");
  }

  staged(): string {
    return this.git("diff", "--cached", "--name-only");
  }

  reflog(name = "HEAD"): string[] {
    return this.git("log", "-g", "--format=%H", name).split("\n");
  }

  hook(event: string): void {
    const input = JSON.stringify({ hook_event_name: event, cwd: this.folder, session_id: "s", prompt: "work" });
    const done = spawnSync(process.execPath, [buildCommand(), "agent", "hook", "gemini", "--verbose"], { input });
    assert.equal(done.status, 0, done.stderr.toString());
  }

  /** Plays a turn of an agent. */
  turn<T>(work: () => T): T {
    this.hook("BeforeAgent");
    const result = work();
    this.hook("AfterAgent");
    return result;
  }

  run(...args: string[]): Outcome {
    return cairn(["-C", this.folder, ...args]);
  }

  goes(expected: number, ...args: string[]): Outcome {
    const done = this.run(...args);
    assert.equal(done.status, expected, done.stdout + done.stderr);
    this.fsck();
    return done;
  }

  fsck(): void {
    const said = this.git("fsck", "--strict", "--connectivity-only", "--no-dangling");
    assert.equal(said, "");
  }

  left(done: Outcome): [string, string][] {
    return (done.data["left_out"] as { path: string; detail: string }[]).map(({ path: where, detail }) => [
      where,
      detail,
    ]);
  }
}

test("a rewind takes an agent's commit back, with the index, and keeps the commit in HEAD's reflog through gc", () => {
  const project = new Repository();
  const [first, before] = [project.at("HEAD"), project.refs()];
  const own = project.turn(() => project.commit("of the agent", { a: "two", c: "new" }));
  const after = project.refs();
  project.goes(0, "rewind");
  assert.deepEqual([project.at("HEAD"), project.refs(), project.status()], [first, before, ""]);
  assert.deepEqual([project.read("a"), project.has("c")], ["one", false]);
  assert.equal(project.reflog()[1], own);
  project.git("gc", "-q", "--prune=now");
  assert.equal(project.git("cat-file", "-t", own), "commit");
  project.goes(0, "undo");
  assert.deepEqual([project.at("HEAD"), project.refs(), project.status()], [own, after, ""]);
  project.goes(0, "redo");
  assert.deepEqual([project.at("HEAD"), project.refs(), project.status()], [first, before, ""]);
});

test("a person's commits and branch after the turn stay, and the answer names what stays", () => {
  const project = new Repository();
  project.turn(() => project.write("a", "two"));
  const commits = ["x", "y", "z"].map((name) => project.commit(name, { [name]: name }));
  project.git("branch", "theirs");
  const refs = project.refs();
  project.goes(0, "rewind");
  assert.deepEqual([project.refs(), project.at("HEAD"), project.staged()], [refs, commits[2], ""]);
  assert.deepEqual([project.read("a"), project.status()], ["one", "M a"]);
});

test("a person's commit on top of an agent's keeps the branch, HEAD and the index as they are", () => {
  const project = new Repository();
  const own = project.turn(() => {
    project.git("branch", "of-agent");
    return project.commit("of the agent", { a: "two" });
  });
  const theirs = project.commit("of the person", { d: "mine" });
  const done = project.goes(10, "rewind");
  const [[where, detail]] = project.left(done) as [[string, string]];
  assert.equal(where, ".git/HEAD");
  assert.match(detail, new RegExp(`HEAD is at ${theirs.slice(0, 7)} \\(main\\)`));
  assert.deepEqual([project.at("main"), project.at("main~1"), project.staged()], [theirs, own, ""]);
  assert.deepEqual([project.read("a"), project.read("d")], ["one", "mine"]);
  assert.ok(!project.refs().includes("of-agent"));
  project.goes(0, "undo");
  assert.deepEqual([project.status(), project.at("of-agent")], ["", project.at("main~2")]);
});

test("rewind --path leaves the index alone, also if an earlier change of git's state stays", () => {
  const project = new Repository();
  project.turn(() => project.commit("of the agent", { a: "two" }));
  project.commit("of the person", { d: "mine" });
  project.turn(() => {
    project.write("c", "new");
    project.git("add", "c");
  });
  const before = [project.refs(), project.git("ls-files", "-s")];
  project.goes(0, "rewind", "2", "--path", "a");
  assert.deepEqual([project.read("a"), project.refs(), project.git("ls-files", "-s")], ["one", ...before]);
});

test("a switched branch goes back, and the agent's branch goes with its commit kept in the reflog", () => {
  const project = new Repository();
  const first = project.at("HEAD");
  const own = project.turn(() => {
    project.git("switch", "-q", "-c", "feature");
    return project.commit("of the agent", { a: "two" });
  });
  project.goes(0, "rewind");
  assert.deepEqual(
    [project.git("symbolic-ref", "HEAD"), project.at("HEAD"), project.status()],
    ["refs/heads/main", first, ""],
  );
  assert.ok(!project.refs().includes("feature"));
  assert.ok(project.reflog().includes(own));
  project.git("gc", "-q", "--prune=now");
  assert.equal(project.git("cat-file", "-t", own), "commit");
  project.goes(0, "undo");
  assert.deepEqual(
    [project.git("symbolic-ref", "HEAD"), project.at("HEAD"), project.status()],
    ["refs/heads/feature", own, ""],
  );
});

test("a branch that moved since the agent left it keeps HEAD where it is", () => {
  const project = new Repository();
  const own = project.turn(() => {
    project.git("switch", "-q", "-c", "feature");
    return project.commit("of the agent", { a: "two" });
  });
  // Somebody moves `main` without a checkout: HEAD must not go to a commit that has other files.
  project.git("branch", "-f", "main", own);
  project.goes(10, "rewind");
  assert.deepEqual([project.at("main"), project.at("HEAD"), project.staged()], [own, own, ""]);
});

test("git add of an agent goes back, and stays beside what a person staged since", () => {
  const project = new Repository();
  project.turn(() => {
    project.write("a", "two");
    project.git("add", "a");
  });
  project.write("b", "mine");
  project.git("add", "b");
  project.goes(10, "rewind");
  assert.deepEqual([project.staged(), project.read("a"), project.read("b")], ["a\nb", "one", "mine"]);
  const other = new Repository();
  other.turn(() => {
    other.write("a", "two");
    other.git("add", "a");
  });
  other.write("b", "mine");
  other.git("status");
  other.goes(0, "rewind");
  assert.deepEqual([other.staged(), other.status()], ["", "M b"]);
});

test("an amended commit comes back, also after gc removed it", () => {
  const project = new Repository();
  const first = project.at("HEAD");
  const own = project.turn(() => {
    project.write("a", "two");
    project.git("commit", "-q", "-a", "--amend", "-m", "amended");
    return project.at("HEAD");
  });
  project.git("reflog", "expire", "--expire=now", "--all");
  project.git("gc", "-q", "--prune=now");
  assert.throws(() => project.git("cat-file", "-t", first));
  project.goes(0, "rewind");
  assert.deepEqual([project.at("HEAD"), project.status(), project.reflog()[1]], [first, "", own]);
});

test("a rebase that an agent left in progress goes back as a whole, and a person's stays as a whole", () => {
  const project = new Repository();
  project.git("switch", "-q", "-c", "topic");
  project.commit("topic", { a: "topic" });
  project.git("switch", "-q", "main");
  project.commit("main", { a: "main" });
  project.git("switch", "-q", "topic");
  const [refs, topic] = [project.refs(), project.at("topic")];
  project.turn(() => project.tryGit("rebase", "main"));
  assert.ok(project.has(".git/rebase-merge"));
  project.goes(0, "rewind");
  assert.deepEqual([project.refs(), project.at("HEAD"), project.status()], [refs, topic, ""]);
  assert.ok(!project.has(".git/rebase-merge"));
  assert.equal(project.git("symbolic-ref", "HEAD"), "refs/heads/topic");
  project.goes(0, "undo");
  assert.ok(project.has(".git/rebase-merge/done"));
  project.tryGit("rebase", "--abort");
  assert.deepEqual([project.refs(), project.status()], [refs, ""]);
  // The agent commits, then the person rebases.
  project.turn(() => project.commit("of the agent", { c: "new" }));
  project.tryGit("rebase", "main");
  const now = project.refs();
  project.goes(10, "rewind");
  assert.deepEqual([project.refs(), project.has(".git/rebase-merge/done")], [now, true]);
  project.git("checkout", "-q", "--theirs", "a");
  project.git("add", "a");
  project.git("rebase", "--continue");
  project.fsck();
});

test("refs that were packed before, in or after a turn go back one by one", () => {
  for (const packs of ["before", "in", "after"]) {
    const project = new Repository();
    for (const name of ["kept", "moved", "removed", "dir/deep"]) project.git("branch", name);
    if (packs === "before") project.git("pack-refs", "--all");
    const refs = project.refs();
    const own = project.turn(() => {
      const commit = project.commit("of the agent", { a: "two" });
      project.git("branch", "-f", "moved");
      project.git("branch", "-D", "removed");
      project.git("branch", "made");
      if (packs === "in") project.git("pack-refs", "--all");
      return commit;
    });
    project.git("branch", "theirs");
    project.git("branch", "-f", "kept");
    if (packs === "after") project.git("pack-refs", "--all");
    project.goes(0, "rewind");
    const wanted = refs.replace(/(refs\/heads\/kept) \w+/, `$1 ${own}`);
    assert.equal(project.refs(), `${wanted}\nrefs/heads/theirs ${own}`, packs);
    assert.equal(project.status(), "");
    project.goes(0, "undo");
    assert.deepEqual([project.at("made"), project.at("moved"), project.at("HEAD")], [own, own, own]);
    assert.ok(!project.refs().includes("removed"));
  }
});

test("a stash of an agent goes with its list, and a person's stash stays", () => {
  const project = new Repository();
  project.write("b", "of the person");
  project.git("stash");
  project.write("b", "unsaved");
  const own = project.turn(() => {
    project.git("stash");
    return project.at("stash");
  });
  project.goes(0, "rewind");
  assert.deepEqual([project.git("stash", "list").split("\n").length, project.read("b")], [1, "unsaved"]);
  project.git("gc", "-q", "--prune=now");
  assert.equal(project.git("cat-file", "-t", own), "commit");
  project.turn(() => project.git("stash"));
  project.write("b", "later");
  project.git("stash");
  project.goes(10, "rewind");
  assert.equal(project.git("stash", "list").split("\n").length, 3);
});

test("a branch of a worktree beside the folder stays, with the worktree", () => {
  const project = new Repository();
  const beside = `${project.folder}-beside`;
  project.git("worktree", "add", "-q", "-b", "beside", beside);
  const theirs = project.turn(() => {
    fs.writeFileSync(path.join(beside, "w"), "new");
    project.gitIn(beside, "add", "w");
    project.gitIn(beside, "commit", "-q", "-m", "in the worktree");
    project.commit("of the agent", { a: "two" });
    return project.at("beside");
  });
  const done = project.goes(10, "rewind");
  assert.deepEqual(
    project.left(done).map(([where]) => where),
    [".git/refs/heads/beside"],
  );
  assert.deepEqual([project.at("beside"), project.gitIn(beside, "status", "--porcelain")], [theirs, ""]);
  assert.deepEqual([project.read("a"), project.status()], ["one", ""]);
});

test("HEAD does not go to a branch that another worktree checked out since, if the branch would move", () => {
  const project = new Repository();
  const own = project.turn(() => {
    const commit = project.commit("of the agent", { a: "two" });
    project.git("switch", "-q", "-c", "feature");
    return commit;
  });
  const beside = `${project.folder}-beside`;
  project.git("worktree", "add", "-q", beside, "main");
  project.goes(10, "rewind");
  assert.deepEqual([project.at("main"), project.staged()], [own, ""]);
  assert.equal(project.gitIn(beside, "status", "--porcelain"), "");
});

test("a submodule's state goes back with the folder that it is in", () => {
  const module = new Repository();
  const project = new Repository();
  project.git("submodule", "add", "-q", module.folder, "sub");
  project.commit("with a submodule", {});
  const sub = path.join(project.folder, "sub");
  const [outer, inner] = [project.at("HEAD"), project.gitIn(sub, "rev-parse", "HEAD")];
  project.turn(() => {
    fs.writeFileSync(path.join(sub, "a"), "two");
    project.gitIn(sub, "commit", "-q", "-a", "-m", "in the submodule");
    project.commit("of the agent", {});
  });
  const own = project.gitIn(sub, "rev-parse", "HEAD");
  project.goes(0, "rewind");
  assert.deepEqual([project.at("HEAD"), project.gitIn(sub, "rev-parse", "HEAD")], [outer, inner]);
  assert.deepEqual([project.status(), project.gitIn(sub, "status", "--porcelain")], ["", ""]);
  assert.ok(project.gitIn(sub, "log", "-g", "--format=%H").includes(own));
  project.gitIn(sub, "fsck", "--strict");
});

test("a person's commit in a submodule stays there, and the outer repository goes back", () => {
  const module = new Repository();
  const project = new Repository();
  project.git("submodule", "add", "-q", module.folder, "sub");
  const outer = project.commit("with a submodule", {});
  const sub = path.join(project.folder, "sub");
  project.turn(() => {
    fs.writeFileSync(path.join(sub, "a"), "two");
    project.gitIn(sub, "commit", "-q", "-a", "-m", "in the submodule");
    project.commit("of the agent", {});
  });
  fs.writeFileSync(path.join(sub, "b"), "mine");
  project.gitIn(sub, "commit", "-q", "-a", "-m", "of the person");
  const theirs = project.gitIn(sub, "rev-parse", "HEAD");
  project.goes(10, "rewind");
  assert.deepEqual(
    [project.at("HEAD"), project.gitIn(sub, "rev-parse", "HEAD"), project.staged()],
    [outer, theirs, ""],
  );
  assert.equal(project.gitIn(sub, "diff", "--cached", "--name-only"), "");
});

test("gc in a turn, between a turn and its rewind, and between a rewind and its undo loses no commit", () => {
  for (const when of ["in", "before rewind", "before undo"]) {
    const project = new Repository();
    const first = project.at("HEAD");
    const own = project.turn(() => {
      const commit = project.commit("of the agent", { a: "two" });
      if (when === "in") project.git("gc", "-q", "--prune=now");
      return commit;
    });
    if (when === "before rewind") project.git("gc", "-q", "--prune=now");
    project.goes(0, "rewind");
    assert.deepEqual([project.at("HEAD"), project.status()], [first, ""], when);
    if (when === "before undo") project.git("gc", "-q", "--prune=now");
    project.goes(0, "undo");
    assert.deepEqual([project.at("HEAD"), project.status()], [own, ""], when);
  }
});

test("git status between a restore and its undo keeps nothing from going back", () => {
  const project = new Repository();
  const own = project.commit("second", { a: "two", c: "new" });
  cairnOk(["save", project.folder]);
  project.write("a", "unsaved");
  project.git("add", "a");
  project.goes(0, "restore", "head~1");
  project.git("status");
  project.goes(0, "undo");
  assert.deepEqual([project.at("HEAD"), project.staged(), project.read("a")], [own, "a", "unsaved"]);
  project.git("status");
  project.goes(0, "redo");
  assert.deepEqual([project.staged(), project.status(), project.read("a")], ["", "", "one"]);
});

test("a person's commit after a restore stays at its undo, and objects of both sides stay", () => {
  const project = new Repository();
  const second = project.commit("second", { a: "two" });
  cairnOk(["save", project.folder]);
  project.goes(0, "restore", "head~1");
  const theirs = project.commit("of the person", { d: "mine" });
  project.goes(10, "undo");
  assert.deepEqual([project.at("HEAD"), project.staged()], [theirs, ""]);
  assert.ok(project.reflog().includes(second));
});

test("restore names the refs that move or go, also with --plan, and --keep-git leaves .git as it is", () => {
  const project = new Repository();
  const first = project.at("HEAD");
  const second = project.commit("second", { a: "two" });
  project.git("switch", "-q", "-c", "theirs");
  project.git("pack-refs", "--all");
  const refs = project.refs();
  const wanted = [
    { path: ".git", ref: "HEAD", before: "refs/heads/theirs", after: "refs/heads/main" },
    { path: ".git", ref: "refs/heads/main", before: second, after: first },
    { path: ".git", ref: "refs/heads/theirs", before: second, after: null },
  ];
  const { plan } = project.run("restore", "head", "--plan").data as { plan: { refs: unknown } };
  assert.deepEqual(plan.refs, wanted);
  project.goes(0, "restore", "head", "--keep-git");
  assert.deepEqual([project.refs(), project.read("a"), project.status()], [refs, "one", "M a"]);
  const third = project.commit("third", { d: "mine" });
  project.goes(0, "undo");
  assert.deepEqual([project.at("HEAD"), project.read("a"), project.staged()], [third, "two", ""]);
});

test("git's state stays as a whole with a reftable, and with a git directory outside the folder", () => {
  const project = new Repository();
  const own = project.turn(() => {
    project.write(".git/reftable/tables.list", "");
    return project.commit("of the agent", { a: "two" });
  });
  const done = project.goes(10, "rewind");
  assert.match(project.left(done)[0]![1], /reftable/);
  assert.deepEqual([project.at("HEAD"), project.read("a")], [own, "one"]);
  const main = new Repository();
  const linked = `${main.folder}-linked`;
  main.git("worktree", "add", "-q", "-b", "linked", linked);
  const from = { folder: linked };
  const worktree = Object.assign(Object.create(main) as Repository, from);
  cairnOk(["save", linked]);
  const commit = worktree.turn(() => worktree.commit("of the agent", { a: "two" }));
  const back = worktree.run("rewind");
  assert.equal(back.status, 0);
  assert.match(back.warnings.join(), /git's own state is outside the folder/);
  assert.deepEqual([worktree.at("HEAD"), worktree.read("a"), worktree.staged()], [commit, "one", ""]);
});

test("a lock of git keeps git's state, and a repository that an agent made goes with its turn", () => {
  const project = new Repository();
  const own = project.turn(() => project.commit("of the agent", { a: "two" }));
  project.write(".git/index.lock", "");
  const done = project.goes(10, "rewind");
  assert.match(project.left(done)[0]![1], /a file locks them/);
  assert.deepEqual([project.at("HEAD"), project.read("a"), project.has(".git/index.lock")], [own, "one", true]);
  const outer = new Repository();
  const inner = path.join(outer.folder, "inner");
  outer.turn(() => {
    fs.mkdirSync(inner);
    outer.gitIn(inner, "init", "-q");
    fs.writeFileSync(path.join(inner, "f"), "new");
    outer.gitIn(inner, "add", "f");
    outer.gitIn(inner, "commit", "-q", "-m", "first");
  });
  outer.goes(0, "rewind");
  assert.equal(outer.has("inner"), false);
  outer.goes(0, "undo");
  assert.equal(outer.gitIn(inner, "log", "--format=%s"), "first");
  fs.writeFileSync(path.join(inner, "f"), "mine");
  outer.gitIn(inner, "commit", "-q", "-a", "-m", "second");
  outer.goes(10, "rewind");
  assert.equal(outer.gitIn(inner, "log", "--format=%s"), "second\nfirst");
});
