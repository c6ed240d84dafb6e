import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { DirectoryListing } from "./listing.ts";
import { openDirectory, type Syscalls, syscalls } from "./linux/syscalls.ts";

function folder(t: TestContext): string {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-listing-"));
  t.after(() => fs.rmSync(made, { recursive: true, force: true }));
  return made;
}

function list(sys: Syscalls, listing: DirectoryListing, at: string): { names: Buffer[]; directories: Buffer[] } {
  const fd = openDirectory(at);
  try {
    assert.equal(listing.read(sys, fd), 0);
  } finally {
    fs.closeSync(fd);
  }
  const { bytes } = listing.names;
  const nameAt = (offset: number): Buffer => Buffer.from(bytes.slice(offset, bytes.indexOf(0, offset)));
  assert.equal(listing.count, listing.offsets.length);
  return {
    names: listing.offsets.map(nameAt),
    directories: listing.offsets.filter((offset) => listing.isDirectory(offset)).map(nameAt),
  };
}

void describe("a directory listing", () => {
  test("DirectoryListing returns names in byte order, including names that are not UTF-8", (t) => {
    const sys = syscalls();
    const at = folder(t);
    const listing = new DirectoryListing();
    assert.deepEqual(list(sys, listing, at), { names: [], directories: [] });
    const names = Array.from({ length: 255 }, (_, i) => Buffer.from([0x6e, i + 1])).filter((name) => name[1] !== 47);
    names.push(Buffer.from("..."), Buffer.from("..a"), Buffer.from(".a"), Buffer.alloc(255, 0xff), Buffer.from("nn"));
    names.push(Buffer.from([0x80]), Buffer.from("n"));
    for (const name of names.slice(0, -1)) fs.writeFileSync(Buffer.concat([Buffer.from(`${at}/`), name]), "");
    fs.mkdirSync(path.join(at, "n"));
    const unique = [...new Map(names.map((name) => [name.toString("latin1"), name])).values()];
    const found = list(sys, listing, at);
    assert.deepEqual(found.names, unique.toSorted(Buffer.compare));
    assert.deepEqual(found.directories, [Buffer.from("n")]);
  });

  test("DirectoryListing returns all names of a directory that is larger than the read buffer", (t) => {
    const sys = syscalls();
    const at = folder(t);
    const other = folder(t);
    fs.writeFileSync(path.join(other, "only"), "");
    const names = Array.from({ length: 3000 }, (_, i) => `${String(i).padStart(5, "0")}${"x".repeat(200)}`);
    for (const name of names) fs.writeFileSync(path.join(at, name), "");
    const listing = new DirectoryListing();
    assert.deepEqual(list(sys, listing, at).names.map(String), names);
    assert.deepEqual(list(sys, listing, other).names.map(String), ["only"]);
    assert.deepEqual(list(sys, listing, at).names.length, 3000);
    assert.ok(listing.read(sys, 9999) < 0);
  });
});
