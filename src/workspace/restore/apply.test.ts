import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import type { Identity } from "../../archive/scan/find-record.ts";
import { EPERM } from "../../fs/linux/errno.ts";
import { RENAME, syscalls } from "../../fs/linux/syscalls.ts";
import { HeldDirectories, looksSame, sameIdentity } from "./held-directories.ts";
import { StepRunner } from "./apply.ts";
import { displacedName, stagedName, type Step } from "../points/steps.ts";

/** renameat2(2) as network file systems have it: without flags. Also fails, by `fails`, for a name that is moved. */
function withoutRenameFlags(t: TestContext, fails: Record<string, number> = {}): { count: () => number } {
  const sys = syscalls();
  const rename = sys.rename.bind(sys);
  let count = 0;
  t.mock.method(sys, "rename", (...args: Parameters<typeof rename>) => {
    const { bytes } = args[1];
    const name = Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString();
    if (args[6] !== 0) return -22;
    count++;
    return fails[name] ?? rename(...args);
  });
  assert.notEqual(RENAME.NOREPLACE, 0);
  return { count: () => count };
}

interface Places {
  folder: string;
  staging: string;
  /** Returns the step that replaces a file. */
  put: (name: string) => Extract<Step, { op: "put" }>;
}

/** Makes files with an old text in a folder and with a new one in a staging folder, at the name of `staged`. */
function places(
  t: TestContext,
  files: Record<string, readonly [string, string]>,
  staged: (number: number, name: string) => string,
): Places {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-steps-"));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const [folder, staging] = [path.join(root, "folder"), path.join(root, "staging")];
  for (const each of [folder, staging]) fs.mkdirSync(each);
  const names = Object.keys(files);
  for (const [number, name] of names.entries()) {
    fs.writeFileSync(path.join(folder, name), files[name]![0]);
    fs.writeFileSync(path.join(staging, staged(number, name)), files[name]![1]);
  }
  const put: Places["put"] = (name) => {
    const number = names.indexOf(name);
    const { inode } = identityAt(staging, staged(number, name));
    return { op: "put", path: Buffer.from(name), staged: number, inode, old: identityAt(folder, name) };
  };
  return { folder, staging, put };
}

function textsIn(folder: string): Record<string, string> {
  return Object.fromEntries(
    fs.readdirSync(folder).map((name) => [name, fs.readFileSync(path.join(folder, name), "utf8")]),
  );
}

function identityAt(root: string, name: string): Identity {
  const held = new HeldDirectories(Buffer.from(root));
  try {
    return held.identity(held.root, Buffer.from(name))!;
  } finally {
    held.close();
  }
}

test("StepRunner replaces no unsaved file on a file system whose rename takes no flags", (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-steps-"));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const [folder, staging] = [path.join(root, "folder"), path.join(root, "staging")];
  for (const each of [folder, staging]) fs.mkdirSync(each);
  for (const [name, text] of Object.entries({ goes: "old", changes: "old", late: "unsaved" }))
    fs.writeFileSync(path.join(folder, name), text);
  for (const number of [0, 1, 2]) fs.writeFileSync(path.join(staging, stagedName(number)), "new");
  const inode = (number: number): string => fs.statSync(path.join(staging, stagedName(number))).ino.toString();
  const steps: Step[] = [
    { op: "remove", path: Buffer.from("goes"), old: identityAt(folder, "goes"), kept: 9 },
    { op: "put", path: Buffer.from("changes"), staged: 0, inode: inode(0), old: identityAt(folder, "changes") },
    { op: "put", path: Buffer.from("comes"), staged: 1, inode: inode(1), old: null },
    { op: "put", path: Buffer.from("late"), staged: 2, inode: inode(2), old: null },
  ];
  withoutRenameFlags(t);
  const done = new StepRunner({
    root: Buffer.from(folder),
    staging,
    resuming: false,
    hidesIgnored: () => true,
  }).run(steps);
  assert.deepEqual(
    [done.created, done.updated, done.deleted, done.kept.map(({ reason }) => reason)],
    [1, 1, 1, ["not_saved"]],
  );
  const texts = Object.fromEntries(
    fs.readdirSync(folder).map((name) => [name, fs.readFileSync(path.join(folder, name), "utf8")]),
  );
  assert.deepEqual(texts, { changes: "new", comes: "new", late: "unsaved" });
  assert.equal(fs.readFileSync(path.join(staging, displacedName(9)), "utf8"), "old");
});

test("StepRunner finishes a step that was killed between two renames, if rename takes no flags", (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-steps-"));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const [folder, staging] = [path.join(root, "folder"), path.join(root, "staging")];
  for (const each of [folder, staging]) fs.mkdirSync(each);
  const steps = ["aside", "in place"].map((name, staged): Step => {
    fs.writeFileSync(path.join(folder, name), "old");
    fs.writeFileSync(path.join(staging, stagedName(staged)), "new");
    const inode = fs.statSync(path.join(staging, stagedName(staged))).ino.toString();
    const step: Step = { op: "put", path: Buffer.from(name), staged, inode, old: identityAt(folder, name) };
    fs.renameSync(path.join(folder, name), path.join(staging, `${stagedName(staged)}.old`));
    return step;
  });
  fs.renameSync(path.join(staging, stagedName(1)), path.join(folder, "in place"));
  withoutRenameFlags(t);
  const options = { root: Buffer.from(folder), staging, resuming: true, hidesIgnored: () => true };
  const { updated, kept } = new StepRunner(options).run(steps);
  assert.deepEqual([updated, kept], [2, []]);
  const texts = (where: string): string[][] =>
    fs.readdirSync(where).map((name) => [name, fs.readFileSync(path.join(where, name), "utf8")]);
  assert.deepEqual(texts(folder), [
    ["aside", "new"],
    ["in place", "new"],
  ]);
  assert.deepEqual(texts(staging), [
    [stagedName(0), "old"],
    [stagedName(1), "old"],
  ]);
});

test("StepRunner moves a file back if its replacement cannot be moved in, and rename takes no flags", (t) => {
  const { folder, staging, put } = places(t, { file: ["old", "new"] }, stagedName);
  withoutRenameFlags(t, { [stagedName(0)]: EPERM });
  const options = { root: Buffer.from(folder), staging, resuming: false, hidesIgnored: () => true };
  const { updated, kept } = new StepRunner(options).run([put("file")]);
  assert.deepEqual([updated, kept.map(({ reason }) => reason)], [0, ["not_permitted"]]);
  assert.deepEqual(textsIn(folder), { file: "old" });
  assert.deepEqual(textsIn(staging), { [stagedName(0)]: "new" });
});

test("StepRunner without a journal replaces each file by one rename, and overwrites no other staged file", (t) => {
  const files = { n0: ["old", "new"], "n0.old": ["old", "new"], "n1.old": ["old", "new"] } as const;
  for (const hasFlags of [true, false]) {
    const { folder, staging, put } = places(t, files, (_number, name) => name);
    const renames = hasFlags ? null : withoutRenameFlags(t);
    const options = { root: Buffer.from(folder), staging, resuming: false, hidesIgnored: () => true };
    const same = { ...options, tree: { isSame: sameIdentity } };
    const { updated, kept } = new StepRunner(same).run(Object.keys(files).map((name) => put(name)));
    assert.deepEqual([updated, kept], [3, []]);
    assert.deepEqual(textsIn(folder), { n0: "new", "n0.old": "new", "n1.old": "new" });
    assert.deepEqual(fs.readdirSync(staging), []);
    if (renames !== null) assert.equal(renames.count(), 3);
  }
});

test("StepRunner without a journal replaces all files of a database or none, also if rename takes no flags", (t) => {
  for (const hasFlags of [true, false])
    for (const changed of [null, "app.db", "app.db-wal"]) {
      const { folder, staging, put } = places(t, { "app.db": ["", ""], "app.db-wal": ["", "new"] }, (_n, name) => name);
      for (const [where, rows] of [
        [folder, 1],
        [staging, 2],
      ] as const) {
        const database = new DatabaseSync(path.join(where, "app.db"));
        database.exec(`CREATE TABLE t (v); INSERT INTO t VALUES (${rows})`);
        database.close();
        fs.writeFileSync(path.join(where, "app.db-wal"), "");
      }
      const [present, wanted] = [folder, staging].map((where) => fs.readFileSync(path.join(where, "app.db")));
      const steps = ["app.db", "app.db-wal"].map((name) => put(name));
      if (changed !== null) fs.utimesSync(path.join(folder, changed), 1, 1);
      if (!hasFlags) withoutRenameFlags(t);
      const options = { root: Buffer.from(folder), staging, resuming: false, hidesIgnored: () => true };
      const { updated, kept } = new StepRunner({ ...options, tree: { isSame: sameIdentity } }).run(steps);
      t.mock.restoreAll();
      const where = `${hasFlags} ${changed}`;
      assert.deepEqual([updated, kept.length], changed === null ? [2, 0] : [0, 2], where);
      const is = fs.readFileSync(path.join(folder, "app.db"));
      assert.ok(is.equals(changed === null ? wanted! : present!), where);
      assert.deepEqual(fs.readdirSync(staging), changed === null ? [] : ["app.db", "app.db-wal"], where);
    }
});

test("looksSame accepts another inode number and change time, and no other size, time or mode", (t) => {
  const { folder, staging, put } = places(t, { file: ["old", "new"] }, (_number, name) => name);
  const identity = put("file").old!;
  const other = { ...identity, inode: "1", ctimeSec: 5 };
  assert.deepEqual([sameIdentity(identity, other), looksSame(identity, other)], [false, true]);
  for (const change of [{ size: 9 }, { mtimeSec: 9 }, { mtimeNs: 9 }, { mode: 0x8000 }])
    assert.equal(looksSame(identity, { ...other, ...change }), false);
  const options = { root: Buffer.from(folder), staging, resuming: false, hidesIgnored: () => true };
  const run = (isSame: typeof looksSame): number =>
    new StepRunner({ ...options, tree: { isSame } }).run([{ ...put("file"), old: other }]).updated;
  assert.deepEqual([run(sameIdentity), run(looksSame)], [0, 1]);
});

test("StepRunner leaves out entries whose names the file system refuses, and everything below them", (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-steps-"));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const [folder, staging] = [path.join(root, "folder"), path.join(root, "staging")];
  for (const each of [folder, staging]) fs.mkdirSync(each);
  for (const number of [0, 1, 2]) fs.writeFileSync(path.join(staging, stagedName(number)), "new");
  const inode = (number: number): string => fs.statSync(path.join(staging, stagedName(number))).ino.toString();
  const put = (where: string, staged: number): Step => {
    return { op: "put", path: Buffer.from(where), staged, inode: inode(staged), old: null };
  };
  const owner = { uid: process.geteuid!(), gid: process.getegid!(), xattrs: [], dropXattrs: [] };
  const metadata = { type: "dir" as const, mode: 0o755, mtimeSec: 1000, mtimeNs: 5, ...owner };
  const tooLong = "n".repeat(256);
  const steps: Step[] = [
    { op: "mkdir", path: Buffer.from(tooLong) },
    { op: "mkdir", path: Buffer.from(`${tooLong}/in`) },
    put(`${tooLong}/in/file`, 0),
    put(`${tooLong}.file`, 1),
    put("comes", 2),
    { op: "dirmeta", path: Buffer.from(`${tooLong}/in`), metadata },
    { op: "dirmeta", path: Buffer.from(tooLong), metadata },
  ];
  for (const resuming of [false, true]) {
    const options = { root: Buffer.from(folder), staging, resuming, hidesIgnored: () => true };
    const { created, kept, notSet } = new StepRunner(options).run(steps);
    const listed = kept.map(({ path: where, reason, aspects }) => [where.length, reason, aspects?.join()]);
    assert.deepEqual(listed, [
      [256, "not_permitted", "type"],
      [261, "not_permitted", "type"],
    ]);
    assert.deepEqual([created, notSet, fs.readdirSync(folder)], [1, [], ["comes"]]);
  }
});

test("StepRunner accepts nested directories that a killed restore already made", (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-steps-"));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const [folder, staging] = [path.join(root, "folder"), path.join(root, "staging")];
  for (const each of [folder, staging]) fs.mkdirSync(each);
  const steps = ["made", "made/in", "made/in/deep"].map((name): Step => ({ op: "mkdir", path: Buffer.from(name) }));
  for (const [resuming, made] of [
    [false, 3],
    [true, 0],
  ] as const) {
    const options = { root: Buffer.from(folder), staging, resuming, hidesIgnored: () => true };
    const { created, kept } = new StepRunner(options).run(steps);
    assert.deepEqual([created, kept, fs.existsSync(path.join(folder, "made/in/deep"))], [made, [], true]);
  }
});

test("StepRunner after a kill counts a replaced file as removed, and lists entries that were made since", (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-steps-"));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const [folder, staging] = [path.join(root, "folder"), path.join(root, "staging")];
  for (const each of [folder, staging]) fs.mkdirSync(each);
  for (const name of ["becomes", "edited", "goes"]) fs.writeFileSync(path.join(folder, name), "old");
  const removed = ["becomes", "edited", "goes"].map((name, kept): Step => ({
    op: "remove",
    path: Buffer.from(name),
    old: identityAt(folder, name),
    kept,
  }));
  const comes = ["becomes", "edited"].map((name): Step => ({ op: "mkdir", path: Buffer.from(name) }));
  const run = (steps: Step[], resuming: boolean): unknown[] => {
    const options = { root: Buffer.from(folder), staging, resuming, hidesIgnored: () => true };
    const { created, deleted, kept } = new StepRunner(options).run(steps);
    return [created, deleted, kept.map(({ path: where, reason }) => [Buffer.from(where).toString(), reason])];
  };
  assert.deepEqual(run([...removed, comes[0]!], false), [1, 3, []]);
  fs.writeFileSync(path.join(folder, "edited"), "new since");
  fs.mkdirSync(path.join(folder, "goes"));
  const listed = [
    ["goes", "changed_since"],
    ["edited", "not_saved"],
  ];
  assert.deepEqual(run([...removed, ...comes], true), [0, 2, listed]);
});

test("if names ignore case, StepRunner fills a directory of another spelling only if it was to remove that directory", (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-steps-"));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const [folder, staging] = [path.join(root, "folder"), path.join(root, "staging")];
  // Both stand for one, of which only the first is listed.
  for (const each of [`${folder}/name`, `${folder}/NAME`, staging]) fs.mkdirSync(each, { recursive: true });
  fs.writeFileSync(path.join(folder, "name/ignored"), "stays");
  fs.writeFileSync(path.join(staging, stagedName(0)), "new");
  t.mock.method(fs, "readdirSync", () => [Buffer.from("name")]);
  const inode = fs.statSync(path.join(staging, stagedName(0))).ino.toString();
  const comes: Step[] = [
    { op: "mkdir", path: Buffer.from("NAME") },
    { op: "put", path: Buffer.from("NAME/file"), staged: 0, inode, old: null },
  ];
  const goes: Step = { op: "rmdir", path: Buffer.from("name"), old: identityAt(folder, "name") };
  const run = (steps: Step[]): unknown[] => {
    const options = { root: Buffer.from(folder), staging, resuming: false, hidesIgnored: () => true };
    const { created, kept } = new StepRunner(options).run(steps);
    return [created, kept.map(({ path: where }) => Buffer.from(where).toString())];
  };
  assert.deepEqual(run(comes), [0, ["NAME"]]);
  assert.deepEqual(run([goes, ...comes]), [1, []]);
  assert.equal(fs.readFileSync(path.join(folder, "NAME/file"), "utf8"), "new");
});

test("StepRunner leaves a file that changed after the plan was made, whatever its step does", (t) => {
  const files = { gone: ["old", "-"], replaced: ["old", "new"] } as const;
  const { folder, staging, put } = places(t, files, stagedName);
  const steps: Step[] = [
    { op: "remove", path: Buffer.from("gone"), old: identityAt(folder, "gone"), kept: 9 },
    put("replaced"),
  ];
  for (const name of Object.keys(files)) fs.writeFileSync(path.join(folder, name), "edited");
  const done = new StepRunner({ root: Buffer.from(folder), staging, resuming: false, hidesIgnored: () => false }).run(
    steps,
  );
  assert.deepEqual(textsIn(folder), { gone: "edited", replaced: "edited" });
  assert.deepEqual(
    done.kept.map((kept) => [Buffer.from(kept.path).toString(), kept.reason]),
    [
      ["gone", "changed_since"],
      ["replaced", "changed_since"],
    ],
  );
});
