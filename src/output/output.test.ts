import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import type { TreeNode } from "../formats/restic/tree.ts";
import type { ByteSink, Output } from "./output.ts";
import { FolderOutput, madeFolder } from "./folder.ts";
import { TarOutput } from "./tar.ts";
import { ZipOutput } from "./zip.ts";

const BASE = {
  inode: 0n,
  deviceId: 0n,
  links: 1,
  size: 0,
  xattrs: [],
  device: 0n,
  mtimeNs: 5,
  mtimeSec: 1_600_000_001,
};
const OWNER = { mode: 0o640, uid: 1000, gid: 100, user: "u", group: "g" };
const TWICE = { links: 2, inode: 7n, deviceId: 1n, xattrs: [{ name: Buffer.from("user.a"), value: Buffer.from("v") }] };
const LONG = "text\n".repeat(300);

function entry(path: string, node: Partial<TreeNode> & Pick<TreeNode, "type">, content = ""): [TreeNode, string] {
  return [{ ...BASE, ...OWNER, name: Buffer.from(path, "latin1"), size: content.length, ...node }, content];
}

/** Each kind of entry; the name is the path. */
const ENTRIES = [
  entry("d", { type: "dir", mode: 0o2755 }),
  entry("d/empty", { type: "file", mtimeSec: -5 }),
  entry("d/one", { type: "file", ...TWICE }, LONG),
  entry("d/two", { type: "file", ...TWICE }, LONG),
  entry("d/\xff", { type: "file", mtimeSec: 2 ** 33 }, "x"),
  entry("d/link", { type: "symlink", mode: 0o777, linktarget: Buffer.from("one") }),
  entry("d/pipe", { type: "fifo" }),
  entry("d/socket", { type: "socket" }),
];

async function* inPieces(content: string): AsyncGenerator<Uint8Array> {
  for (const piece of [content.slice(0, 3), content.slice(3)]) if (piece !== "") yield Buffer.from(piece);
}

/** Writes all entries; returns the bytes, the entries that have no place, and those whose content was not asked for. */
async function written(
  outputTo: (sink: ByteSink) => Output,
): Promise<{ bytes: Buffer; lacking: string[]; alone: string[] }> {
  const pieces: Uint8Array[] = [];
  const output = outputTo({ write: (bytes) => void pieces.push(bytes) });
  const [lacking, alone]: string[][] = [[], []];
  for (const [node, content] of ENTRIES) {
    const next = output.next(node.name, node);
    const name = Buffer.from(node.name).toString("latin1");
    if (next === null) lacking!.push(name);
    else if (!next.needsContent && node.type === "file") alone!.push(name);
    await next?.write(next.needsContent ? inPieces(content) : undefined);
  }
  await output.end();
  return { bytes: Buffer.concat(pieces), lacking: lacking!, alone: alone! };
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

test("TarOutput writes the same bytes as earlier releases, and a second name of a file without its content", async () => {
  const { bytes, lacking, alone } = await written((sink) => new TarOutput(sink));
  assert.deepEqual([lacking, alone], [["d/socket"], ["d/two"]]);
  assert.equal(sha256(bytes), "eb96dbabdce2401adb6699e1eac3c61df64f693df36feceb55203c879926f3ae");
});

// The digest includes deflated bytes, which may change with the zlib of Node.
test("ZipOutput writes the same bytes as earlier releases, without pipes and sockets", async () => {
  const { bytes, lacking, alone } = await written((sink) => new ZipOutput(sink));
  assert.deepEqual([lacking, alone], [["d/pipe", "d/socket"], ["d/empty"]]);
  assert.equal(sha256(bytes), "3f626c92ce1bff82253933ae0adfad47aa3c992c9457bdb3e1d61418b1385262");
});

test("an output hands over a piece only after the sink has taken the one before", async () => {
  for (const Kind of [TarOutput, ZipOutput]) {
    let taking = 0;
    const output: Output = new Kind({
      write: async () => {
        assert.equal(++taking, 1);
        await new Promise(setImmediate);
        taking--;
      },
    });
    const [node, content] = ENTRIES[2]!;
    await output.next(node.name, node)!.write(inPieces(content));
    await output.end();
  }
});

test("ZipOutput in a file stores content that does not shrink, and writes its size before it", async () => {
  const file: Buffer[] = [];
  let size = 0;
  const write = (bytes: Uint8Array): void => {
    file.push(Buffer.from(bytes));
    size += bytes.length;
  };
  const patches: { bytes: Buffer; at: number }[] = [];
  const zip = new ZipOutput({ write, patch: (bytes, at) => void patches.push({ bytes: Buffer.from(bytes), at }) });
  const node = { type: "file", mode: 0o644, mtimeSec: 0, size: 3 } as const;
  await zip.addPieces(Buffer.from("f"), node, inPieces("abcdef"));
  assert.equal(size, 30 + 1 + 6);
  assert.equal(patches[0]!.at, 0);
  assert.deepEqual([patches[0]!.bytes.readUInt16LE(8), patches[0]!.bytes.readUInt32LE(18)], [0, 6]);
});

function newFolder(t: TestContext): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), "cairn-output-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const FILE = { type: "file", mode: 0o640 } as const;

test("FolderOutput writes plain files and folders, and has no place for links and pipes", async (t) => {
  const output = new FolderOutput(newFolder(t), 0o700);
  assert.equal(output.next(Buffer.from("l"), { type: "symlink", mode: 0o777 }), null);
  await output.next(Buffer.from("d"), { type: "dir", mode: 0o750 })!.write();
  await output.next(Buffer.from("above/ü"), FILE)!.write(inPieces("content"));
  await output.end();
  const place = (name: string): string => path.join(output.root, name);
  assert.equal(readFileSync(place("above/ü"), "utf8"), "content");
  assert.deepEqual(
    ["d", "above", "above/ü"].map((name) => statSync(place(name)).mode & 0o777),
    [0o750, 0o700, 0o640],
  );
});

test("FolderOutput replaces no file, and makes no folder in the place of one", async (t) => {
  const output = new FolderOutput(newFolder(t), 0o700);
  await output.next(Buffer.from("f"), FILE)!.write(inPieces("first"));
  for (const name of ["f", "f/below"])
    await assert.rejects(output.next(Buffer.from(name), FILE)!.write(inPieces("second")), {
      code: "damaged",
      details: { path: name },
    });
  assert.equal(readFileSync(path.join(output.root, "f"), "utf8"), "first");
});

test("madeFolder leaves no folder if its content cannot be written", async (t) => {
  const above = newFolder(t);
  const target = path.join(above, "new");
  const options = { mode: 0o750, beforeCommit: () => undefined };
  const write = async (output: FolderOutput): Promise<void> => {
    await output.next(Buffer.from("f"), FILE)!.write(inPieces("content"));
    throw new Error("no more");
  };
  await assert.rejects(madeFolder(target, { ...options, write }), /no more/);
  assert.deepEqual(readdirSync(above), []);
  await madeFolder(target, { ...options, write: async (output) => write(output).catch(() => undefined) });
  assert.deepEqual([readdirSync(above), readdirSync(target), statSync(target).mode & 0o777], [["new"], ["f"], 0o750]);
});
