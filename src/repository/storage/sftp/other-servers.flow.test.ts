import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sizesOf } from "../testing-sizes.ts";
import { test, type TestContext } from "node:test";
import { type Manners, poorServer } from "../../../../test/fixtures/poor-sftp-server.ts";
import { openSftpStorage, type SftpStorage } from "./sftp.ts";

/** Servers that are not OpenSSH's: poor ones, and ones that lie. */

const NAME = "ab".repeat(32);

/** A storage on such a server, with a file of an index in it. */
async function serve(
  t: TestContext,
  manners: Omit<Manners, "folder">,
  content: Uint8Array | null = null,
): Promise<{ folder: string; storage: SftpStorage }> {
  const folder = mkdtempSync(join(tmpdir(), "cairn-poor-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(join(folder, "repo/index"), { recursive: true });
  if (content !== null) writeFileSync(join(folder, "repo/index", NAME), content);
  const env = { ...process.env, CAIRN_SSH_COMMAND: poorServer({ folder, ...manners }) };
  const storage = await openSftpStorage("me@poor:repo", { env });
  t.after(() => storage.close());
  return { folder, storage };
}

test("sftp storage works with a server without extensions that returns small pieces", async (t) => {
  const { folder, storage } = await serve(t, { readSize: 1000 });
  const bytes = randomBytes(150_000);
  await storage.save("index", NAME, bytes);
  await storage.save("index", NAME, bytes);
  assert.deepEqual(readdirSync(join(folder, "repo/index")), [NAME]);
  assert.deepEqual(sizesOf(await storage.list("index")), [{ name: NAME, size: bytes.length }]);
  assert.ok(bytes.equals(await storage.load("index", NAME)));
  assert.ok(bytes.subarray(7, 140_007).equals(await storage.load("index", NAME, { offset: 7, length: 140_000 })));
  await assert.rejects(storage.load("index", NAME, { offset: 149_999, length: 2 }), { code: "damaged" });
  await storage.sync(["index"]);
  await storage.save("config", "config", Buffer.from("one"));
  await assert.rejects(storage.save("config", "config", Buffer.from("two")), { code: "already_exists" });
  await storage.remove("index", NAME);
  assert.deepEqual(readdirSync(join(folder, "repo")).toSorted(), ["config", "index"]);
  assert.deepEqual(readdirSync(join(folder, "repo/index")), []);
});

test("sftp storage throws damaged for a file with a wrong size, without allocating memory for a huge size", async (t) => {
  for (const size of [1 << 20, 1 << 30, 2 ** 40, 2 ** 52]) {
    const { storage } = await serve(t, { size }, Buffer.alloc(200_000));
    const before = process.memoryUsage().arrayBuffers;
    await assert.rejects(storage.load("index", NAME), { code: "damaged" });
    assert.ok(process.memoryUsage().arrayBuffers < before + (80 << 20));
  }
});

test("sftp storage loads a file above 64 MiB completely", async (t) => {
  const bytes = Buffer.alloc(65 << 20, "not the same everywhere ");
  bytes.fill("the end", bytes.length - (2 << 20));
  const { storage } = await serve(t, {}, bytes);
  assert.ok(bytes.equals(await storage.load("index", NAME)));
});

test("sftp storage throws io if the server's answer does not fit the request", async (t) => {
  const packets = {
    "names instead of a handle": "00000009" + "68" + "00000001" + "00000000",
    "more names than there are bytes": "00000009" + "68" + "00000001" + "ffffffff",
    "a handle longer than its packet": "00000009" + "66" + "00000001" + "7fffffff",
    "a request that nobody made": "00000009" + "66" + "7fffffff" + "00000000",
    "done, without a handle": "00000009" + "65" + "00000001" + "00000000",
    "a packet of 2 GiB": "7fffffff" + "66" + "00000001",
    "a packet without a number": "00000001" + "66",
  };
  for (const [what, answer] of Object.entries(packets)) {
    const { storage } = await serve(t, { answer }, Buffer.alloc(10));
    const failed = { code: "io", message: /does not fit the request/ };
    await assert.rejects(storage.load("index", NAME), failed, what);
  }
});

test("sftp storage throws unsupported if the server's shell prints a greeting", async (t) => {
  const { storage } = await serve(t, { greeting: "Welcome to this machine\n" });
  await assert.rejects(storage.list("index"), { code: "unsupported", message: /the answer of poor is not SFTP/ });
});
