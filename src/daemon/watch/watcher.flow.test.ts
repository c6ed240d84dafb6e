import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test, type TestContext } from "node:test";
import { openLibrary } from "../../compose.ts";
import type { CairnLibrary, Client } from "../../contract/index.ts";
import { eventually } from "../../../test/fixtures/eventually.ts";
import { LONG } from "../../../test/fixtures/long.ts";
import { type LoopFileSystem, loopFileSystem, makeLoopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { type ChangeNotice, type ChangeJournal } from "./journal.ts";
import type { ChangeSource } from "./change-source.ts";
import { FanotifySource } from "./fanotify-source.ts";
import { InotifySource } from "./inotify-source.ts";
import { Watcher } from "./watcher.ts";
import { writtenUntold } from "../../fs/linux/written-untold.ts";
import { nameAt } from "../../fs/listing.ts";
import { syscalls } from "../../fs/linux/syscalls.ts";

let disk: LoopFileSystem | null = null;
const made =
  process.geteuid?.() === 0
    ? makeLoopFileSystem("ext4", { size: 512 << 20 })
    : { reason: "the kernel tells root alone what changes on a file system" };
if ("root" in made) disk = made;
const why = "reason" in made ? made.reason : writtenUntold() === null ? "not all processes are seen here" : false;

/** Somebody who watches, and the library that goes by what they are told. */
interface Eyes {
  watcher: Watcher;
  library: CairnLibrary;
}

/** By what the kernel tells root of a whole file system, and tells anybody of each directory. */
let whole: Eyes;
let single: Eyes;

async function eyes(source: ChangeSource | null): Promise<Eyes> {
  const watcher = Watcher.start(() => undefined, source)!;
  return { watcher, library: await openLibrary({ changesOf: (root) => watcher.journalOf(root) }) };
}

before(async () => {
  if (disk === null) return;
  whole = await eyes(FanotifySource.open());
  single = await eyes(InotifySource.open());
});
after(async () => {
  if (disk !== null) await Promise.all([whole.watcher.stop(), single.watcher.stop()]);
  disk?.close();
});

interface Kept {
  folder: string;
  client: Client;
  journal: ChangeJournal;
  /** Inodes that the last save looked at wherever they lie. */
  inodes(): readonly number[];
  /** Saves by the journal; fails where a point of all that is read again would be another one. */
  check(what: string): Promise<{ looked: boolean; made: boolean }>;
}

let folders = 0;

/** A workspace of some folders that is watched and saved; on a file system whose times tell each change, so that nothing is read for being young. */
async function watched(
  t: TestContext,
  place: Pick<LoopFileSystem, "root"> | null = disk,
  { watcher, library } = whole,
): Promise<Kept> {
  const folder = path.join(place!.root, `watched-${folders++}`);
  for (const name of ["a", "a/deep", "a/deep/er", "b"]) fs.mkdirSync(path.join(folder, name), { recursive: true });
  for (const name of ["top", "a/one", "a/two", "a/deep/three", "a/deep/er/four", "b/five"])
    fs.writeFileSync(path.join(folder, name), `${name}\n`);
  const client = await library.openOrInit(folder);
  await watcher.add(Buffer.from(folder), [client.controlDirectory]);
  t.after(async () => {
    watcher.remove(Buffer.from(folder));
    await client.close();
  });
  const journal = watcher.journalOf(Buffer.from(folder));
  assert.ok(journal !== null, `${folder} is not watched`);
  let spared = 0;
  let inodes: readonly number[] = [];
  const since = journal.since.bind(journal);
  journal.since = (basis) => {
    const touched = since(basis);
    if (touched !== null) spared++;
    inodes = touched?.inodes ?? [];
    return touched;
  };
  const check: Kept["check"] = async (what) => {
    spared = 0;
    const { made } = await client.save({ skipUnchanged: true });
    const looked = spared === 0;
    const again = await client.save({ skipUnchanged: true, reread: true });
    if (again.made) {
      const { entries } = await client.diff("head~1", "head");
      assert.fail(`${what}: a point by the journal lacks ${JSON.stringify(entries)}`);
    }
    return { looked, made };
  };
  await check("the first save");
  await check("the second");
  return { folder, client, journal, inodes: () => inodes, check };
}

/** Does something to the folder, which the next save by the journal is to have. */
async function isSeen(
  kept: Kept,
  what: string,
  change: () => void,
  { looked = false, made = true } = {},
): Promise<void> {
  change();
  assert.deepEqual(await kept.check(what), { looked, made }, what);
}

describe("a watch of a whole file system", { skip: why }, () => {
  test("a watched folder is not scanned as a whole if an entry changes", async (t) => {
    const kept = await watched(t);
    const at = (name: string): string => path.join(kept.folder, name);
    const deep = at("a/deep/er/four");
    await isSeen(kept, "nothing", () => undefined, { made: false });
    await isSeen(kept, "a write", () => fs.writeFileSync(deep, "other"));
    await isSeen(kept, "an append", () => fs.appendFileSync(deep, "more"));
    await isSeen(kept, "a new file", () => fs.writeFileSync(at("b/new"), "new"));
    await isSeen(kept, "a removed file", () => fs.rmSync(at("b/new")));
    await isSeen(kept, "another mode", () => fs.chmodSync(deep, 0o600));
    await isSeen(kept, "another mode of a folder", () => fs.chmodSync(at("a/deep"), 0o700));
    await isSeen(kept, "another mode of the root", () => fs.chmodSync(kept.folder, 0o700));
    await isSeen(kept, "other times", () => fs.utimesSync(deep, 1000, 1000));
    await isSeen(kept, "a cut file", () => fs.truncateSync(deep, 1));
    await isSeen(kept, "another name", () => fs.renameSync(at("a/one"), at("a/uno")));
    await isSeen(kept, "another folder", () => fs.renameSync(at("a/uno"), at("b/uno")));
    await isSeen(kept, "a link", () => fs.symlinkSync("x", at("a/link")));
    await isSeen(kept, "another target", () => {
      fs.rmSync(at("a/link"));
      fs.symlinkSync("y", at("a/link"));
    });
    await isSeen(kept, "a file in place of a link", () => {
      fs.rmSync(at("a/link"));
      fs.writeFileSync(at("a/link"), "file");
    });
    await isSeen(kept, "a new tree", () => fs.cpSync(at("a"), at("c"), { recursive: true }));
    await isSeen(kept, "a removed tree", () => fs.rmSync(at("c"), { recursive: true }));
    await isSeen(kept, "the same again", () => fs.writeFileSync(deep, fs.readFileSync(deep)));
    await isSeen(kept, "nothing again", () => undefined, { made: false });
  });

  test("a watched folder is not scanned as a whole after its stat cache in memory was freed", async (t) => {
    const kept = await watched(t);
    const file = path.join(kept.folder, "a/deep/er/four");
    await isSeen(kept, "a write", () => fs.writeFileSync(file, "other"));
    kept.journal.letGo();
    await isSeen(kept, "a write after that", () => fs.writeFileSync(file, "another"));
    kept.journal.letGo();
    await isSeen(kept, "nothing", () => undefined, { made: false });
    kept.journal.letGo();
    await isSeen(kept, "one more write", () => fs.writeFileSync(file, "a third"));
  });

  test("a save of a watched folder leaves out a new cache, and the look after it does not scan the folder as a whole", async (t) => {
    const { folder, client, journal } = await watched(t);
    fs.writeFileSync(path.join(folder, "a/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55");
    const rules = async (): Promise<[string[], boolean]> => {
      const saved = await client.save({ excludeCaches: true });
      const since = t.mock.method(journal, "since");
      const { clean } = await client.status();
      const isQuick = since.mock.calls.every(({ result }) => result !== null) && since.mock.callCount() > 0;
      since.mock.restore();
      assert.equal(clean, true);
      return [saved.left_out.map((each) => each.path), isQuick];
    };
    assert.deepEqual(await rules(), [["a"], true]);
    // The directory of the second cache is unchanged since the save before.
    fs.writeFileSync(path.join(folder, "b/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55");
    await client.save({ skipUnchanged: true });
    assert.deepEqual(await rules(), [["a", "b"], true]);
    assert.ok((await client.save({ skipUnchanged: true })).entries! > 9);
  });

  test("a save of a watched folder has changed attributes", async (t) => {
    const kept = await watched(t);
    const file = path.join(kept.folder, "a/two");
    const set = spawnSync("setfattr", ["-n", "user.x", "-v", "1", file]);
    if (set.status !== 0) return t.skip("setfattr is not installed, or there are no attributes here");
    assert.deepEqual(await kept.check("an attribute"), { looked: false, made: true });
  });

  test("a save of a watched folder has a file that moves from a folder that is not listed yet into a listed one", async (t) => {
    const kept = await watched(t);
    const at = (name: string): string => path.join(kept.folder, name);
    for (const name of ["a/new", "b/new"]) fs.writeFileSync(at(name), name);
    const sys = syscalls();
    const { stat } = sys;
    const mocked = t.mock.method(sys, "stat", (...args: Parameters<typeof stat>) => {
      if (Buffer.from(nameAt(args[1], args[2])).toString() === "one" && fs.existsSync(at("b/five")))
        fs.renameSync(at("b/five"), at("a/five"));
      return stat(...args);
    });
    await kept.client.save();
    mocked.mock.restore();
    const { entries } = await kept.client.diff("head~1", "head");
    assert.deepEqual(
      entries.map((entry) => entry.path).filter((name) => name.includes("five")),
      ["a/five"],
    );
    // The folders' own times were read before the move: the next save has them.
    assert.equal((await kept.check("the folders' times")).looked, false);
  });

  test("a save of a watched folder has moved trees, even if they were changed before the move", async (t) => {
    const kept = await watched(t);
    const at = (name: string): string => path.join(kept.folder, name);
    const outside = `${kept.folder}-outside`;
    t.after(() => fs.rmSync(outside, { recursive: true, force: true }));
    fs.cpSync(at("a"), outside, { recursive: true });
    await isSeen(kept, "a tree moved in", () => fs.renameSync(outside, at("in")));
    await isSeen(kept, "a tree of another folder's name", () => {
      fs.cpSync(at("a"), outside, { recursive: true });
      fs.writeFileSync(path.join(outside, "deep/er/four"), "from elsewhere");
      fs.rmSync(at("a"), { recursive: true });
      fs.renameSync(outside, at("a"));
    });
    await isSeen(kept, "a tree moved out, changed and moved back", () => {
      fs.renameSync(at("a"), outside);
      fs.writeFileSync(path.join(outside, "deep/er/four"), "changed outside");
      fs.renameSync(outside, at("a"));
    });
    await isSeen(kept, "two trees that change places", () => {
      fs.renameSync(at("a"), outside);
      fs.renameSync(at("in"), at("a"));
      fs.renameSync(outside, at("in"));
    });
    await isSeen(kept, "a write into a folder with another name", () => {
      fs.renameSync(at("in"), at("out"));
      fs.writeFileSync(at("out/deep/er/four"), "after the move");
    });
    await isSeen(kept, "a write into it once more", () => fs.writeFileSync(at("out/deep/er/four"), "later"));
    await isSeen(kept, "a third name", () => fs.renameSync(at("out"), at("third")));
    await isSeen(kept, "a write by that", () => fs.writeFileSync(at("third/deep/er/four"), "latest"));
  });

  test("a save of a watched folder has writes through a hard link inside or outside the folder", async (t) => {
    const kept = await watched(t);
    const at = (name: string): string => path.join(kept.folder, name);
    const outside = `${kept.folder}-name`;
    t.after(() => fs.rmSync(outside, { force: true }));
    await isSeen(kept, "a name outside", () => fs.linkSync(at("a/deep/three"), outside), { made: false });
    await isSeen(kept, "a write by the name outside", () => fs.writeFileSync(outside, "by another name"));
    await isSeen(kept, "both at once", () => {
      fs.linkSync(at("b/five"), `${outside}-2`);
      fs.appendFileSync(`${outside}-2`, "appended");
      fs.rmSync(`${outside}-2`);
    });
    await isSeen(kept, "a name inside", () => fs.linkSync(at("top"), at("b/top")));
    await isSeen(kept, "a write by that", () => fs.writeFileSync(at("b/top"), "inside"));
    await isSeen(kept, "a mode by the name outside", () => fs.chmodSync(outside, 0o600));
  });

  test("a save of a watched folder has writes through a memory mapping", async (t) => {
    if (spawnSync("python3", ["-c", "import mmap"]).status !== 0) return t.skip("python3 is not installed");
    const kept = await watched(t);
    const file = path.join(kept.folder, "a/deep/mapped");
    fs.writeFileSync(file, Buffer.alloc(8192));
    await kept.check("a file to be mapped");
    const writer = startMapping(t, file);
    await writer.store("first");
    await kept.check("before the mapping is let go of");
    for (const text of ["second", "third"]) {
      await writer.store(text);
      await kept.client.save({});
      // Young files are read in any case, so that what was stored tells nothing of the mapping.
      assert.ok(kept.inodes().includes(fs.statSync(file).ino % 2 ** 32), "the save does not look at what is mapped");
      assert.equal((await content(kept.client, "a/deep/mapped")).subarray(0, text.length).toString(), text);
    }
    await writer.store("last");
    writer.child.stdin!.end();
    await once(writer.child, "exit");
    await kept.check("after the mapping was let go of");
    assert.equal((await content(kept.client, "a/deep/mapped")).subarray(0, 4).toString(), "last");
  });

  test("a watched folder is scanned as a whole once after its ignore file changed", async (t) => {
    const kept = await watched(t);
    const rules = path.join(kept.folder, ".cairnignore");
    await isSeen(kept, "new rules", () => fs.writeFileSync(rules, "four\n"), { looked: true });
    await isSeen(kept, "a write beside them", () => fs.writeFileSync(path.join(kept.folder, "b/five"), "5"));
    await isSeen(kept, "other rules", () => fs.writeFileSync(rules, "three\n"), { looked: true });
    await isSeen(kept, "no rules", () => fs.rmSync(rules), { looked: true });
  });

  test("a watched folder is scanned as a whole once after another folder took its path", async (t) => {
    const kept = await watched(t);
    const old = `${kept.folder}-old`;
    t.after(() => fs.rmSync(old, { recursive: true, force: true }));
    await isSeen(
      kept,
      "another folder",
      () => {
        fs.renameSync(kept.folder, old);
        fs.mkdirSync(kept.folder);
        fs.writeFileSync(path.join(kept.folder, "other"), "other");
      },
      { looked: true },
    );
    await isSeen(kept, "a write in it", () => fs.writeFileSync(path.join(kept.folder, "other"), "more"));
  });

  test("a save of a watched folder has writes made while the folder or its parent was renamed", async (t) => {
    const above = { ...disk!, root: path.join(disk!.root, "above") };
    fs.mkdirSync(above.root, { recursive: true });
    const kept = await watched(t, above);
    for (const [name, other] of [
      [kept.folder, `${kept.folder}-for-a-while`],
      [above.root, `${above.root}-for-a-while`],
    ] as const) {
      const told = new Promise<void>((done) => t.after(whole.watcher.onChange(() => done())));
      fs.renameSync(name, other);
      fs.writeFileSync(path.join(other, path.relative(name, kept.folder), "a/deep/er/four"), other);
      fs.writeFileSync(path.join(disk!.root, "beside"), "");
      // The kernel's word is read while the folder is away: nothing of the watcher's tells when.
      await Promise.race([told, new Promise((done) => setTimeout(done, 200))]);
      fs.renameSync(other, name);
      await kept.check("the name that it had before");
      await isSeen(kept, "a write after that", () => fs.writeFileSync(path.join(kept.folder, "a/one"), other));
    }
  });

  test("a save of a watched folder has writes made after its file system was mounted again", async (t) => {
    const place = loopFileSystem(t, "ext4");
    if (place === null) return;
    const kept = await watched(t, place);
    const file = path.join(kept.folder, "a/deep/er/four");
    place.remount();
    await isSeen(kept, "a write on the new mount", () => fs.writeFileSync(file, "after"), { looked: true });
    await isSeen(kept, "one more", () => fs.writeFileSync(file, "and after"));
  });

  test("a save of a watched folder has writes through a descriptor of an unlinked name", async (t) => {
    const kept = await watched(t);
    const at = (name: string): string => path.join(kept.folder, name);
    const fd = fs.openSync(at("a/one"), "r+");
    t.after(() => fs.closeSync(fd));
    await isSeen(kept, "another name", () => {
      fs.linkSync(at("a/one"), at("b/uno"));
      fs.rmSync(at("a/one"));
    });
    await isSeen(kept, "a write", () => void fs.writeSync(fd, "written", 0));
  });

  test("a save of a watched folder follows an ignore file that was changed through a hard link", async (t) => {
    const kept = await watched(t);
    const other = `${kept.folder}-rules`;
    t.after(() => fs.rmSync(other, { force: true }));
    fs.writeFileSync(path.join(kept.folder, ".cairnignore"), "nothing\n");
    fs.linkSync(path.join(kept.folder, ".cairnignore"), other);
    await kept.check("rules");
    fs.appendFileSync(other, "four\n");
    await kept.check("other rules");
    const entries = (await kept.client.show("head", "a/deep/er")).entries.map((each) => each.path);
    assert.deepEqual(entries, []);
  });

  test("a watched folder is not watched a second time through another mount", async (t) => {
    const kept = await watched(t);
    const other = `${kept.folder}-bound`;
    fs.mkdirSync(other);
    if (spawnSync("mount", ["--bind", path.join(kept.folder, "a"), other]).status !== 0)
      return t.skip("nothing can be mounted here");
    t.after(() => void spawnSync("umount", [other]));
    await whole.watcher.add(Buffer.from(other), []);
    assert.equal(whole.watcher.journalOf(Buffer.from(other)), null);
  });

  test("a watched folder is scanned as a whole once after a mount in it, and once after the unmount", async (t) => {
    const kept = await watched(t);
    const inside = path.join(kept.folder, "a/deep");
    if (spawnSync("mount", ["-t", "tmpfs", "none", inside]).status !== 0) return t.skip("nothing can be mounted here");
    t.after(() => void spawnSync("umount", [inside]));
    assert.equal((await kept.check("a mount")).looked, true);
    assert.equal((await kept.check("a mount that stays")).looked, false);
    fs.writeFileSync(path.join(inside, "on the mount"), "x");
    await kept.check("a write to the mount");
    execFileSync("umount", [inside]);
    assert.equal((await kept.check("no mount any more")).looked, true);
  });

  test("a watched folder is scanned as a whole once if the kernel's queue overflows", async (t) => {
    const kept = await watched(t);
    const many = path.join(kept.folder, "many");
    // No turn of the event loop in between: nobody reads what the kernel tells.
    fs.mkdirSync(many);
    for (let i = 0; i < 17_000; i++) fs.writeFileSync(path.join(many, `f${i}`), "");
    assert.equal((await kept.check("many files")).looked, true);
    await isSeen(kept, "one of them", () => fs.writeFileSync(path.join(many, "f77"), "x"));
  });

  test("a change in a watched folder notifies listeners, and a change beside it does not", async (t) => {
    const kept = await watched(t);
    const told: { root: string; notice: ChangeNotice }[] = [];
    t.after(whole.watcher.onChange((root, notice) => told.push({ root: root.toString(), notice })));
    fs.writeFileSync(`${kept.folder}-beside`, "x");
    t.after(() => fs.rmSync(`${kept.folder}-beside`));
    fs.writeFileSync(path.join(kept.folder, "a/one"), "x");
    await eventually("a notice", () => told.length > 0);
    assert.ok(told.every(({ root }) => root === kept.folder));
    assert.ok(told.some(({ notice }) => notice.paths.includes("a/one")));
    assert.ok(told.every(({ notice }) => notice.paths.every((each) => !each.includes("beside"))));
  });

  for (const [kind, how] of [
    ["ext4", "of the file system"],
    ["xfs", "of the file system"],
    ["ext4", "of each directory"],
  ] as const)
    test(`the journal and a full scan give equal saves on ${kind}, with notices ${how}, after random changes`, async (t) => {
      const place = loopFileSystem(t, kind);
      if (place === null) return;
      const isSingle = how === "of each directory";
      const kept = await watched(t, place, isSingle ? single : whole);
      const { folder } = kept;
      const random = seeded(kind.length * 7919);
      let byJournal = 0;
      const rounds = LONG ? 2000 : 15;
      for (let round = 0; round < rounds; round++) {
        const done = Array.from({ length: 1 + random(6) }, () =>
          act(folder, path.join(place.root, "beside"), random, isSingle),
        );
        const { looked } = await kept.check(`round ${round}: ${done.join("; ")}`);
        if (!looked) byJournal++;
      }
      assert.ok(byJournal > rounds / 2, `${byJournal} of ${rounds} went by the journal`);
    });

  test("the journal and a full scan give equal saves while a program writes", async (t) => {
    const kept = await watched(t);
    const writer = spawn(process.execPath, ["-e", WRITER, kept.folder], { stdio: ["pipe", "inherit", "inherit"] });
    t.after(() => void writer.kill("SIGKILL"));
    for (let i = 0; i < (LONG ? 400 : 25); i++) await kept.client.save({});
    writer.stdin.end();
    await once(writer, "exit");
    await kept.check("the program has ended");
    assert.equal((await kept.check("nothing")).looked, false);
  });
});

describe("a watch of each directory of a folder", { skip: why }, () => {
  test("a folder watched by directory is not scanned as a whole if an entry changes, even in a new folder", async (t) => {
    const kept = await watched(t, disk, single);
    const at = (name: string): string => path.join(kept.folder, name);
    await isSeen(kept, "nothing", () => undefined, { made: false });
    await isSeen(kept, "a write", () => fs.writeFileSync(at("a/deep/er/four"), "other"));
    await isSeen(kept, "a new tree", () => fs.cpSync(at("a"), at("new/er/est"), { recursive: true }));
    await isSeen(kept, "a write in that", () => fs.writeFileSync(at("new/er/est/deep/er/four"), "more"));
    await isSeen(kept, "another name of it", () => fs.renameSync(at("new"), at("other")));
    await isSeen(kept, "a write by that", () => fs.writeFileSync(at("other/er/est/deep/er/four"), "most"));
    await isSeen(kept, "a removed tree", () => fs.rmSync(at("other"), { recursive: true }));
    await isSeen(kept, "a mode", () => fs.chmodSync(at("a/deep"), 0o700));
  });

  test("a folder watched by directory is scanned as a whole once if the kernel's queue overflows", async (t) => {
    const kept = await watched(t, disk, single);
    for (let i = 0; i < 6000; i++) fs.writeFileSync(path.join(kept.folder, "b", `f${i}`), "x");
    fs.mkdirSync(path.join(kept.folder, "b/new/er"), { recursive: true });
    fs.writeFileSync(path.join(kept.folder, "b/new/er/file"), "");
    assert.equal((await kept.check("many files")).looked, true);
    await isSeen(kept, "a write in a new folder", () => fs.writeFileSync(path.join(kept.folder, "b/new/er/file"), "x"));
  });

  test("a folder with more directories than the limit is no longer watched", async (t) => {
    const place = loopFileSystem(t, "ext4");
    if (place === null) return;
    const said: string[] = [];
    const watcher = Watcher.start((line) => said.push(line), InotifySource.open(3))!;
    t.after(async () => watcher.stop());
    const [many, few] = ["many", "few"].map((name) => path.join(place.root, name)) as [string, string];
    for (const folder of [many, few]) fs.mkdirSync(path.join(folder, "a"), { recursive: true });
    for (const name of ["b", "c"]) fs.mkdirSync(path.join(many, name));
    await watcher.add(Buffer.from(many), []);
    await watcher.add(Buffer.from(few), []);
    assert.equal(watcher.journalOf(Buffer.from(many)), null);
    const journal = watcher.journalOf(Buffer.from(few))!;
    fs.mkdirSync(path.join(few, "b/c/d"), { recursive: true });
    journal.mark();
    assert.equal(watcher.journalOf(Buffer.from(few)), null);
    assert.match(said.join("\n"), /few is not watched any more: .*max_user_watches/);
  });
});

/** Writes, renames and removes in the folder until its input ends. */
const WRITER = `
const fs = require("node:fs"), path = require("node:path"), root = process.argv[1];
let on = true, i = 0;
process.stdin.on("end", () => (on = false)).resume();
const step = () => {
  if (!on) return;
  i++;
  const folder = path.join(root, "w" + (i % 7), "x" + (i % 3));
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, "f" + (i % 50)), String(i));
  if (i % 11 === 0) fs.rmSync(path.join(root, "w" + (i % 5)), { recursive: true, force: true });
  if (i % 13 === 0) try { fs.renameSync(path.join(root, "w1"), path.join(root, "w" + (20 + (i % 3)))); } catch {}
  setImmediate(step);
};
step();
`;

function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** One change of a folder, or of something beside it that has to do with it. Returns what it was. */
function act(root: string, beside: string, random: (below: number) => number, isSingle: boolean): string {
  const pick = <T>(all: readonly T[]): T => all[random(all.length)]!;
  const entries = fs.readdirSync(root, { recursive: true, withFileTypes: true });
  const files = entries.filter((each) => each.isFile()).map((each) => path.join(each.parentPath, each.name));
  const folders = [
    root,
    ...entries.flatMap((each) => (each.isDirectory() ? [path.join(each.parentPath, each.name)] : [])),
  ];
  const file = files.length === 0 ? path.join(root, "only") : pick(files);
  const name = path.join(pick(folders), `n${random(12)}`);
  const actions: Record<string, () => void> = {
    write: () => fs.writeFileSync(file, `w${random(1000)}`),
    make: () => fs.writeFileSync(name, `m${random(1000)}`),
    append: () => fs.appendFileSync(file, "+"),
    cut: () => fs.truncateSync(file, random(3)),
    mode: () => fs.chmodSync(pick([file, ...folders]), pick([0o700, 0o755, 0o711])),
    times: () => fs.utimesSync(file, random(1e9), random(1e9)),
    remove: () => fs.rmSync(file),
    folder: () => fs.mkdirSync(name),
    removeFolder: () => fs.rmSync(pick(folders.slice(1)), { recursive: true }),
    rename: () => fs.renameSync(file, name),
    renameFolder: () => fs.renameSync(pick(folders.slice(1)), name),
    link: () => fs.linkSync(file, name),
    linkBeside: () => {
      fs.rmSync(beside, { recursive: true, force: true });
      fs.linkSync(file, beside);
    },
    writeBeside: () => fs.appendFileSync(beside, "beside"),
    moveOut: () => fs.renameSync(pick(folders.slice(1)), `${beside}-folder`),
    changeOutside: () => fs.writeFileSync(path.join(`${beside}-folder`, `n${random(12)}`), "outside"),
    moveIn: () => fs.renameSync(`${beside}-folder`, name),
    symlink: () => fs.symlinkSync(`t${random(9)}`, name),
  };
  // inotify on directories does not notify of a write by a name outside, nor at the other names of a file that gets one more.
  // The daemon uses it for events alone: see `changesOf` in watched-workspaces.ts.
  if (isSingle) for (const each of ["link", "linkBeside", "writeBeside"]) delete actions[each];
  const what = pick(Object.keys(actions));
  try {
    actions[what]!();
    return what;
  } catch (error) {
    return `${what} (${(error as NodeJS.ErrnoException).code})`;
  }
}

async function content(client: Client, name: string): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of client.read("head", name)) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** A process that has a file mapped, closed, and stores what it is told. */
function startMapping(t: TestContext, file: string): { child: ChildProcess; store(text: string): Promise<void> } {
  const program = `
import mmap, sys
f = open(sys.argv[1], "r+b")
m = mmap.mmap(f.fileno(), 0)
f.close()
for line in sys.stdin:
    m[0:len(line) - 1] = line[:-1].encode()
    m.flush()
    print("done", flush=True)
`;
  const child = spawn("python3", ["-c", program, file], { stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => void child.kill("SIGKILL"));
  return {
    child,
    async store(text) {
      const done = once(child.stdout, "data");
      child.stdin.write(`${text}\n`);
      await done;
    },
  };
}
