import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chmodSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import { objectIdOf } from "../ids.ts";
import { BlobIndex } from "../repository/index/blob-index.ts";
import { loadPackHeader } from "../repository/packs/pack-read.ts";
import { resticCheck } from "../repository/testing-archive.ts";
import type { OpenedRepository } from "../keep/opened-repository.ts";
import { backupScene, type BackupScene, opened, SCHEMES, spoil, storedTwice } from "./testing-far.ts";
import { wornOut } from "../../test/fixtures/worn-file.ts";

const WAYS = ["first blob", "lost"] as const;

/** Each of two sets of packs spoilt in turn, whichever the index has chosen. */
async function spoilt(at: BackupScene, work: (name: string, files: string[]) => Promise<void>): Promise<void> {
  const sets = await storedTwice(at);
  for (const [number, files] of sets.entries())
    for (const how of WAYS) {
      const kept = files.map((file) => readFileSync(file));
      spoil(files, how);
      await work(`${how} ${number}`, files);
      for (const [i, file] of files.entries()) writeFileSync(file, kept[i]!);
    }
}

for (const scheme of SCHEMES) {
  test(`restore from a ${scheme} repository reads damaged or lost content from another pack that has it`, async (t) => {
    const at = await backupScene(t, scheme);
    const { repository, folder, root } = at;
    at.write("large", "0123456789abcdefg".repeat(1 << 20));
    const warnings: string[] = [];
    const onWarning = (message: string): void => void warnings.push(message);
    await spoilt(at, async (name) => {
      const { proof, left_out, kept_bytes } = await repository.restore("latest", join(root, name), { onWarning });
      assert.deepEqual([left_out, proof?.state_digest, kept_bytes], [[], walkDigests(folder).state, 0], name);
      const some = { paths: [`${folder}/deep`], onWarning };
      assert.deepEqual((await repository.restore("latest", join(root, `${name} some`), some)).left_out, []);
      assert.equal(readFileSync(join(root, `${name} some`, "deep/b.txt"), "utf8"), "b\n");
      let read = "";
      for await (const piece of repository.read("latest", `${folder}/deep/b.txt`, { onWarning }))
        read += Buffer.from(piece).toString();
      assert.equal(read, "b\n", name);
    });
    assert.match(warnings[0]!, /is damaged or missing: its content is read from other packs/);
  });

  test(`copyTo from a ${scheme} repository reads damaged or lost content from another pack that has it`, async (t) => {
    const at = await backupScene(t, scheme);
    const { repository, library, options, root } = at;
    const warnings: string[] = [];
    await spoilt(at, async (name) => {
      const other = { ...options, repository: `local:${root}/${name}`, password: "other" };
      const target = await library.initRepository(other);
      const planned = await repository.copyTo(target, { dryRun: true });
      const copied = await repository.copyTo(target, { onWarning: (message) => void warnings.push(message) });
      const counted = [planned, copied].map(({ copied, not_copied }) => [copied.length, not_copied.length]);
      assert.deepEqual(
        counted,
        [
          [2, 0],
          [2, 0],
        ],
        name,
      );
      assert.deepEqual((await target.verify()).problems, [], name);
      await target.close();
    });
    assert.match(warnings[0]!, /is damaged or missing: its content is read from other packs/);
  });

  test(`restoreBackup from a ${scheme} repository reads damaged or lost content from another pack that has it`, async (t) => {
    const at = await backupScene(t, scheme);
    const { library, repository, folder, root } = at;
    await spoilt(at, async (name) => {
      const client = await library.init(join(root, name), { selfContained: true });
      const any = { latestOf: {} };
      const planned = await client.restoreBackup(repository, "latest", { ...any, dryRun: true });
      assert.ok(planned.changes!.created > 50, name);
      const { proof } = await client.restoreBackup(repository, "latest", any);
      assert.equal(proof?.state_digest, walkDigests(folder).state, name);
      await client.close();
    });
  });

  test(`verify of a ${scheme} repository names a damaged pack but no lost paths if other packs have the content`, async (t) => {
    const at = await backupScene(t, scheme);
    const { repository } = at;
    let blobs = 0;
    await spoilt(at, async (name, files) => {
      const { problems, checked } = await repository.verify();
      const [snapshot] = (await repository.list()).snapshots;
      const one = await repository.verify({ snapshots: [snapshot!.snapshot_id] });
      const quick = await repository.verify({ quick: true });
      for (const found of [...problems, ...one.problems, ...quick.problems]) assert.deepEqual(found.losses, [], name);
      const packs = problems.filter(({ kind, severity }) => severity === "damage" && kind.startsWith("pack_"));
      const names = files.map((file) => basename(file)).toSorted();
      assert.deepEqual(packs.map(({ object }) => object).toSorted(), names, name);
      assert.deepEqual([checked.digests, one.checked.digests], [2, 1], name);
      const copies = problems.filter(({ kind }) => kind === "blob_damaged" || kind === "tree_damaged");
      for (const { detail } of copies) assert.match(detail, /; the copy in pack [0-9a-f]{12} is sound$/);
      blobs += copies.length;
    });
    assert.ok(blobs > 0);
  });
}

test("restore leaves out only content behind an unreadable sector that no other pack has", async (t) => {
  const at = await backupScene(t, "local");
  const { repository, root, folder } = at;
  at.write("random", randomBytes(100_000).toString("hex"));
  const sets = await storedTwice(at);
  const [first, second] = sets.map((files) =>
    files.toSorted((a, b) => statSync(a).size - statSync(b).size).at(-1)!,
  ) as [string, string];
  for (const file of [first, second]) {
    const giveBack = wornOut(file);
    if (giveBack === null) return t.skip("nothing can be mounted");
    const { proof } = await repository.restore("latest", join(root, basename(file)));
    assert.equal(proof?.state_digest, walkDigests(folder).state);
    giveBack();
  }
  const worn = [first, second].map((file) => wornOut(file)!);
  const { left_out } = await repository.restore("latest", join(root, "both"));
  assert.ok(left_out.some(({ path, detail }) => path === "random" && /a sector of it cannot be read/.test(detail!)));
  assert.ok(left_out.every(({ reason }) => reason === "damaged"));
  const other = await at.library.initRepository({ ...at.options, repository: `local:${root}/other` });
  await assert.rejects(repository.copyTo(other), { code: "damaged", message: /[0-9a-f]{12}/ });
  await other.close();
  for (const giveBack of worn) giveBack();
});

test("restore reads many trees at once from another pack if a remote repository has lost their pack", async (t) => {
  const at = await backupScene(t, "far");
  const { repository, root } = at;
  for (let i = 0; i < 60; i++) at.write(`folders/${i}/file`, `file ${i}\n`);
  const counts: number[] = [];
  for (const files of await storedTwice(at)) {
    const kept = files.map((file) => readFileSync(file));
    spoil(files, "lost");
    const before = opened.far!.count("load", "data");
    await repository.restore("latest", join(root, String(counts.length)));
    counts.push(opened.far!.count("load", "data") - before);
    for (const [i, file] of files.entries()) writeFileSync(file, kept[i]!);
  }
  assert.ok(
    counts.every((count) => count < 30),
    counts.join(),
  );
});

for (const number of [0, 1])
  for (const how of WAYS)
    test(`repair of packs takes content from other packs if pack set ${number} is spoilt: ${how}`, async (t) => {
      const at = await backupScene(t, "local");
      const { repository, place, root, folder } = at;
      spoil((await storedTwice(at))[number]!, how);
      assert.deepEqual((await repository.repair({ what: "packs" })).lost_blobs, []);
      assert.deepEqual((await repository.verify()).problems, []);
      assert.equal(
        (await repository.restore("latest", join(root, "to"))).proof?.state_digest,
        walkDigests(folder).state,
      );
      resticCheck(place);
    });

for (const scheme of SCHEMES)
  test(`restore from a ${scheme} repository reads a tree from a truncated pack if its other copy is damaged`, async (t) => {
    const at = await backupScene(t, scheme);
    const sets = await storedTwice(at);
    const { access } = at.repository as OpenedRepository;
    const index = await BlobIndex.load(access.repository, null);
    const trees = Array.from({ length: index.count }, (_, entry) => index.place(entry)).filter(
      ({ type }) => type === "tree",
    );
    const [first] = trees.toSorted((a, b) => a.offset - b.offset);
    const fileOf = (name: string): string => join(at.place, "data", name.slice(0, 2), name);
    const cut = objectIdOf(first!.pack);
    const others = sets
      .flat()
      .map((file) => basename(file))
      .filter((name) => name !== cut);
    const [id] = Array.from({ length: index.count }, (_, entry) => entry)
      .filter((entry) => index.place(entry).offset === first!.offset && index.place(entry).type === "tree")
      .map((entry) => index.idOf(entry));
    for (const name of others) {
      const file = fileOf(name);
      const header = await loadPackHeader(access.repository, name, statSync(file).size);
      const blob = header.find((each) => Buffer.compare(each.id, id!) === 0);
      if (blob === undefined) continue;
      const bytes = readFileSync(file);
      bytes[blob.offset + 20]! ^= 1;
      chmodSync(file, 0o600);
      writeFileSync(file, bytes);
    }
    chmodSync(fileOf(cut), 0o600);
    truncateSync(fileOf(cut), first!.offset + first!.length + 5);
    const restored = await at.repository.restore("latest", join(at.root, "back"));
    assert.deepEqual([restored.left_out, restored.proof === null], [[], false]);
  });
