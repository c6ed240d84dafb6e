import assert from "node:assert/strict";
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { btrfsPlace } from "../../test/fixtures/held-place.ts";
import { setAttribute } from "../workspace/store/testing-edits.ts";
import { inDirectory, syscalls } from "../fs/linux/syscalls.ts";
import { newArena } from "../native.ts";
import type { LeftOut } from "../contract/index.ts";
import { testFolder, type TestFolder } from "../keep/testing-folder.ts";

/** Entries with more extended attributes than the system lists of one. */

const MANY = 280;

function setAttributes(place: string, count: number): boolean {
  const names = Array.from({ length: count }, (_, i) => `user.${String(i).padStart(3, "0")}${"x".repeat(240)}`);
  return names.every((name) => setAttribute(place, name, "v"));
}

function attributesOf(place: string): number {
  return inDirectory(place, (fd) => syscalls().flistxattr(fd, newArena(128 * 1024)));
}

/** A workspace on a file system that gives a directory as many; null where there is none, and the test is skipped. */
async function folderWithMany(t: TestContext): Promise<TestFolder | null> {
  const { TMPDIR } = process.env;
  process.env["TMPDIR"] = "/dev/shm";
  try {
    const made = await testFolder(t, { "d/f": "one", "d/below/g": "deep", z: "z" });
    if (setAttributes(join(made.folder, "d"), MANY) && attributesOf(join(made.folder, "d")) < 0) return made;
    t.skip("/dev/shm has no file system that keeps so many");
    return null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    t.skip("no /dev/shm");
    return null;
  } finally {
    if (TMPDIR === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = TMPDIR;
  }
}

function told(result: { left_out: LeftOut[] }): unknown[] {
  return result.left_out.map(({ path, reason, aspects }) => [path, reason, aspects?.join()]);
}

test("save keeps a directory whose attributes cannot be listed with its entries, and lists it as unreadable", async (t) => {
  const made = await folderWithMany(t);
  if (made === null) return;
  const { client, root } = made;
  const saved = await client.save();
  assert.deepEqual(told(saved), [["d", "unreadable", "xattrs"]]);
  assert.equal(saved.complete, false);
  assert.equal(saved.entries, 5);
  assert.deepEqual(
    saved.labels.map(({ path, label, aspects }) => [path, label, aspects]),
    [["d", "torn-possible", ["xattrs"]]],
  );
  assert.deepEqual((await client.verify("head")).problems, []);
  const status = await client.status();
  assert.equal(status.clean, true);
  assert.deepEqual(
    status.head_incomplete?.left_out.map(({ path, aspects }) => [path, aspects]),
    [["d", ["xattrs"]]],
  );
  const out = join(root, "out");
  assert.deepEqual(told(await client.fork("head", out)), [["d", "unreadable", "xattrs"]]);
  assert.equal(readFileSync(join(out, "d/below/g"), "utf8"), "deep");
});

test("restore keeps present entries whose attributes cannot be listed, and lists them as unreadable", async (t) => {
  const made = await folderWithMany(t);
  if (made === null) return;
  const { client, folder, write } = made;
  const at = (name: string): string => join(folder, name);
  const { save_point_id: first } = await client.save();
  write("d/f", "two");
  chmodSync(at("d"), 0o700);
  mkdirSync(at("new"));
  setAttributes(at("new"), MANY);
  write("new/inside", "stays");
  const restored = await client.restore({ target: first });
  assert.deepEqual(told(restored).toSorted(), [
    ["d", "unreadable", "mode"],
    ["new", "unreadable", undefined],
  ]);
  assert.equal(readFileSync(at("d/f"), "utf8"), "one");
  assert.equal(statSync(at("d")).mode & 0o777, 0o700);
  assert.equal(readFileSync(at("new/inside"), "utf8"), "stays");
});

test("restore keeps the present attributes of an entry if the point lacks the saved attributes", async (t) => {
  const made = await folderWithMany(t);
  if (made === null) return;
  const { client, folder, write } = made;
  const at = (name: string): string => join(folder, name);
  const { save_point_id: first } = await client.save();
  rmSync(at("d"), { recursive: true });
  mkdirSync(at("d/below"), { recursive: true });
  for (const [name, text] of [
    ["d/f", "two"],
    ["d/below/g", "deep"],
  ] as const)
    write(name, text);
  assert.ok(setAttributes(at("d"), 2));
  const before = attributesOf(at("d"));
  const restored = await client.restore({ target: first });
  assert.deepEqual(told(restored), [["d", "unreadable", "xattrs"]]);
  assert.equal(readFileSync(at("d/f"), "utf8"), "one");
  assert.equal(attributesOf(at("d")), before);
});

test("seal warns of entries in a clone whose attributes cannot be listed", async (t) => {
  const place = await btrfsPlace(t, (folder) => {
    mkdirSync(join(folder, "d"));
    setAttributes(join(folder, "d"), MANY);
  });
  if (place === null) return;
  const { client } = place;
  assert.deepEqual(told(await client.save()), []);
  const warnings: string[] = [];
  await client.seal({ onWarning: (warning) => void warnings.push(warning) });
  assert.match(warnings.join(), /1 entry of the point \w+ could not be read \(d: .*extended attributes/);
});
