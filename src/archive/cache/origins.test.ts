import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { listOrigins, loadOrigins, OriginFinder, OriginList, writeOrigins } from "./origins.ts";
import { newStatBuffer, STAT } from "../../fs/linux/syscalls.ts";

function temporaryFile(t: TestContext): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-origins-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  return path.join(folder, "origins");
}

/** Stat words of which each one has a value of its own. */
function statOf(inode: bigint, base: number): Uint32Array {
  const { words } = newStatBuffer();
  words.forEach((_, i) => (words[i] = base + i));
  words[STAT.INO] = Number(inode & 0xffffffffn);
  words[STAT.INO + 1] = Number(inode >> 32n);
  return words;
}

/** Inodes as file systems number them: side by side, in far groups, with equal low words. */
const INODES = Array.from({ length: 5000 }, (_, i) => (BigInt(i % 5) << 33n) + BigInt(100 + Math.floor(i / 5)));

function writeSome(file: string): void {
  const lists = [new OriginList(), new OriginList()];
  INODES.forEach((inode, i) => lists[i % 2]!.add(statOf(inode, 1), statOf(inode + 7_000_000n, 1000 + i)));
  writeOrigins(
    file,
    lists.map((list) => list.take()),
  );
}

test("OriginFinder replaces a clone's inode, change time and link count by those of its source", (t) => {
  const file = temporaryFile(t);
  writeSome(file);
  const finder = new OriginFinder(loadOrigins(file)!);
  INODES.forEach((inode, i) => {
    for (const isDirectory of [false, true]) {
      const shown = statOf(inode, 1);
      const wanted = shown.slice();
      const source = statOf(inode + 7_000_000n, 1000 + i);
      const taken = [STAT.INO, STAT.INO + 1, STAT.CTIME, STAT.CTIME + 1, STAT.CTIME_NS, STAT.NLINK];
      if (isDirectory) taken.push(STAT.SIZE, STAT.SIZE + 1);
      for (const word of taken) wanted[word] = source[word]!;
      assert.ok(finder.apply(shown, isDirectory));
      assert.deepEqual(shown, wanted);
    }
  });
  assert.equal([...listOrigins(loadOrigins(file)!)].length, INODES.length);
});

test("OriginFinder leaves an entry without a recorded source unchanged", (t) => {
  const file = temporaryFile(t);
  writeSome(file);
  const finder = new OriginFinder(loadOrigins(file)!);
  for (const inode of [0n, 99n, 5n << 33n, (1n << 33n) + 5000n, 1n << 63n]) {
    const shown = statOf(inode, 1);
    assert.equal(finder.apply(shown, true), false);
    assert.deepEqual(shown, statOf(inode, 1));
  }
});

test("loadOrigins returns null for a missing, truncated or changed file", (t) => {
  const file = temporaryFile(t);
  assert.equal(loadOrigins(file), null);
  const list = new OriginList();
  for (let i = 1n; i < 5n; i++) list.add(statOf(i, 1), statOf(i + 100n, 500));
  writeOrigins(file, [list.take()]);
  const whole = fs.readFileSync(file);
  assert.equal([...listOrigins(loadOrigins(file)!)].length, 4);
  for (let length = 0; length < whole.length; length++) {
    fs.writeFileSync(file, whole.subarray(0, length));
    assert.equal(loadOrigins(file), null, `cut to ${length}`);
  }
  for (let at = 0; at < whole.length; at++) {
    const flipped = Buffer.from(whole);
    flipped[at]! ^= 1 << (at % 8);
    fs.writeFileSync(file, flipped);
    assert.equal(loadOrigins(file), null, `flipped at ${at}`);
  }
  fs.writeFileSync(file, Buffer.concat([whole, Buffer.alloc(40)]));
  assert.equal(loadOrigins(file), null);
  writeOrigins(file, []);
  assert.equal(loadOrigins(file), null);
});
