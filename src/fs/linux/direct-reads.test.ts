import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { DIRECT, DirectReads, endDirect } from "./direct-reads.ts";

const ROOM = 8192;

test("DirectReads reads many files at once, short ones, and names those that cannot be read", (t) => {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  const sizes = [1, 4095, 4096, 4097, 8192, 0];
  const files = sizes.map((size, i) => {
    const file = path.join(disk.root, String(i));
    const bytes = randomBytes(size);
    fs.writeFileSync(file, bytes, { flush: true });
    return { fd: fs.openSync(file, fs.constants.O_RDONLY | DIRECT), bytes };
  });
  const reads = DirectReads.open(8, ROOM);
  assert.ok(reads !== null);
  t.after(() => reads.close());
  for (const [place, { fd }] of files.entries()) {
    reads.queue(place, fd, ROOM);
    // The place after each file has a read that the system refuses when it is submitted.
    if (place === 2) reads.queue(7, 1_000_000, ROOM);
  }
  for (const [place, { fd, bytes }] of files.entries()) {
    assert.deepEqual(Buffer.from(reads.wait(place)!), bytes, `${sizes[place]} bytes`);
    endDirect(fd);
    assert.equal(fs.readSync(fd, Buffer.alloc(10), 0, 1, 0), Math.min(1, bytes.length));
    fs.closeSync(fd);
  }
  assert.equal(reads.wait(7), null);
});

test("DirectReads is null once the system allows no more reads at once", (t) => {
  const limit = Number(fs.readFileSync("/proc/sys/fs/aio-max-nr", "utf8"));
  const all: DirectReads[] = [];
  t.after(() => {
    for (const each of all) each.close();
  });
  for (let places = 0; places <= limit; places += 4096) {
    const reads = DirectReads.open(4096, 4096);
    if (reads === null) return;
    all.push(reads);
  }
  assert.fail(`${all.length} times 4096 reads were allowed, and the limit is ${limit}`);
});
