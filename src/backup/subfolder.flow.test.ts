import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setAttribute } from "../workspace/store/testing-edits.ts";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import { CairnError } from "../errors.ts";
import type { PathInput, Progress, RestoreBackupOptions } from "../contract/index.ts";
import type { OpenedRepository } from "../keep/opened-repository.ts";
import { backupScene, type BackupScene, damageBlob, nodeAt, SCHEMES, withNode } from "./testing-far.ts";

const ODD = Buffer.from([0x6f, 0x64, 0xff]);

/** All kinds of entries below `src`, and names of theirs outside of it. */
function fill({ folder, write }: BackupScene): void {
  const src = join(folder, "src");
  write("src/main.ts", "main\n");
  write("src/deep/notes.md", "notes\n");
  write("src/large", "");
  writeFileSync(join(src, "large"), randomBytes(3 << 20));
  write("src/holes", "start");
  truncateSync(join(src, "holes"), 4 << 20);
  write("src/none/.keep", "");
  rmSync(join(src, "none/.keep"));
  linkSync(join(src, "deep/notes.md"), join(src, "notes.md"));
  symlinkSync(Buffer.concat([Buffer.from("../"), ODD]), join(src, "link"));
  symlinkSync("deep", join(src, "to-deep"));
  assert.equal(spawnSync("mkfifo", [join(src, "pipe")]).status, 0);
  mkdirSync(Buffer.concat([Buffer.from(`${src}/`), ODD]));
  writeFileSync(Buffer.concat([Buffer.from(`${src}/`), ODD, Buffer.from("/inside")]), "odd\n");
  setAttribute(join(src, "deep"), "user.colour", "blue");
  chmodSync(src, 0o2750);
  utimesSync(src, 1_500_000_000, 1_500_000_000.25);
}

/** The same snapshot without its manifest, as of another program. */
async function asTheirs({ repository }: BackupScene, snapshot: string): Promise<string> {
  return withNode(repository as OpenedRepository, snapshot, ".cairn/manifest.json", async () => ({
    name: Buffer.from("nothing"),
  }));
}

for (const scheme of SCHEMES)
  describe(`restoring a subfolder of a snapshot on a ${scheme} storage`, () => {
    test("restore of a subfolder writes its entries and its own metadata directly into the target", async (t) => {
      const scene = await backupScene(t, scheme);
      const { client, repository, folder, root } = scene;
      fill(scene);
      await client.createBackup(repository, { save: true });
      const src = join(folder, "src");
      const wanted = walkDigests(src);
      for (const [i, subfolder] of [`${src}/`, Buffer.from("./src//")].entries()) {
        const target = join(root, `back-${i}`);
        const planned = await repository.restore("latest", target, { subfolder, dryRun: true });
        const restored = await repository.restore("latest", target, { subfolder, prove: true });
        assert.deepEqual([planned.entries, planned.bytes], [restored.entries, restored.bytes]);
        assert.deepEqual([restored.left_out, restored.proof, restored.read_again], [[], null, true]);
        assert.equal(walkDigests(target).state, wanted.state);
        assert.equal(walkDigests(target).meta, wanted.meta);
        assert.ok(lstatSync(join(target, "holes")).blocks < 100);
        const [was, is] = [lstatSync(src, { bigint: true }), lstatSync(target, { bigint: true })];
        assert.deepEqual([is.mode, is.uid, is.gid, is.mtimeNs], [was.mode, was.uid, was.gid, was.mtimeNs]);
      }
      const unread = await repository.restore("latest", join(root, "unread"), { subfolder: "src" });
      assert.deepEqual([unread.read_again, unread.read_from], [false, null]);
      for (const [i, subfolder] of ["", folder].entries()) {
        const { proof } = await repository.restore("latest", join(root, `whole-${i}`), { subfolder });
        assert.equal(proof?.state_digest, walkDigests(folder).state);
      }
    });

    test("restore of a subfolder takes paths and patterns relative to the subfolder", async (t) => {
      const scene = await backupScene(t, scheme);
      const { client, repository, folder, root } = scene;
      fill(scene);
      await client.createBackup(repository, { save: true });
      let round = 0;
      const restored = async (choice: RestoreBackupOptions): Promise<string[]> => {
        const target = join(root, `some-${round++}`);
        const { read_again: isRead } = await repository.restore("latest", target, { ...choice, prove: true });
        assert.ok(isRead);
        return readdirSync(target, { recursive: true, encoding: "utf8" }).toSorted();
      };
      const cases: [RestoreBackupOptions, string[]][] = [
        [{ paths: ["deep"] }, ["deep", "deep/notes.md"]],
        [{ paths: [join(folder, "src/deep"), "main.ts"] }, ["deep", "deep/notes.md", "main.ts"]],
        [{ include: ["/*.md"] }, ["notes.md"]],
        [{ include: [join(folder, "src/main.ts"), "deep/*.md"] }, ["deep", "deep/notes.md", "main.ts"]],
        [{ include: ["*.md"], exclude: ["/deep"] }, ["notes.md"]],
      ];
      for (const [choice, wanted] of cases)
        assert.deepEqual(await restored({ subfolder: "src", ...choice }), wanted, JSON.stringify(choice));
      const odd = Buffer.concat([Buffer.from("src/"), ODD]);
      assert.deepEqual(await restored({ subfolder: odd, paths: [Buffer.concat([Buffer.from(`${folder}/`), odd])] }), [
        "inside",
      ]);
      const refused: [PathInput, string][] = [
        ["src/deep", "not_found"],
        [join(folder, "many"), "usage"],
        ["../many", "usage"],
      ];
      for (const [path, code] of refused)
        await assert.rejects(repository.restore("latest", join(root, "no"), { subfolder: "src", paths: [path] }), {
          code,
        });
    });
  });

test("restore of a remote subfolder fetches only the packs of its content and of its parent folders", async (t) => {
  const scene = await backupScene(t, "far");
  const { client, repository, root, write } = scene;
  fill(scene);
  write("elsewhere", randomBytes(400_000).toString("hex"));
  await client.createBackup(repository, { save: true });
  let total = 0;
  const onProgress = ({ phase, total_bytes: bytes = 0 }: Progress): void => {
    if (phase === "downloading") total = bytes;
  };
  await repository.restore("latest", join(root, "back"), { subfolder: "src/deep", onProgress });
  assert.ok(total < 50_000, `${total}`);
});

test("restore of a subfolder links its hard links together, without names outside of the subfolder", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, root } = scene;
  fill(scene);
  linkSync(join(folder, "src/main.ts"), join(folder, "aa-outside"));
  linkSync(join(folder, "src/main.ts"), join(folder, "src/other.ts"));
  linkSync(join(folder, "src/pipe"), join(folder, "bb-outside"));
  linkSync(join(folder, "src/pipe"), join(folder, "src/pipe-again"));
  await client.createBackup(repository, { save: true });
  const target = join(root, "back");
  const restored = await repository.restore("latest", target, { subfolder: "src", prove: true });
  assert.deepEqual([restored.left_out, restored.read_again], [[], true]);
  for (const [first, second] of [
    ["main.ts", "other.ts"],
    ["pipe", "pipe-again"],
    ["notes.md", "deep/notes.md"],
  ]) {
    const [a, b] = [lstatSync(join(target, first!)), lstatSync(join(target, second!))];
    assert.deepEqual([a.ino, a.nlink], [b.ino, 2], first);
  }
});

test("restore refuses a subfolder path that is no folder, and makes no file", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, root } = scene;
  fill(scene);
  const { snapshot } = await client.createBackup(repository, { save: true });
  const id = snapshot!.snapshot_id.slice(0, 8);
  const stream = await repository.createFromCommand(["echo", "x"], { filename: "dir/file" });
  const refused: [string, PathInput, string, RegExp][] = [
    ["latest", "none", "not_found", new RegExp(`no folder "none" in snapshot .{8}$`)],
    [id, "src/none/none", "not_found", new RegExp(`no folder "src/none/none" in snapshot ${id}$`)],
    [id, "src\uFFFD", "not_found", /no folder/],
    [id, "src/main.ts", "conflict", /but a file$/],
    [id, "src/main.ts/x", "conflict", /^"src\/main.ts" is not a folder .* but a file$/],
    [id, "src/to-deep", "conflict", /but a symlink; it leads to "deep", and no link is followed/],
    [id, "src/to-deep/notes.md", "conflict", /^"src\/to-deep" is not a folder/],
    [id, "src/pipe", "conflict", /but a fifo$/],
    [id, "../work/src", "usage", /has the part \.\./],
    [id, "src/../../etc", "usage", /has the part \.\./],
    [id, "/etc", "usage", /is not below/],
    [id, `${folder}/../other`, "usage", /is not below/],
    [id, join(root), "usage", /is not below/],
    [id, Buffer.from("src\0"), "usage", /NUL/],
    [stream.snapshot!.snapshot_id, "file", "conflict", /but a file$/],
    [stream.snapshot!.snapshot_id, "/dir/file", "conflict", /but a file$/],
    ["ffffffffff", "src", "not_found", /no snapshot/],
  ];
  for (const [word, subfolder, code, message] of refused)
    await assert.rejects(
      repository.restore(word, join(root, "no"), { subfolder }),
      (error) => {
        assert.ok(error instanceof CairnError);
        assert.deepEqual([error.code, message.test(error.message)], [code, true], error.message);
        assert.ok(error.hint !== undefined);
        return true;
      },
      String(subfolder),
    );
  const receipt = join(root, "receipt");
  await assert.rejects(repository.restore("latest", join(root, "no"), { subfolder: "src", receipt }), {
    code: "not_found",
  });
  await assert.rejects(repository.restore(id, join(root, "no"), { subfolder: "src", receipt }), { code: "usage" });
  assert.deepEqual([existsSync(join(root, "no")), existsSync(receipt)], [false, false]);
});

test("restore of a subfolder lists omitted and damaged entries by their paths in the subfolder", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, root } = scene;
  fill(scene);
  await client.createBackup(repository, { save: true });
  await repository.rewrite({ exclude: ["deep/notes.md", "/many", "none"], forget: true });
  await damageBlob(scene, (await nodeAt(repository, "latest", `${folder}/src/main.ts`)).content![0]!);
  const restored = await repository.restore("latest", join(root, "back"), { subfolder: "src", prove: true });
  assert.deepEqual(
    restored.left_out.map(({ path, reason }) => [path, reason]),
    [
      ["main.ts", "damaged"],
      ["deep/notes.md", "taken_out"],
      ["none", "taken_out"],
    ],
  );
  assert.equal(restored.read_again, true);
  for (const subfolder of ["many", "src/none", "many/none"])
    await assert.rejects(repository.restore("latest", join(root, "no"), { subfolder }), {
      code: "not_found",
      message: /: (?:many|src\/none) is not in it \(taken out of the snapshot after it was made\)$/,
    });
  const deep = await repository.restore("latest", join(root, "deep"), { subfolder: "src/deep" });
  assert.deepEqual(
    deep.left_out.map(({ path }) => path),
    ["notes.md"],
  );
  await damageBlob(scene, (await nodeAt(repository, "latest", `${folder}/src/deep`)).subtree!);
  await assert.rejects(repository.restore("latest", join(root, "lost"), { subfolder: "src/deep" }), {
    code: "damaged",
    message: /^nothing of "src\/deep" in snapshot .{8} can be read/,
  });
});

test("a subfolder of another program's snapshot is named by its path from the snapshot's root", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, root } = scene;
  fill(scene);
  const { snapshot } = await client.createBackup(repository, { save: true });
  const theirs = await asTheirs(scene, snapshot!.snapshot_id);
  for (const subfolder of [join(folder, "src"), join(folder, "src").slice(1)]) {
    const target = join(root, "back");
    const restored = await repository.restore(theirs, target, { subfolder, prove: true, sparse: true });
    assert.deepEqual([restored.left_out, restored.proof, restored.read_again], [[], null, true]);
    assert.equal(readFileSync(join(target, "deep/notes.md"), "utf8"), "notes\n");
    assert.ok(lstatSync(join(target, "holes")).blocks < 200);
    rmSync(target, { recursive: true });
  }
  await repository.restore(theirs, join(root, "up"), { subfolder: root });
  assert.deepEqual(readdirSync(join(root, "up")), ["work"]);
  await assert.rejects(repository.restore(theirs, join(root, "no"), { subfolder: "src" }), { code: "not_found" });
});

test("restoreBackup of a subfolder changes only the subfolder", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, write } = scene;
  fill(scene);
  await client.createBackup(repository, { save: true });
  const wanted = walkDigests(join(folder, "src"));
  rmSync(join(folder, "src/deep"), { recursive: true });
  write("src/deep", "a file now\n");
  write("src/new", "new\n");
  write("a.txt", "changed\n");
  const present = walkDigests(folder);
  const planned = await client.restoreBackup(repository, "latest", { subfolder: "src", dryRun: true });
  const restored = await client.restoreBackup(repository, "latest", { subfolder: "src", prove: true });
  assert.deepEqual([restored.changes, restored.read_again, restored.left_out], [planned.changes, true, []]);
  assert.deepEqual(walkDigests(join(folder, "src")), wanted);
  assert.equal(readFileSync(join(folder, "a.txt"), "utf8"), "changed\n");
  await client.undo();
  assert.deepEqual(walkDigests(folder), present);
  const options = { subfolder: join(folder, "src"), include: ["deep/*.md"] };
  const { changes } = await client.restoreBackup(repository, "latest", options);
  assert.deepEqual([changes?.created, readFileSync(join(folder, "src/new"), "utf8")], [2, "new\n"]);
});

test("restoreBackup refuses a subfolder that would be written to a path other than its own", async (t) => {
  const { client, repository, folder, library, write } = await backupScene(t, "local");
  write("inner/src/file", "x\n");
  await client.createBackup(repository, { save: true });
  const inner = await library.init(join(folder, "inner"), { allow: ["nested"] });
  for (const subfolder of ["inner", "inner/src"]) {
    const restore = inner.restoreBackup(repository, "latest", { latestOf: {}, subfolder });
    await assert.rejects(restore, { code: "refused", message: /is of a folder above .*\/inner: restored in place/ });
  }
  const { changes } = await inner.restoreBackup(repository, "latest", { latestOf: {}, subfolder: "deep" });
  assert.equal(changes?.created, 2);
  assert.deepEqual(readdirSync(join(folder, "inner")), ["deep", "src"]);
});

test("diff compares two subfolders by the paths in them", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, write } = scene;
  fill(scene);
  linkSync(join(folder, "src/main.ts"), join(folder, "src/deep/main.ts"));
  const { snapshot: first } = await client.createBackup(repository, { save: true });
  const theirs = await asTheirs(scene, first!.snapshot_id);
  write("src/deep/notes.md", "other notes\n");
  write("src/new", "new\n");
  write("a.txt", "changed\n");
  renameSync(join(folder, "src"), join(folder, "sources"));
  await client.createBackup(repository, { save: true });
  const wanted = [
    ["deep/notes.md", "modified"],
    ["new", "added"],
    ["notes.md", "modified"],
  ];
  const changes = async (from: string, fromSubfolder: string): Promise<unknown[]> => {
    const { entries } = await repository.diff(from, "latest", { fromSubfolder, toSubfolder: "sources" });
    return entries.filter(({ aspects }) => aspects.join() !== "times").map(({ path, change }) => [path, change]);
  };
  assert.deepEqual(await changes(first!.snapshot_id, "src"), wanted);
  assert.deepEqual(await changes(theirs, join(folder, "src")), wanted);
  const same = await repository.diff(first!.snapshot_id, first!.snapshot_id, {
    fromSubfolder: "src/deep",
    toSubfolder: join(folder, "src/deep/"),
  });
  assert.deepEqual(same.entries, []);
  const part = await repository.diff("latest", "latest", { fromSubfolder: "sources/none", toSubfolder: "deep" });
  assert.deepEqual(
    part.entries.map(({ path, change }) => [path, change]),
    [["b.txt", "added"]],
  );
  const none = repository.diff(first!.snapshot_id, "latest", { fromSubfolder: "src", toSubfolder: "src" });
  await assert.rejects(none, { code: "not_found", message: /no folder "src" in snapshot/ });
  const file = repository.diff("latest", "latest", { fromSubfolder: "a.txt" });
  await assert.rejects(file, { code: "conflict", hint: /backup show .{8}:a\.txt/ });
});
