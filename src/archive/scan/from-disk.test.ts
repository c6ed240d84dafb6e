import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { flushFileSystem, forgetPages } from "../../fs/linux/flush.ts";
import { NO_RULES } from "../../fs/ignore.ts";
import { scan } from "./scan.ts";
import { ScanMemory } from "./scan-memory.ts";

const LOOK = {
  memory: new ScanMemory(),
  cache: null,
  chunkerPolynomial: "3da3358b4dc173",
};

/** Bytes of a file that the system has in memory; null where nobody says. */
function inMemory(file: string): number | null {
  const { status, stdout } = spawnSync("fincore", ["--bytes", "--noheadings", "--output", "RES", file], {
    encoding: "utf8",
  });
  return status === 0 ? Number(stdout) : null;
}

for (const readAgain of [undefined, "memory", "disk"] as const) {
  test(`scan does not read the holes of a large file${readAgain === undefined ? "" : ` again from ${readAgain}`}, and hashes them as zeros`, async (t) => {
    const disk = loopFileSystem(t, "ext4", { size: 512 << 20 });
    if (disk === null) return;
    const size = 200 << 20;
    // At the front, between holes, and to the end, not all at a page's border.
    const parts = [
      { at: 0, length: 1_000_000 },
      { at: (64 << 20) + 123, length: 300_000 },
      { at: 150 << 20, length: 5 << 20 },
      { at: size - 5000, length: 5000 },
    ].map(({ at, length }) => ({ at, bytes: randomBytes(length) }));
    const look = async (name: string, isSparse: boolean): Promise<{ state: string; file: string }> => {
      const folder = path.join(disk.root, name);
      const file = path.join(folder, "image");
      fs.mkdirSync(folder);
      const fd = fs.openSync(file, "w");
      if (isSparse) fs.ftruncateSync(fd, size);
      else for (let at = 0; at < size; at += 1 << 20) fs.writeSync(fd, Buffer.alloc(1 << 20));
      for (const { at, bytes } of parts) fs.writeSync(fd, bytes, 0, bytes.length, at);
      fs.closeSync(fd);
      await flushFileSystem(folder);
      if (isSparse) forget(file);
      const { state } = await scan({
        ...LOOK,
        request: { root: Buffer.from(folder), rules: NO_RULES, readAgain },
      });
      return { state: Buffer.from(state).toString("hex"), file };
    };
    const sparse = await look("sparse", true);
    const kept = inMemory(sparse.file);
    if (kept === null) t.diagnostic("no fincore: whether holes were read is not known");
    else assert.ok(kept < 20 << 20, `${kept} bytes of it are in memory`);
    fs.rmSync(sparse.file);
    assert.equal((await look("whole", false)).state, sparse.state);
  });
}

/** The system keeps nothing of a file in memory. */
function forget(file: string): void {
  const fd = fs.openSync(file, "r");
  forgetPages(fd);
  fs.closeSync(fd);
}

for (const [what, size, kind] of [
  ["small", 20_000, "ext4"],
  ["small", 20_000, "xfs"],
  ["middling", 200_000, "ext4"],
  ["large", 3 << 20, "ext4"],
] as const) {
  test(`scan reads a ${what} file from the disk, an ${kind}, instead of the page cache if readAgain is disk`, async (t) => {
    const disk = loopFileSystem(t, kind);
    if (disk === null) return;
    const folder = path.join(disk.root, "folder");
    fs.mkdirSync(folder);
    const content = randomBytes(size);
    fs.writeFileSync(path.join(folder, "file"), content);
    await flushFileSystem(folder);
    const look = async (readAgain: "disk" | "memory"): Promise<string> => {
      const { state } = await scan({ ...LOOK, request: { root: Buffer.from(folder), rules: NO_RULES, readAgain } });
      return Buffer.from(state).toString("hex");
    };
    const before = await look("disk");
    assert.equal(await look("memory"), before);
    // The disk changes under the file system, which does not know.
    const image = fs.openSync(disk.image, "r+");
    const at = fs.readFileSync(disk.image).indexOf(content.subarray(8192, 8192 + 64));
    fs.writeSync(image, Buffer.from([content[8192]! ^ 1]), 0, 1, at);
    fs.closeSync(image);
    assert.equal(await look("memory"), before);
    assert.notEqual(await look("disk"), before);
  });
}
