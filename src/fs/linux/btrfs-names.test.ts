import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { asOrdinaryUser, makeLoopFileSystem, withOpen } from "../../../test/fixtures/loop-file-system.ts";
import { createSnapshot, hasNewName, makeSubvolume, subvolumeInfo } from "./btrfs.ts";

const made = makeLoopFileSystem("btrfs");
const skip = "reason" in made ? made.reason : false;
const volume = "reason" in made ? "" : made.root;
after(() => "close" in made && made.close());

const NAME = Buffer.from(".wanted");

/** A read-only snapshot of a subvolume; the transaction that made it. */
async function snapshot(of: string, name: string): Promise<number> {
  await withOpen(of, async (from) =>
    withOpen(volume, async (parent) => createSnapshot(from, parent, name, { readOnly: true })),
  );
  return withOpen(path.join(volume, name), async (fd) => subvolumeInfo(fd).otransid);
}

async function has(name: string, since = 0): Promise<boolean | null> {
  return withOpen(path.join(volume, name), async (fd) => hasNewName(fd, (each) => NAME.equals(each), { since }));
}

test(
  "hasNewName finds a name in any directory of a snapshot, with `since` only a name made after that transaction",
  { skip },
  async () => {
    const folder = path.join(volume, "folder");
    await makeSubvolume(Buffer.from(folder));
    // More than one answer holds, names and small content.
    for (let d = 0; d < 20; d++) {
      fs.mkdirSync(path.join(folder, `d${d}/deep`), { recursive: true });
      for (let f = 0; f < 200; f++) fs.writeFileSync(path.join(folder, `d${d}/deep/file ${f}`), "x".repeat(1500));
    }
    for (const near of [".wante", ".wanted.", "wanted", ".Wanted"]) fs.writeFileSync(path.join(folder, "d7", near), "");
    fs.writeFileSync(path.join(folder, "d3/says"), "the word .wanted is content here");
    const first = await snapshot(folder, "first");
    assert.equal(await has("first"), false);
    fs.writeFileSync(path.join(folder, "d19/deep/.wanted"), "");
    await snapshot(folder, "second");
    assert.deepEqual([await has("first"), await has("second"), await has("second", first)], [false, true, true]);
    const third = await snapshot(folder, "third");
    fs.writeFileSync(path.join(folder, "d0/deep/file 3"), "changed");
    await snapshot(folder, "fourth");
    assert.deepEqual([await has("fourth"), await has("fourth", third)], [true, false]);
    fs.rmSync(path.join(folder, "d19/deep/.wanted"));
    const fifth = await snapshot(folder, "fifth");
    assert.deepEqual([await has("fifth"), await has("fifth", third)], [false, false]);
    // What was elsewhere and is moved in comes as a name that is new.
    fs.mkdirSync(path.join(volume, "folder/d5/other"));
    fs.writeFileSync(path.join(folder, "d5/other/.x"), "");
    fs.renameSync(path.join(folder, "d5/other/.x"), path.join(folder, "d5/other/.wanted"));
    await snapshot(folder, "sixth");
    assert.deepEqual([await has("sixth", fifth)], [true]);
  },
);

test("hasNewName returns null without administrator rights", { skip }, async () => {
  const folder = path.join(volume, "of-others");
  await makeSubvolume(Buffer.from(folder));
  fs.chmodSync(folder, 0o755);
  const imports = { names: new URL("btrfs.ts", import.meta.url).href, fs: "node:fs" };
  const told = asOrdinaryUser(
    imports,
    `const fd = fs.openSync(${JSON.stringify(folder)}, "r");
     return { told: await names.hasNewName(fd, () => true, { since: 0 }) };`,
  );
  assert.deepEqual(told, { told: null });
});
