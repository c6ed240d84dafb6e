import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { sha256 } from "../../crypto/hash.ts";
import { deriveKeys } from "../../crypto/key-derivation.ts";
import { openMessage, sealMessage } from "../../crypto/seal.ts";
import type { MasterKeys } from "../../crypto/seal.ts";
import { ByteWriter } from "../../formats/bytes.ts";
import { IndexWriter } from "../../formats/restic/index-file.ts";
import { decodeKeyFile, decodeMasterKeys } from "../../formats/restic/key-file.ts";
import { encodeSnapshot } from "../../formats/restic/snapshot.ts";
import { appendNode, beginTree, endTree } from "../../formats/restic/tree.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobReader } from "./blob-reader.ts";
import { PackVerifier } from "../verify/pack-verifier.ts";
import { PackWriter } from "./pack-writer.ts";
import type { FinishedPack } from "./pack-writer.ts";
import { addBlob, noiseBlob, testPacks, textBlob } from "../testing-packs.ts";

const PASSWORD = "a password";
const scratch = testPacks();
const root = join(scratch.directory, "repository");
const env = {
  ...process.env,
  RESTIC_PASSWORD: PASSWORD,
  RESTIC_REPOSITORY: root,
  RESTIC_CACHE_DIR: join(scratch.directory, "cache"),
};

function restic(...args: string[]): Buffer {
  return execFileSync("restic", args, { env, stdio: ["ignore", "pipe", "pipe"], maxBuffer: 64 * 1024 * 1024 });
}

function resticMissing(): boolean {
  try {
    execFileSync("restic", ["version"], { stdio: "ignore" });
    return false;
  } catch {
    return true;
  }
}

const skip = resticMissing();
after(() => scratch[Symbol.dispose]());

async function initialise(): Promise<MasterKeys> {
  rmSync(root, { recursive: true, force: true });
  restic("init", "--repository-version", "2");
  const [name] = readdirSync(join(root, "keys"));
  const file = decodeKeyFile(readFileSync(join(root, "keys", name!)));
  return decodeMasterKeys(openMessage(await deriveKeys(PASSWORD, file.salt, file), file.data));
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function place(path: string, bytes: Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, bytes);
}

function treeOf(files: readonly { name: string; size: number; content: Uint8Array }[]): Uint8Array {
  const writer = new ByteWriter();
  beginTree(writer);
  for (const { name, size, content } of files) {
    appendNode(writer, {
      name: Buffer.from(name),
      type: "file",
      mode: 0o644,
      mtimeSec: 1_700_000_000,
      mtimeNs: 5,
      uid: 0,
      gid: 0,
      user: "",
      group: "",
      inode: 0n,
      deviceId: 0n,
      links: 1,
      size,
      xattrs: [],
      device: 0n,
      content,
    });
  }
  endTree(writer);
  return writer.copy();
}

test("restic reads every byte of Cairn's packs and dumps the files in them", { skip }, async () => {
  const keys = await initialise();
  const packs: FinishedPack[] = [];
  const options = {
    keys,
    directory: scratch.directory,
    packSize: 2 * 1024 * 1024,
    onPack: (pack: FinishedPack) => void packs.push(pack),
  };
  const data = new PackWriter({ ...options, type: "data" });
  const other = new PackWriter({ ...options, type: "data", level: 0 });
  const trees = new PackWriter({ ...options, type: "tree" });
  const files = new Map<string, Buffer>();
  const nodes = Array.from({ length: 300 }, (_, number) => {
    const name = `file-${String(number).padStart(3, "0")}`;
    const plain =
      number % 50 === 0
        ? noiseBlob(number + 1, 900_000)
        : number % 3 === 0
          ? noiseBlob(number + 1, 3000)
          : textBlob(number, 5000);
    files.set(name, plain);
    return { name, size: plain.length, content: addBlob(number % 2 === 0 ? data : other, plain) };
  });
  const tree = addBlob(trees, treeOf(nodes));
  const tail = other.takeTail();
  if (tail !== null) data.appendTail(tail);
  data.finish();
  trees.finish();
  assert.ok(packs.length > 2);
  const index = new IndexWriter();
  for (const pack of packs) {
    const name = hex(pack.id);
    mkdirSync(join(root, "data", name.slice(0, 2)), { recursive: true });
    renameSync(pack.path, join(root, "data", name.slice(0, 2), name));
    index.addPack(pack.id, pack.header);
  }
  const sealedIndex = sealMessage(keys, index.finish());
  place(join(root, "index", hex(sha256(sealedIndex))), sealedIndex);
  const snapshot = encodeSnapshot({
    time: "2026-01-02T03:04:05Z",
    tree: objectIdOf(tree),
    paths: ["/"],
    hostname: "here",
    username: "me",
    uid: 0,
    gid: 0,
  });
  const sealedSnapshot = sealMessage(keys, snapshot);
  place(join(root, "snapshots", hex(sha256(sealedSnapshot))), sealedSnapshot);
  restic("check", "--read-data");
  for (const name of ["file-000", "file-001", "file-150", "file-299"]) {
    assert.ok(restic("dump", "latest", `/${name}`).equals(files.get(name)!), name);
  }
});

test("Cairn's verifier and reader accept every pack that restic writes", { skip }, async () => {
  const keys = await initialise();
  const source = join(scratch.directory, "source");
  for (let number = 0; number < 200; number++)
    place(join(source, `d${number % 5}`, `f${number}`), textBlob(number, number * 100));
  place(join(source, "large"), noiseBlob(5, 5_000_000));
  restic("backup", source);
  restic("backup", "--compression", "off", source);
  const verifier = new PackVerifier(keys);
  const pathOf = (name: string) => join(root, "data", name.slice(0, 2), name);
  let blobs = 0;
  for (const folder of readdirSync(join(root, "data"))) {
    for (const name of readdirSync(join(root, "data", folder))) {
      const descriptor = openSync(pathOf(name), "r");
      const reader = new BlobReader({ keys, openPack: (wanted) => openSync(pathOf(wanted), "r") });
      const pack = Buffer.from(name, "hex");
      const size = statSync(pathOf(name)).size;
      const problems = verifier.verify({
        descriptor,
        size,
        id: pack,
        onBlob(blob, arena, offset, length) {
          blobs += 1;
          const read = reader.view({ ...blob, pack });
          assert.ok(Buffer.from(arena.bytes.subarray(offset, offset + length)).equals(read));
        },
      });
      assert.deepEqual(problems, [], name);
      reader.close();
      closeSync(descriptor);
    }
  }
  assert.ok(blobs > 200);
});
