import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { BlobIndex, type BlobType, DATA_BLOB, TREE_BLOB } from "../../src/repository/index/blob-index.ts";
import { BlobSource } from "../../src/repository/read/blob-source.ts";
import { NearPacks } from "../../src/repository/read/near-packs.ts";
import { hex } from "../../src/formats/bytes.ts";
import type { TreeNode } from "../../src/formats/restic/tree.ts";
import { lookIntoRepository } from "../../src/workspace/store/embedded-store.ts";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import type { CairnError } from "../../src/errors.ts";
import type { Client } from "../../src/contract/index.ts";
import { buildCommand, cairn, SCRATCH, type Outcome } from "../fixtures/command.ts";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";

/** Damage of every file that Cairn keeps: it is named, the rest works, and doctor mends what can be mended. */

interface Scene {
  folder: string;
  control: string;
  client: Client;
  /** oldest first */
  points: { id: string; state: FolderState; snapshot: string; dataPacks: string[] }[];
}

async function scene(): Promise<Scene> {
  const folder = newFolder("damage");
  const client = await clientOf(folder);
  const control = client.controlDirectory;
  const points: Scene["points"] = [];
  for (const make of [
    makeFirst,
    makeSecond,
    (at: string): void => fs.writeFileSync(path.join(at, "third"), "third\n".repeat(50)),
  ]) {
    const before = new Set(filesOf(path.join(control, "store")));
    make(folder);
    const { save_point_id: id } = await client.save();
    const fresh = filesOf(path.join(control, "store")).filter((name) => !before.has(name));
    points.push({
      id,
      state: readFolder(folder),
      snapshot: fresh.find((name) => name.startsWith("snapshots/"))!,
      dataPacks: fresh.filter((name) => name.startsWith("data/")),
    });
  }
  return { folder, control, client, points };
}

function filesOf(root: string): string[] {
  return fs
    .readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)));
}

function flip(file: string, at = 0.5): void {
  const mode = fs.statSync(file).mode;
  fs.chmodSync(file, 0o600);
  const bytes = fs.readFileSync(file);
  const place = Math.floor(bytes.length * at);
  bytes[place] = bytes[place]! ^ 0x55;
  fs.writeFileSync(file, bytes);
  fs.chmodSync(file, mode);
}

/** Opening it waits for whoever writes into it, and nobody does. */
function putPipe(file: string): void {
  fs.rmSync(file);
  assert.equal(spawnSync("mkfifo", [file]).status, 0);
}

/** Everything below a directory but caches and what a command may make for itself. */
function keptFiles(control: string): Map<string, string> {
  return new Map(
    filesOf(control)
      .filter((name) => !/^(cache|tmp|store\/locks)\/|(^|\/)lock$/.test(name))
      .map((name) => [name, fs.readFileSync(path.join(control, name)).toString("base64")]),
  );
}

interface Damage {
  name: string;
  hurt(at: Scene): void;
  /** points, by place, that may be lost for good */
  lost?: number[];
  /** verify finds nothing: only what can be made again was lost */
  harmless?: boolean;
  /** what the report must name */
  names?: RegExp;
}

const store = (at: Scene, name: string): string => path.join(at.control, "store", name);
const descriptor = (at: Scene, sequence: number): string =>
  path.join(at.control, "workspaces/main/points", `${sequence}`.padStart(10, "0"), "descriptor.json");
const caches = (at: Scene, pattern: RegExp): string[] =>
  filesOf(path.join(at.control, "cache"))
    .filter((name) => pattern.test(name))
    .map((name) => path.join(at.control, "cache", name));
const indexes = (at: Scene): string[] =>
  filesOf(path.join(at.control, "store/index")).map((name) => store(at, `index/${name}`));

const DAMAGES: Damage[] = [
  { name: "a flipped byte in a descriptor", hurt: (at) => flip(descriptor(at, 2)), names: /descriptor/ },
  { name: "an empty descriptor", hurt: (at) => fs.writeFileSync(descriptor(at, 2), ""), names: /descriptor/ },
  { name: "a flipped byte in a snapshot", hurt: (at) => flip(store(at, at.points[1]!.snapshot)), names: /snapshot/ },
  { name: "a missing snapshot", hurt: (at) => fs.rmSync(store(at, at.points[1]!.snapshot)), harmless: true },
  {
    name: "a flipped byte in every index file",
    hurt: (at) => indexes(at).forEach((file) => flip(file)),
    names: /index/,
  },
  {
    name: "missing index files, caches too",
    hurt: (at) => [...indexes(at), ...caches(at, /./)].forEach((file) => fs.rmSync(file)),
    names: /index|tree|content/,
  },
  {
    name: "a flipped byte in the packs of the second point",
    hurt: (at) => at.points[1]!.dataPacks.forEach((name) => flip(store(at, name), 0.3)),
    lost: [1, 2],
    names: /pack|tree|content/,
  },
  {
    name: "missing packs of the second point",
    hurt: (at) => at.points[1]!.dataPacks.forEach((name) => fs.rmSync(store(at, name))),
    lost: [1, 2],
    names: /pack|tree|content/,
  },
  {
    name: "a truncated pack of the third point",
    hurt: (at) => fs.truncateSync(store(at, at.points[2]!.dataPacks[0]!), 20),
    lost: [2],
    names: /pack|tree|content/,
  },
  {
    name: "a flipped byte in the index cache",
    hurt: (at) => caches(at, /^index/).forEach((file) => flip(file)),
    harmless: true,
  },
  {
    name: "a flipped byte in the stat cache",
    hurt: (at) => caches(at, /^stat-[0-9a-f]+$/).forEach((file) => flip(file)),
    harmless: true,
  },
  {
    name: "a catalog of nonsense",
    hurt: (at) => caches(at, /^points-/).forEach((file) => fs.writeFileSync(file, "nonsense\n".repeat(30))),
    harmless: true,
  },
  {
    name: "no caches at all",
    hurt: (at) => fs.rmSync(path.join(at.control, "cache"), { recursive: true }),
    harmless: true,
  },
  { name: "no key in the clear", hurt: (at) => fs.rmSync(path.join(at.control, "store-key")), harmless: true },
  { name: "a damaged key in the clear", hurt: (at) => flip(path.join(at.control, "store-key")), harmless: true },
  ...["store-key", "store-password", "cache/index", "cache/points-main"].map((name) => ({
    name: `a pipe in place of ${name}`,
    hurt: (at: Scene) => putPipe(path.join(at.control, name)),
    harmless: true,
  })),
  {
    name: "a link in a circle in place of store-password",
    hurt: ({ control }) => {
      fs.rmSync(path.join(control, "store-password"));
      fs.symlinkSync("store-password", path.join(control, "store-password"));
    },
    harmless: true,
  },
  { name: "a pipe in place of the store's config", hurt: (at) => putPipe(store(at, "config")), names: /config/ },
  {
    name: "pipes in place of the index files",
    hurt: (at) => [...indexes(at), ...caches(at, /./)].forEach(putPipe),
    names: /index/,
  },
  {
    name: "pipes in place of the packs of the second point",
    hurt: (at) => at.points[1]!.dataPacks.forEach((name) => putPipe(store(at, name))),
    lost: [1, 2],
    names: /pack|tree|content/,
  },
];

describe("damage of Cairn's own files", () => {
  for (const damage of DAMAGES) {
    test(`with ${damage.name}, doctor --repair makes saves and undamaged points work`, async () => {
      const at = await scene();
      damage.hurt(at);
      const { folder } = at;
      const run = (...args: string[]): Outcome => {
        const done = cairn([...args, "-C", folder]);
        assert.notEqual(done.error?.code, "internal", `${args.join(" ")}: ${done.stdout}`);
        assert.doesNotMatch(done.stderr, /\n\s+at .*\.(ts|js):/, args.join(" "));
        return done;
      };
      const history = run("history", "--all");
      assert.ok(history.status === 0, history.stdout);
      const status = run("status");
      assert.ok(status.status === 0 || status.status === 6, status.stdout);

      const verified = run("verify", "--all");
      assert.equal(verified.status, damage.harmless === true ? 0 : 6, verified.stdout);
      if (damage.names !== undefined)
        assert.match(JSON.stringify(verified.data["problems"] ?? verified.error), damage.names);

      const before = keptFiles(at.control);
      const looked = run("doctor");
      assert.ok([0, 6].includes(looked.status!), looked.stdout);
      assert.deepEqual(keptFiles(at.control), before, "doctor without --repair changes nothing");
      if (damage.harmless !== true) assert.ok((looked.data["findings"] as unknown[]).length > 0, looked.stdout);

      // What is not hurt comes back, before anything is mended.
      const lost = new Set(damage.lost ?? []);
      const to = path.join(SCRATCH, `to-${path.basename(folder)}`);
      if (damage.harmless === true || damage.lost !== undefined) {
        await at.client.restore({ target: at.points[0]!.id, to });
        assertFolder(to, at.points[0]!.state, "the first point");
        fs.rmSync(to, { recursive: true });
      }

      run("doctor", "--repair");
      const saved = run("save", "--reread", "-m", "after the repair");
      assert.equal(saved.status, 0, saved.stdout + saved.stderr);
      assert.equal(
        (saved.data["save_point"] as { payload_root_hash: string }).payload_root_hash,
        walkDigests(folder).state,
      );
      assert.deepEqual((await at.client.verify("head")).problems, []);
      for (const [i, point] of at.points.entries()) {
        const problem = await at.client.restore({ target: point.id, to }).then(
          (done) => done.left_out[0]?.detail,
          (error: unknown) => (error as CairnError).code,
        );
        if (!lost.has(i)) assert.equal(problem, undefined, `point ${i}`);
        if (problem === undefined) assertFolder(to, point.state, `point ${i}`);
        fs.rmSync(to, { recursive: true, force: true });
      }
    });
  }
});

test("save succeeds and prints the full id if another workspace's points cannot be listed", async () => {
  const folder = newFolder("damage");
  const client = await clientOf(folder);
  fs.writeFileSync(path.join(folder, "file"), "first");
  await client.save();
  const { workspace } = await client.fork("head", path.join(SCRATCH, `beside-${path.basename(folder)}`));
  const points = path.join(client.controlDirectory, "workspaces", workspace.name, "points");
  assert.ok(fs.statSync(points).isDirectory());
  fs.rmSync(points, { recursive: true });
  fs.writeFileSync(points, "no directory");
  fs.writeFileSync(path.join(folder, "file"), "second");
  const done = spawnSync(process.execPath, [buildCommand(), "save", folder], { encoding: "utf8" });
  assert.equal(done.status, 0, done.stdout + done.stderr);
  const saved = await client.latestSavePoint();
  assert.match(done.stdout, new RegExp(`saved ${saved?.save_point_id}`));
});

test("one damaged point keeps status, turns and receipts from nothing", async () => {
  const folder = newFolder("damage");
  const client = await clientOf(folder);
  const repository = path.join(SCRATCH, `receipts-${path.basename(folder)}`);
  const env = { CAIRN_PASSWORD: "secret" };
  const run = (...args: string[]): Outcome => cairn(["-C", folder, ...args], { env });
  const hook = (event: string, facts: object): void => {
    const input = JSON.stringify({ hook_event_name: event, cwd: folder, session_id: "s", ...facts });
    const { status, stderr } = spawnSync(process.execPath, [buildCommand(), "agent", "hook", "gemini"], { input });
    assert.equal(status, 0, stderr.toString());
  };
  fs.writeFileSync(path.join(folder, "file"), "first");
  await client.save();
  assert.equal(run("backup", "init", "-r", repository).status, 0);
  assert.equal(run("backup", "create", "-r", repository).status, 0);
  hook("BeforeAgent", { prompt: "run" });
  fs.writeFileSync(path.join(folder, "file"), "second");
  hook("AfterAgent", {});
  assert.equal(run("rewind").status, 0);
  fs.writeFileSync(path.join(folder, "file"), "third");
  await client.save();
  const points = path.join(client.controlDirectory, "workspaces/main/points");
  const newest = fs.readdirSync(points).toSorted().at(-1)!;
  for (const each of fs.readdirSync(points)) if (each !== newest) flip(path.join(points, each, "descriptor.json"));
  const last = cairn(["status", "-C", folder]);
  assert.equal(last.status, 0, last.error?.message);
  assert.equal((last.data["last_backup"] as { saved_since: number }).saved_since, 2);
  const { turns } = await client.turns();
  assert.equal(turns.length, 1);
  const { debt } = await client.receipts();
  const made = debt.map(({ owed }) => owed?.map(({ created_at: at }) => at));
  assert.deepEqual(made, [[null]]);
});

/** Changes a byte of what the store has of an entry of a point: a file's first blob, or a directory's tree. */
async function hurtEntry({ control, id }: { control: string; id: string }, name: string): Promise<void> {
  const repository = await lookIntoRepository(path.join(control, "store"));
  const index = await BlobIndex.load(repository, null);
  const blobs = new BlobSource({ keys: repository.keys, index, packs: new NearPacks(repository.storage, "") });
  const { content } = pointOf(control, id);
  let node: TreeNode | undefined;
  for (const part of name.split("/")) {
    const nodes = await blobs.listTree(node?.subtree ?? Buffer.from(content.tree, "hex"));
    node = nodes.find((each) => Buffer.from(each.name).toString() === part)!;
  }
  blobs.close();
  const [blob, type]: [Uint8Array, BlobType] =
    node!.type === "dir" ? [node!.subtree!, TREE_BLOB] : [node!.content!.subarray(0, 32), DATA_BLOB];
  const { pack, offset } = index.place(index.lookup(blob, 0, type));
  const file = path.join(control, "store/data", hex(pack).slice(0, 2), hex(pack));
  flip(file, (offset + 20) / fs.statSync(file).size);
}

function pointOf(control: string, id: string): { content: { tree: string } } {
  const points = path.join(control, "workspaces/main/points");
  const all = fs.readdirSync(points).map((each) => path.join(points, each, "descriptor.json"));
  const descriptors = all.map(
    (file) => JSON.parse(fs.readFileSync(file, "utf8")) as ReturnType<typeof pointOf> & { save_point_id: string },
  );
  return descriptors.find(({ save_point_id: own }) => own === id)!;
}

test("restore of a damaged point restores the undamaged entries and lists the damaged ones", async () => {
  const folder = newFolder("damage");
  const client = await clientOf(folder);
  const control = client.controlDirectory;
  const write = (name: string, text: string): void => fs.writeFileSync(path.join(folder, name), text.repeat(3000));
  for (const name of ["a", "bad", "c"]) write(name, `first ${name}\n`);
  fs.mkdirSync(path.join(folder, "lost"));
  write("lost/inside", "first inside\n");
  const { save_point_id: id } = await client.save();
  for (const name of ["bad", "c"]) write(name, `second ${name}\n`);
  fs.rmSync(path.join(folder, "a"));
  write("lost/inside", "second inside\n");
  write("lost/new", "second new\n");
  const second = await client.save();
  await hurtEntry({ control, id }, "bad");
  await hurtEntry({ control, id }, "lost");

  const done = cairn(["restore", id, "-C", folder]);

  assert.equal(done.status, 10, done.stdout + done.stderr);
  const leftOut = (done.data["left_out"] as { path: string; reason: string }[]).map((each) => [each.path, each.reason]);
  assert.deepEqual(leftOut.toSorted(), [
    ["bad", "damaged"],
    ["lost", "damaged"],
  ]);
  const read = (name: string): string => fs.readFileSync(path.join(folder, name), "utf8").slice(0, 12).trimEnd();
  assert.deepEqual(["a", "bad", "c"].map(read), ["first a\nfirs", "second bad\ns", "first c\nfirs"]);
  assert.deepEqual(["lost/inside", "lost/new"].map(read), ["second insid", "second new\ns"]);
  assert.match(JSON.parse(done.stdout).warnings.join(), /"lost" and 1 more are damaged .*cairn doctor/);
  const looked = cairn(["doctor", "-C", folder]);
  assert.equal(looked.status, 6, looked.stdout);
  assert.match(looked.stdout, /a read found it damaged/);
  const undone = await client.undo();
  assert.deepEqual(undone.left_out, []);
  assert.equal((await client.planRestore({ target: second.save_point_id })).entries.length, 0);
});

test("a restore of only damaged entries makes no point and keeps the undo target", async () => {
  const folder = newFolder("damage");
  const client = await clientOf(folder);
  fs.mkdirSync(path.join(folder, "deep"));
  const bad = path.join(folder, "deep/bad");
  fs.writeFileSync(bad, "first\n".repeat(3000));
  fs.writeFileSync(path.join(folder, "good"), "first\n");
  const { save_point_id: id } = await client.save();
  fs.writeFileSync(path.join(folder, "good"), "work\n");
  const { undo_id: undo } = await client.restore({ target: "head" });
  await hurtEntry({ control: client.controlDirectory, id }, "deep/bad");
  fs.rmSync(bad);
  const ids = async (): Promise<string[]> =>
    (await client.history(undefined, 0, { all: true })).save_points.map((point) => point.save_point_id);
  const before = await ids();
  for (const paths of [undefined, ["deep/bad"]]) {
    const done = await client.restore({ target: "head", ...(paths === undefined ? {} : { paths }) });
    assert.deepEqual([done.undo_id, done.left_out.map(({ reason }) => reason)], [null, ["damaged"]]);
    assert.deepEqual(await ids(), before);
  }
  // A kill on the way leaves it made, or gone, and undo as it was.
  const killed: string[] = [];
  for (const failpoint of ["restore.staged", "point-removed", "restore.undo-point-gone"])
    if (cairn(["restore", id, "-C", folder], { failpoint }).killed) killed.push(failpoint);
  assert.deepEqual(killed, ["restore.staged", "point-removed", "restore.undo-point-gone"]);
  assert.equal((await client.undo()).restored_to, undo);
  assert.equal(fs.readFileSync(path.join(folder, "good"), "utf8"), "work\n");
  const { findings } = await client.doctor({ repair: true });
  // The saves of the restores took the damaged content out of the index: it is in no folder and no pack.
  const left = findings.filter(({ repaired }) => repaired === false);
  assert.deepEqual(
    [...new Set(left.map(({ kind, detail }) => [kind, detail.includes("deep/bad")].join()))],
    ["content,true"],
  );
});
