import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "node:test";
import type { BackupRepository, PathInput } from "../contract/index.ts";
import { hasCode } from "../keep/testing-folder.ts";
import { backupScene, type BackupScene, damagePack, opened, SCHEMES } from "./testing-far.ts";

const hasRestic = spawnSync("restic", ["version"]).error === undefined;

async function contentOf(repository: BackupRepository, snapshot: string, path: PathInput): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of repository.read(snapshot, path)) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function backedUp(at: BackupScene): Promise<string> {
  return (await at.client.createBackup(at.repository, { save: true })).snapshot!.snapshot_id;
}

function locksOf({ place }: BackupScene): string[] {
  return readdirSync(join(place, "locks"));
}

/** What was fetched of content and lies on this machine. */
function fetched({ place }: BackupScene): string[] {
  const left = readdirSync(join(place, "tmp"), { recursive: true, encoding: "utf8" });
  return left.filter((name) => /[0-9a-f]{64}$/.test(name) && statSync(join(place, "tmp", name)).blocks > 2000);
}

for (const scheme of SCHEMES) {
  test(`show lists one directory of a ${scheme === "far" ? "remote" : "local"} snapshot, and read returns its files`, async (t) => {
    const at = await backupScene(t, scheme);
    const { repository, folder, write } = at;
    symlinkSync("b.txt", join(folder, "deep/link"));
    const odd = Buffer.from([0x6e, 0xff, 0x6e]);
    writeFileSync(Buffer.concat([Buffer.from(`${folder}/`), odd]), "odd");
    write("empty", "");
    // More than is brought at once, and one piece of it twice.
    const piece = randomBytes(3 << 20);
    const large = Buffer.concat([piece, randomBytes(50 << 20), piece]);
    writeFileSync(join(folder, "large"), large);
    const id = await backedUp(at);
    const top = await repository.show("latest");
    assert.deepEqual([top.snapshot.snapshot_id, top.path, top.kind], [id, "", "directory"]);
    assert.deepEqual(
      top.entries.map(({ path, kind, size }) => [path, kind, size]),
      [
        ["a.txt", "file", 2],
        ["deep", "directory", 0],
        ["empty", "file", 0],
        ["large", "file", large.length],
        ["many", "directory", 0],
        ["n\\xffn", "file", 3],
      ],
    );
    for (const path of ["deep", "./deep/", `${folder}/deep`]) {
      const { path: shown, entries } = await repository.show(id.slice(0, 8), path);
      assert.deepEqual(
        [shown, ...entries.map(({ path: each, target }) => [each, target])],
        ["deep", ["deep/b.txt", undefined], ["deep/link", "b.txt"]],
      );
    }
    const { kind, entries } = await repository.show("latest", "deep/link");
    assert.deepEqual([kind, entries.length, entries[0]!.target], ["symlink", 1, "b.txt"]);
    assert.ok((await contentOf(repository, "latest", "large")).equals(large));
    assert.equal((await contentOf(repository, "latest", odd)).toString(), "odd");
    assert.equal((await contentOf(repository, "latest", "empty")).length, 0);
    await assert.rejects(contentOf(repository, "latest", "deep"), hasCode("conflict"));
    await assert.rejects(contentOf(repository, "latest", ""), hasCode("conflict"));
    await assert.rejects(contentOf(repository, "latest", "deep/link"), hasCode("conflict"));
    for (const absent of ["absent", "a.txt/below", "deep/../a.txt"])
      await assert.rejects(repository.show("latest", absent), (error: { code?: string }) =>
        ["not_found", "usage"].includes(error.code ?? ""),
      );
    await assert.rejects(repository.show("latest", "/etc"), hasCode("usage"));
    await assert.rejects(repository.show("ffff"), hasCode("not_found"));
    assert.deepEqual(locksOf(at), []);
  });
}

test("read releases its lock if the caller stops, and fetches only the content read so far", async (t) => {
  const at = await backupScene(t, "far");
  const { repository, folder } = at;
  writeFileSync(join(folder, "large"), randomBytes(120 << 20));
  await backedUp(at);
  const far = opened.far!;
  let brought = 0;
  const load = far.load.bind(far);
  far.load = async (...of) => {
    const bytes = await load(...of);
    if (of[0] === "data") brought += bytes.length;
    return bytes;
  };
  let most = 0;
  for await (const piece of repository.read("latest", "large")) {
    most += piece.length;
    assert.equal(locksOf(at).length, 1);
    if (most > 40 << 20) break;
  }
  assert.deepEqual(locksOf(at), []);
  assert.ok(brought < 90 << 20, `${brought} bytes were brought`);
  const stop = new AbortController();
  const stopped = async (): Promise<void> => {
    for await (const _ of repository.read("latest", "large", { signal: stop.signal })) stop.abort();
  };
  await assert.rejects(stopped(), hasCode("interrupted"));
  assert.deepEqual(locksOf(at), []);
  assert.deepEqual(fetched(at), []);
  for await (const _ of repository.read("latest", "large"));
  assert.deepEqual(fetched(at), []);
});

test("read returns the readable beginning of a damaged file and then fails with `damaged`", async (t) => {
  const at = await backupScene(t, "local");
  const { repository, folder, place } = at;
  const large = randomBytes(30 << 20);
  writeFileSync(join(folder, "large"), large);
  await backedUp(at);
  damagePack(place, (size) => size >> 1, "largest");
  const pieces: Uint8Array[] = [];
  const read = async (): Promise<void> => {
    for await (const piece of repository.read("latest", "large")) pieces.push(piece);
  };
  await assert.rejects(read(), hasCode("damaged"));
  const got = Buffer.concat(pieces);
  assert.ok(got.equals(large.subarray(0, got.length)));
  assert.ok(got.length < large.length);
  assert.deepEqual(locksOf(at), []);
});

test("read finds the file of a stream by its full path and by its name, but not by a part of the path", async (t) => {
  const { repository, root } = await backupScene(t, "local");
  const said = Readable.from([Buffer.from("said\n")]);
  const { snapshot } = await repository.createFromStream(said, { filename: "dumps/of/db.sql" });
  const id = snapshot!.snapshot_id;
  for (const [i, path] of ["dumps/of/db.sql", "/dumps/of/db.sql", "db.sql"].entries()) {
    assert.equal((await contentOf(repository, id, path)).toString(), "said\n");
    await repository.restore(id, join(root, `restored-${i}`), { paths: [path] });
    assert.equal(readFileSync(join(root, `restored-${i}/db.sql`), "utf8"), "said\n");
  }
  await assert.rejects(contentOf(repository, id, "of/db.sql"), hasCode("not_found"));
});

test("show lists the file of a stream by its name", async (t) => {
  const at = await backupScene(t, "local");
  const { repository } = at;
  await repository.createFromStream(
    (async function* () {
      yield Buffer.from("rows\n");
    })(),
    { filename: "db.sql" },
  );
  assert.deepEqual(
    (await repository.show("latest")).entries.map(({ path }) => path),
    ["db.sql"],
  );
  for (const path of ["db.sql", "/db.sql"])
    assert.equal((await contentOf(repository, "latest", path)).toString(), "rows\n");
});

test(
  "show lists a snapshot of restic from its topmost folder",
  { skip: hasRestic ? false : "no restic" },
  async (t) => {
    const { repository, folder, place } = await backupScene(t, "local");
    const env = { ...process.env, RESTIC_PASSWORD: "correct horse" };
    assert.equal(spawnSync("restic", ["-r", place, "--no-cache", "-q", "backup", folder], { env }).status, 0);
    const [first] = (await repository.show("latest")).entries;
    assert.equal(`/${first!.path}`, folder.split("/").slice(0, 2).join("/"));
    for (const path of [`${folder}/a.txt`, `${folder}/a.txt`.slice(1)])
      assert.equal(
        (await contentOf(repository, "latest", path)).toString(),
        readFileSync(join(folder, "a.txt"), "utf8"),
      );
  },
);
