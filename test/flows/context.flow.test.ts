import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { checkConsistency } from "../../src/context/consistency.ts";
import { find } from "../../src/context/search.ts";
import { ContextStore } from "../../src/context/store.ts";
import { buildCommand, cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";

/** A context store is a workspace: points, backups and receipts have its files and its index. */

const docs = path.join(SCRATCH, "docs");
fs.mkdirSync(docs);
fs.writeFileSync(path.join(docs, "lighthouse.md"), "# Lighthouse\n\nA keeper writes letters.\n");

function newStore(name: string, root = SCRATCH): string {
  const store = path.join(root, name);
  cairnOk(["context", "init", store]);
  cairnOk(["context", "add", "viking://resources/docs", docs, "-C", store]);
  return store;
}

async function found(store: string, query: string): Promise<string[]> {
  await using open = await ContextStore.open(store);
  assert.equal(checkConsistency(open, "").ok, true);
  return (await find(open, query, { mode: "words" })).map(({ uri }) => uri);
}

test("restore and undo bring the files and the index of a context store back together", async () => {
  const store = newStore("saved");
  cairnOk(["save", store]);
  cairnOk(["context", "rm", "viking://resources/docs", "-C", store]);
  fs.writeFileSync(path.join(docs, "harbour.md"), "# Harbour\n\nShips come in.\n");
  cairnOk(["context", "add", "viking://resources/other", docs, "-C", store]);
  fs.rmSync(path.join(docs, "harbour.md"));
  assert.deepEqual(await found(store, "ships"), ["viking://resources/other/harbour.md"]);
  cairnOk(["restore", "head", "-C", store]);
  assert.deepEqual(await found(store, "ships"), []);
  assert.deepEqual(await found(store, "keeper"), ["viking://resources/docs/lighthouse.md"]);
  // A search has written to the index since.
  cairnOk(["undo", "--over", "-C", store]);
  assert.deepEqual(await found(store, "ships"), ["viking://resources/other/harbour.md"]);
});

test("a backup of a context store is restored elsewhere with a receipt, and the copy can be searched", async () => {
  const store = newStore("backed-up");
  cairnOk(["save", store]);
  const repository = path.join(SCRATCH, "repository");
  const password = path.join(SCRATCH, "password");
  fs.writeFileSync(password, "secret\n");
  const at = ["-r", repository, "--password-file", password];
  cairnOk(["backup", "init", ...at]);
  cairnOk(["backup", "create", ...at, "-C", store]);
  const to = path.join(SCRATCH, "restored");
  const receipt = path.join(SCRATCH, "receipt.json");
  cairnOk(["backup", "restore", "latest", "--to", to, "--receipt", receipt, ...at]);
  cairnOk(["receipt", "verify", receipt]);
  assert.deepEqual(await found(to, "keeper"), ["viking://resources/docs/lighthouse.md"]);
});

test("a point saved while a context store is served and changed contains a consistent store", async () => {
  const store = newStore("served");
  const args = [buildCommand(), "-C", store, "serve-context", "--listen", "127.0.0.1:0", "--no-auth", "--json"];
  const server = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  for await (const piece of server.stdout) {
    said += String(piece);
    if (said.includes("\n")) break;
  }
  assert.match((JSON.parse(said) as { data: { url: string } }).data.url, /^http:\/\/127\.0\.0\.1:\d+$/);
  for (let round = 0; round < 5; round++) {
    cairnOk(["context", "add", `viking://resources/copy-${round}`, docs, "-C", store]);
    cairnOk(["save", store]);
  }
  const ended = new Promise((resolve) => server.once("exit", resolve));
  server.kill();
  assert.equal(await ended, 0);
  const fork = path.join(SCRATCH, "forked");
  cairnOk(["fork", "head~2", fork, "-C", store]);
  assert.equal((await found(fork, "keeper")).length, 4);
});

test("on a full disk, context add and bundle import leave the store unchanged, and bundle export leaves no file", async (t: TestContext) => {
  const made = loopFileSystem(t, "ext4", { size: 48 << 20 });
  if (made === null) return;
  const place = made.root;
  const store = newStore("full", place);
  const large = path.join(SCRATCH, "large");
  fs.mkdirSync(large);
  fs.writeFileSync(
    path.join(large, "noise.bin"),
    Buffer.from(Array.from({ length: 1 << 20 }, () => Math.floor(Math.random() * 256))),
  );
  for (let i = 0; i < 40; i++) fs.copyFileSync(path.join(large, "noise.bin"), path.join(large, `${i}.bin`));
  const full = cairn(["context", "add", "viking://resources/large", large, "-C", store]);
  assert.deepEqual([full.status, full.error?.code], [8, "no_space"]);
  assert.ok(!fs.existsSync(path.join(store, "resources/large")));
  const other = newStore("source");
  cairnOk(["context", "add", "viking://resources/large", large, "-C", other]);
  const to = path.join(place, "out.ovpack");
  const packed = cairn(["bundle", "export", "viking://resources/large", to, "-C", other]);
  assert.deepEqual([packed.status, packed.error?.code], [8, "no_space"]);
  assert.deepEqual(
    fs.readdirSync(place).filter((name) => name.includes("ovpack") || name.startsWith(".cairn-tmp")),
    [],
  );
  const bundle = path.join(SCRATCH, "large.ovpack");
  cairnOk(["bundle", "export", "viking://resources/large", bundle, "-C", other]);
  const imported = cairn(["bundle", "import", bundle, "viking://resources", "-C", store]);
  assert.deepEqual([imported.status, imported.error?.code], [8, "no_space"]);
  assert.deepEqual(await found(store, "keeper"), ["viking://resources/docs/lighthouse.md"]);
});
