import assert from "node:assert/strict";
import {
  linkSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import { encodeTree, type TreeNode } from "../../formats/restic/tree.ts";
import { textBlob } from "../../repository/testing-packs.ts";
import { readNodes } from "../../archive/databases/nodes.ts";
import type { Aspect, RestoreBackupResult } from "../../contract/index.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import type { OpenedRepository } from "../../keep/opened-repository.ts";
import { backupScene, type BackupScene, withManifest, withNode } from "../testing-far.ts";

/** Entries that a snapshot has otherwise than any folder does: as other programs made them, or as something changed meanwhile. */

/** The same snapshot without its manifest, as of another program. */
async function asForeign(repository: OpenedRepository, snapshot: string): Promise<string> {
  return withNode(repository, snapshot, ".cairn/manifest.json", async () => ({ name: Buffer.from("nothing") }));
}

const LATER = "a\nand what came while it was saved\n";

/**
 * A snapshot with three names of one file, to which was written after the first had been read; the folder is as the
 * snapshot is then, but for the links.
 */
async function changedMeanwhile({ client, repository, folder, write }: BackupScene): Promise<string> {
  for (const name of ["deep/second", "third"]) linkSync(join(folder, "a.txt"), join(folder, name));
  const { snapshot } = await client.createBackup(repository, { save: true });
  const before = walkDigests(folder).state;
  let id = snapshot!.snapshot_id;
  for (const name of ["deep/second", "third"]) {
    id = await withNode(repository as OpenedRepository, id, `${folder.slice(1)}/${name}`, async (_node, { add }) => ({
      content: add("data", Buffer.from(LATER)),
      size: LATER.length,
    }));
    rmSync(join(folder, name));
    write(name, LATER);
  }
  const { state } = walkDigests(folder);
  return withManifest(repository as OpenedRepository, id, (text) => text.replace(before, state));
}

function namesOf(restored: Pick<RestoreBackupResult, "left_out">): unknown[] {
  return restored.left_out.map(({ path, reason, aspects }) => [path, reason, aspects]);
}

test("restore gives each hard link its own content if the file was written to while it was saved", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository, folder, root } = scene;
  const id = await changedMeanwhile(scene);
  const { state } = walkDigests(folder);
  const left = [["deep/second", "not_permitted", ["links"]]];
  for (const [name, options] of Object.entries({ proven: {}, unproven: { prove: false } })) {
    const target = join(root, name);
    const restored = await repository.restore(id, target, options);
    assert.deepEqual(namesOf(restored), left, name);
    assert.equal(walkDigests(target).state, state, name);
    // Those that are alike are one.
    assert.deepEqual([lstatSync(join(target, "a.txt")).nlink, lstatSync(join(target, "third")).nlink], [1, 2]);
    const planned = await repository.restore(id, join(root, "planned"), { dryRun: true });
    assert.deepEqual([planned.entries, planned.bytes], [restored.entries, restored.bytes], name);
  }
  const proven = await repository.restore(id, join(root, "again"));
  assert.deepEqual([proven.proof?.state_digest, proven.proof?.metadata_equal], [state, false]);
  // Of another program's nothing but the entries tells what is right.
  const foreign = await asForeign(repository as OpenedRepository, id);
  const compared = await repository.restore(foreign, join(root, "foreign"));
  const whole = `${folder.slice(1)}/deep/second`;
  assert.deepEqual(namesOf(compared), [[whole, "not_permitted", ["links"]]]);
  assert.deepEqual([compared.read_again, compared.untold_files], [true, 0]);
  assert.equal(walkDigests(join(root, "foreign", folder)).state, state);
});

test("restoreBackup gives each hard link its own content if the file was written to while it was saved", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, write } = scene;
  const id = await changedMeanwhile(scene);
  const { state } = walkDigests(folder);
  for (const name of ["a.txt", "deep/second", "third"]) write(name, "something else\n");
  const restored = await client.restoreBackup(repository, id, { latestOf: {}, prove: true });
  assert.deepEqual(namesOf(restored), [["deep/second", "not_permitted", ["links"]]]);
  assert.equal(walkDigests(folder).state, state);
  assert.equal(restored.read_again, true);
  // Session one that is right already.
  write("deep/second", "something else\n");
  rmSync(join(folder, "third"));
  writeFileSync(join(folder, "third"), LATER);
  await client.restoreBackup(repository, id, { latestOf: {} });
  assert.equal(walkDigests(folder).state, state);
  assert.equal(readFileSync(join(folder, "deep/second"), "utf8"), LATER);
});

interface Odd {
  /** a file, and all that is otherwise about it */
  node: Partial<TreeNode>;
  /** absent: it is damaged */
  aspects?: Aspect[];
  detail: RegExp;
  /** what is there */
  there: string | null;
}

const attribute = (name: string, length: number): Partial<TreeNode> => ({
  xattrs: [{ name: Buffer.from(name), value: Buffer.alloc(length, 7) }],
});

/** A link, for a file. */
function link(target: string): Partial<TreeNode> {
  return {
    type: "symlink",
    size: 0,
    content: undefined!,
    ...(target === "" ? {} : { linktarget: Buffer.from(target) }),
  };
}

const ODD: Record<string, Odd> = {
  "an attribute of more bytes than Linux takes": {
    node: attribute("com.apple.ResourceFork", 200_000),
    aspects: ["xattrs"],
    detail: /"com.apple.ResourceFork" has 200000 bytes/,
    there: "a\n",
  },
  "an attribute with a name of 2000 bytes": {
    node: attribute(`user.${"n".repeat(1995)}`, 1),
    aspects: ["xattrs"],
    detail: /a name of 2000 bytes/,
    there: "a\n",
  },
  "an attribute with a NUL in its name": {
    node: attribute("user.a\0b", 1),
    aspects: ["xattrs"],
    detail: /a NUL in its name/,
    there: "a\n",
  },
  "a size that is more than its blobs hold": {
    node: { size: 1_000_000_000_000 },
    detail: /its blobs have 2 bytes, but its tree says 1000000000000/,
    there: "a\n",
  },
  "a size that is less than its blobs hold": {
    node: { size: 1 },
    detail: /its blobs have 2 bytes, but its tree says 1;/,
    there: "a\n",
  },
  "a name of 2000 bytes": {
    node: { name: Buffer.alloc(2000, "a") },
    aspects: ["type"],
    detail: /ENAMETOOLONG/,
    there: null,
  },
  "a name of 300 bytes": {
    node: { name: Buffer.alloc(300, "a") },
    aspects: ["type"],
    detail: /ENAMETOOLONG/,
    there: null,
  },
  "a link of 200000 bytes": {
    node: link("t".repeat(200_000)),
    aspects: ["type"],
    detail: /a symlink to 200000 bytes cannot be made/,
    there: null,
  },
  "a link of 5000 bytes": {
    node: link("t".repeat(5000)),
    aspects: ["type"],
    detail: /a symlink cannot be made here: ENAMETOOLONG/,
    there: null,
  },
  "a link to nothing": {
    node: link(""),
    aspects: ["type"],
    detail: /a symlink without a target cannot be made/,
    there: null,
  },
  "a link to a name with a NUL": {
    node: link("a\0b"),
    aspects: ["type"],
    detail: /a symlink with a NUL in its target cannot be made/,
    there: null,
  },
  "a size and no content": {
    node: { size: 2, content: new Uint8Array(0) },
    detail: /its blobs have 0 bytes, but its tree says 2;/,
    there: "",
  },
};

for (const [what, { node, aspects, detail, there }] of Object.entries(ODD))
  test(`restore writes everything that is possible if an entry has ${what}`, async (t) => {
    const { client, repository, folder, root } = await backupScene(t, "local");
    const { snapshot } = await client.createBackup(repository, { save: true });
    const own = repository as OpenedRepository;
    const odd = await withNode(own, snapshot!.snapshot_id, `${folder.slice(1)}/a.txt`, async () => node);
    const foreign = await asForeign(own, odd);
    const name = Buffer.from(node.name ?? "a.txt").toString();
    const check = (restored: Pick<RestoreBackupResult, "left_out">, at: string, below = ""): void => {
      const [left, ...others] = restored.left_out;
      assert.deepEqual([left?.path, left?.aspects, others], [below + name, aspects, []], at);
      assert.equal(left!.reason === "damaged", aspects === undefined);
      assert.match(left!.detail, detail);
      if (there === null) assert.equal(readdirSync(at).includes(name), false);
      else assert.equal(readFileSync(join(at, name), "utf8"), there);
      assert.equal(readFileSync(join(at, "deep/b.txt"), "utf8"), "b\n");
      assert.equal(readdirSync(join(at, "many")).length, 50);
    };
    check(await repository.restore(odd, join(root, "ours")), join(root, "ours"));
    const prefix = `${folder.slice(1)}/`;
    const compared = await repository.restore(foreign, join(root, "foreign"));
    check(compared, join(root, "foreign", folder), prefix);
    assert.deepEqual([compared.read_again, compared.untold_files], [true, 0]);
    check(
      await repository.restore(foreign, join(root, "unproven"), { prove: false }),
      join(root, "unproven", folder),
      prefix,
    );
    await assert.rejects(client.restoreBackup(repository, foreign, { latestOf: {} }), hasCode("refused"));
    // It becomes a point; of its sizes its own check tells.
    if (aspects === undefined) return;
    rmSync(join(folder, "a.txt"), { force: true });
    rmSync(join(folder, "deep"), { recursive: true });
    const inPlace = await client.restoreBackup(repository, odd, { latestOf: {}, prove: true });
    check(inPlace, folder);
    assert.equal(inPlace.read_again, true);
  });

test("restore leaves out a folder whose name is too long for the file system", async (t) => {
  const { client, repository, folder, root } = await backupScene(t, "local");
  const { snapshot } = await client.createBackup(repository, { save: true });
  const own = repository as OpenedRepository;
  const name = "d".repeat(2000);
  const odd = await withNode(own, snapshot!.snapshot_id, `${folder.slice(1)}/deep`, async () => ({
    name: Buffer.from(name),
  }));
  const listed = [[name, "not_permitted", ["type"]]];
  assert.deepEqual(namesOf(await repository.restore(odd, join(root, "restored"))), listed);
  assert.deepEqual(readdirSync(join(root, "restored")), ["a.txt", "many"]);
  rmSync(join(folder, "a.txt"));
  const restored = await client.restoreBackup(repository, odd, { latestOf: {}, prove: true });
  assert.deepEqual([namesOf(restored), restored.read_again], [listed, true]);
  assert.equal(readFileSync(join(folder, "a.txt"), "utf8"), "a\n");
});

test("restoreBackup keeps a present link if the snapshot's link cannot be made", async (t) => {
  const { client, repository, folder } = await backupScene(t, "local");
  const { snapshot } = await client.createBackup(repository, { save: true });
  const own = repository as OpenedRepository;
  const odd = await withNode(own, snapshot!.snapshot_id, `${folder.slice(1)}/a.txt`, async () => link(""));
  rmSync(join(folder, "a.txt"));
  symlinkSync("here", join(folder, "a.txt"));
  rmSync(join(folder, "deep"), { recursive: true });
  const restored = await client.restoreBackup(repository, odd, { latestOf: {}, prove: true });
  assert.deepEqual([namesOf(restored), restored.read_again], [[["a.txt", "not_permitted", ["type"]]], true]);
  assert.equal(readlinkSync(join(folder, "a.txt")), "here");
  assert.equal(readFileSync(join(folder, "deep/b.txt"), "utf8"), "b\n");
});

test("restore from a remote storage writes the content of the blobs if the recorded sizes are wrong", async (t) => {
  const { client, repository, folder, root } = await backupScene(t, "far");
  const { snapshot } = await client.createBackup(repository, { save: true });
  const own = repository as OpenedRepository;
  const pieces = [Buffer.alloc(9 << 20, "first "), Buffer.alloc(8 << 20, "second ")];
  let id = await asForeign(own, snapshot!.snapshot_id);
  const change = async (name: string, count: number, more: Partial<TreeNode>): Promise<void> => {
    id = await withNode(own, id, `${folder.slice(1)}/${name}`, async (_node, { add }) => {
      const ids = pieces.map((piece) => add("data", piece.subarray(0, count)));
      return { content: Buffer.concat(ids), ...more };
    });
  };
  const others = { links: 2, inode: 5n, deviceId: 1n };
  await change("many/7", 3, { size: 1_000_000_000_000 });
  await change("many/8", 9 << 20, { size: 1 });
  await change("many/9", 4, { size: 1_000_000_000_000, ...others });
  await change("many/10", 4, { size: 8, ...others });
  const target = join(root, "restored");
  const restored = await repository.restore(id, target);
  assert.deepEqual(
    restored.left_out.map(({ path, reason, detail }) => [path.slice(-6), reason, detail]),
    [
      ["many/7", 6, 1_000_000_000_000],
      ["many/8", 17 << 20, 1],
      ["many/9", 8, 1_000_000_000_000],
    ].map(([name, held, says]) => [
      name,
      "damaged",
      `its blobs have ${held} bytes, but its tree says ${says}; the blobs' content was written`,
    ]),
  );
  assert.deepEqual([restored.read_again, restored.untold_files], [true, 0]);
  const many = join(target, folder, "many");
  const read = (name: string): Buffer => readFileSync(join(many, name));
  assert.equal(read("7").toString(), "firsec");
  assert.equal(Buffer.compare(read("8"), Buffer.concat(pieces)), 0);
  assert.deepEqual([read("9").toString(), read("10").toString()], ["firsseco", "firsseco"]);
  assert.equal(lstatSync(join(many, "9")).ino, lstatSync(join(many, "10")).ino);
});

test("restore writes nothing if the snapshot's real size exceeds the free space, whatever its summary says", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, root } = scene;
  const { snapshot } = await client.createBackup(repository, { save: true });
  const id = await withNode(
    repository as OpenedRepository,
    snapshot!.snapshot_id,
    `${folder.slice(1)}/deep`,
    async (deep, { reader, add }) => {
      const [file] = [...(await readNodes(reader, deep.subtree!))];
      const content = add("data", Buffer.alloc(1_000_000));
      let subtree = add("tree", encodeTree([{ ...file!, content, size: 1_000_000 }]));
      // 10 of 10, twelve times over: 10^12 files.
      for (let level = 0; level < 12; level++)
        subtree = add(
          "tree",
          encodeTree(Array.from({ length: 10 }, (_, i) => ({ ...deep, name: Buffer.from(`${i}`), subtree }))),
        );
      return { subtree };
    },
  );
  for (const options of [{}, { dryRun: true }, { prove: false, sparse: true }])
    await assert.rejects(repository.restore(id, join(root, "target"), options), hasCode("no_space"));
  assert.deepEqual(
    readdirSync(root).filter((name) => name.includes("target")),
    [],
  );
});

test("restore writes files that consist of 20 MB blobs", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, root } = scene;
  const { snapshot } = await client.createBackup(repository, { save: true });
  const opened = repository as OpenedRepository;
  const large = textBlob(1, 20_000_000);
  const one = await withNode(opened, snapshot!.snapshot_id, `${folder.slice(1)}/a.txt`, async (_node, { add }) => ({
    content: add("data", large),
    size: large.length,
  }));
  const both = await withNode(opened, one, `${folder.slice(1)}/deep/b.txt`, async (_node, { add }) => {
    const [piece, other] = [add("data", large), add("data", Buffer.from("between"))];
    return { content: Buffer.concat([piece, piece, other, piece]), size: 3 * large.length + 7 };
  });
  const foreign = await asForeign(opened, both);
  const target = join(root, "target");
  const restored = await repository.restore(foreign, target, { prove: false });
  assert.deepEqual(restored.left_out, []);
  assert.ok(readFileSync(join(target, folder, "a.txt")).equals(large));
  const expected = Buffer.concat([large, large, Buffer.from("between"), large]);
  assert.ok(readFileSync(join(target, folder, "deep/b.txt")).equals(expected));
});
