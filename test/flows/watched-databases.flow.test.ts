import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, test, type TestContext } from "node:test";
import { openLibrary } from "../../src/compose.ts";
import type { Client } from "../../src/contract/index.ts";
import { InotifySource } from "../../src/daemon/watch/inotify-source.ts";
import { Watcher } from "../../src/daemon/watch/watcher.ts";
import type { SeenEntries } from "../../src/workspace/store/engine.ts";
import { whyNoNamespaces } from "../fixtures/database-holder.ts";
import { HalfWriter, makeHalfWritten } from "../fixtures/half-writer.ts";
import { makeHoldable } from "../fixtures/held-place.ts";
import { loopFileSystem, ORDINARY_USER } from "../fixtures/loop-file-system.ts";

/** Databases in use that a save of a watched folder on btrfs finds without the kernel's table of locks. */

interface Watched {
  folder: string;
  client: Client;
  watcher: Watcher;
  /** Saves; returns the paths that the point labels as torn, and whether the save could do without the table of locks. */
  save(): Promise<{ torn: string[]; byWatch: boolean }>;
  seen: SeenEntries;
}

async function watched(t: TestContext, fill: (folder: string) => unknown = () => undefined): Promise<Watched | null> {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return null;
  const folder = path.join(volume.root, "ws");
  makeHoldable(folder, "btrfs-snapshot");
  fs.chmodSync(folder, 0o777);
  fs.mkdirSync(path.join(folder, "in/side"), { recursive: true });
  fs.writeFileSync(path.join(folder, "text"), "text");
  await fill(folder);
  const watcher = Watcher.start(() => undefined, InotifySource.open())!;
  const library = await openLibrary({ seenIn: (root) => watcher.journalOf(root) });
  const client = await library.openOrInit(folder, { engineType: "btrfs-snapshot", allow: ["holders"] });
  t.after(async () => {
    await client.close();
    await watcher.stop();
  });
  await watcher.add(Buffer.from(folder), [client.controlDirectory]);
  const seen = watcher.journalOf(Buffer.from(folder))!;
  const takeSeen = seen.takeSeen.bind(seen);
  let isLost = false;
  seen.takeSeen = () => {
    const taken = takeSeen();
    isLost ||= taken === null;
    return taken;
  };
  const save = async (): ReturnType<Watched["save"]> => {
    isLost = false;
    const { labels } = await client.save();
    return {
      torn: labels
        .filter(({ label }) => label === "torn-possible")
        .map((each) => each.path)
        .toSorted(),
      byWatch: !isLost,
    };
  };
  return { folder, client, watcher, save, seen };
}

const FAR = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"];
const OTHER = ["setpriv", `--reuid=${ORDINARY_USER}`, `--regid=${ORDINARY_USER}`, "--clear-groups"];

interface Case {
  /** The database's path when the save is made. */
  name: string;
  prefix?: readonly string[];
  /** Before the first save. */
  fill?: (folder: string) => void;
  /** Makes what the program then opens; returns its path. */
  before?: (folder: string) => string;
  /** With the transaction open. */
  after?: (folder: string) => void;
}

const made = (file: string): void => makeHalfWritten(file).close();
const CASES: Readonly<Record<string, Case>> = {
  "was made since the last save": { name: "new.db" },
  "was made in a new directory": {
    name: "a/b/c/new.db",
    before: (folder) => {
      fs.mkdirSync(path.join(folder, "a/b/c"), { recursive: true });
      return "a/b/c/new.db";
    },
  },
  "was renamed while it is open": {
    name: "second.db",
    before: () => "first.db",
    after: (folder) => fs.renameSync(path.join(folder, "first.db"), path.join(folder, "second.db")),
  },
  "is in a directory that was renamed while it is open": {
    name: "out/side/x.db",
    before: () => "in/side/x.db",
    after: (folder) => fs.renameSync(path.join(folder, "in"), path.join(folder, "out")),
  },
  "was idle since before the watch": { name: "old.db", fill: (folder) => made(path.join(folder, "old.db")) },
  "is opened through a hard link": {
    name: "in/link.db",
    fill: (folder) => made(path.join(folder, "old.db")),
    before: (folder) => {
      fs.linkSync(path.join(folder, "old.db"), path.join(folder, "in/link.db"));
      return "in/link.db";
    },
  },
  "is used in another PID namespace": { name: "far.db", prefix: FAR },
  "is used by another user": { name: "other.db", prefix: OTHER },
  "has a name that ends like a log": { name: "odd-wal" },
};

const skip = whyNoNamespaces() ?? false;

describe("a database in a transaction without a journal", { skip }, () => {
  for (const [what, { name, prefix, fill, before, after }] of Object.entries(CASES))
    test(`is labelled by a save of a watched folder that reads no table of locks, if the database ${what}`, async (t) => {
      const at = await watched(t, fill);
      if (at === null) return;
      assert.deepEqual(await at.save(), { torn: [], byWatch: false });
      assert.deepEqual(await at.save(), { torn: [], byWatch: true });
      const opened = before?.(at.folder) ?? name;
      const writer = await HalfWriter.start(t, path.join(at.folder, opened), "memory", prefix);
      after?.(at.folder);
      const saved = await at.save();
      assert.ok(saved.torn.includes(name), JSON.stringify(saved));
      assert.equal(saved.byWatch, true);
      // Still in its transaction, of which nobody is told any more.
      assert.ok((await at.save()).torn.includes(name));
      await writer.commit();
      assert.deepEqual(await at.save(), { torn: [], byWatch: true });
    });

  test("is labelled by the first save of a folder, and by a save after lost events", async (t) => {
    const at = await watched(t);
    if (at === null) return;
    const first = await HalfWriter.start(t, path.join(at.folder, "first.db"), "off");
    assert.deepEqual(await at.save(), { torn: ["first.db"], byWatch: false });
    await first.commit();
    await at.save();
    const many = path.join(at.folder, "many");
    fs.mkdirSync(many);
    for (let i = 0; i < 17_000; i++) fs.writeFileSync(path.join(many, `f${i}`), "");
    const second = await HalfWriter.start(t, path.join(many, "second.db"), "off");
    assert.deepEqual(await at.save(), { torn: ["many/second.db"], byWatch: false });
    assert.deepEqual(await at.save(), { torn: ["many/second.db"], byWatch: true });
    await second.commit();
    assert.deepEqual(await at.save(), { torn: [], byWatch: true });
  });

  test("is labelled by a save after a restore by exchange, which puts another subvolume at the folder's path", async (t) => {
    const at = await watched(t);
    if (at === null) return;
    const { save_point_id: target } = await at.client.save();
    fs.writeFileSync(path.join(at.folder, "text"), "other");
    const { method } = await at.client.restore({ target, method: "exchange" });
    assert.equal(method, "exchange");
    await at.client.undo({ method: "exchange" });
    const writer = await HalfWriter.start(t, path.join(at.folder, "in/new.db"), "memory");
    assert.deepEqual(await at.save(), { torn: ["in/new.db"], byWatch: false });
    await writer.commit();
    // The watch of the new subvolume is set up by now.
    await at.save();
    const again = await HalfWriter.start(t, path.join(at.folder, "in/side/again.db"), "memory");
    assert.deepEqual(await at.save(), { torn: ["in/side/again.db"], byWatch: true });
    await again.commit();
  });
});

test(
  "a save knows an empty database beside its journal, and no file that another program has locked",
  { skip },
  async (t) => {
    const at = await watched(t);
    if (at === null) return;
    await at.save();
    const database = new DatabaseSync(path.join(at.folder, "empty.db"));
    t.after(() => database.close());
    database.exec("BEGIN; CREATE TABLE t (v)");
    assert.ok(fs.existsSync(path.join(at.folder, "empty.db-journal")));
    assert.equal(fs.statSync(path.join(at.folder, "empty.db")).size, 0);
    const lock = spawnSync("python3", ["--version"]).status === 0 ? lockWhole(t, path.join(at.folder, "locked")) : null;
    if (lock !== null) await lock;
    assert.deepEqual(await at.save(), { torn: [], byWatch: true });
    assert.deepEqual([...at.seen.databases], ["empty.db"]);
    // The program's locks are as they were: the save opened none of its files.
    const other = new DatabaseSync(path.join(at.folder, "empty.db"));
    assert.throws(() => other.exec("BEGIN IMMEDIATE"), /locked/);
    other.close();
    database.exec("COMMIT");
  },
);

async function lockWhole(t: TestContext, file: string): Promise<void> {
  const program =
    "import fcntl,sys,time\nf=open(sys.argv[1],'w')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('locked',flush=True)\ntime.sleep(600)";
  const child = spawn("python3", ["-c", program, file], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => void child.kill("SIGKILL"));
  await once(child.stdout, "data");
}
