import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { type HoldingEngine, makeHoldable } from "../fixtures/held-place.ts";
import { type LoopFileSystem, loopFileSystem } from "../fixtures/loop-file-system.ts";

/** Held trees in which the disk has changed a byte. */

const LETTERS = "as it was saved; ".repeat(20_000);

/** Changes a byte in each copy of the text on the disk; what the store has of it is compressed. */
function rot(disk: LoopFileSystem): void {
  disk.unmounted(() => {
    const bytes = fs.readFileSync(disk.image);
    const part = Buffer.from(LETTERS.slice(0, 4000));
    let found = 0;
    for (let at = bytes.indexOf(part); at >= 0; at = bytes.indexOf(part, at + LETTERS.length)) {
      bytes[at + 50] = bytes[at + 50]! ^ 1;
      found++;
    }
    assert.ok(found > 0, "the text is on the disk");
    fs.writeFileSync(disk.image, bytes);
  });
}

for (const [engine, kind] of [
  ["reflink-copy", "xfs"],
  ["btrfs-snapshot", "btrfs"],
] as [HoldingEngine, "xfs" | "btrfs"][])
  test(`verify --deep finds a changed byte in a tree of ${engine}, and later restores read the store instead`, (t) => {
    const disk = loopFileSystem(t, kind);
    if (disk === null) return;
    const folder = path.join(disk.root, "ws");
    makeHoldable(folder, engine);
    const file = path.join(folder, "file");
    fs.writeFileSync(file, LETTERS);
    cairnOk(["init", "--engine", engine, folder]);
    const { save_point_id: id } = cairnOk(["save", folder]).data["save_point"] as { save_point_id: string };
    // On btrfs it shares the tree.
    const { save_point_id: same } = cairnOk(["save", folder]).data["save_point"] as { save_point_id: string };
    const isShared = kind === "btrfs";
    cairnOk(["-C", folder, "seal"]);
    fs.rmSync(file);
    fs.writeFileSync(file, "new");
    cairnOk(["save", folder]);
    assert.deepEqual(cairnOk(["-C", folder, "verify", "--all", "--deep"]).data["problems"], []);
    rot(disk);
    const done = cairn(["-C", folder, "verify", id, "--deep"]);
    assert.equal(done.status, 6, done.stderr);
    const problems = done.data["problems"] as { point: string; path: string; kind: string }[];
    assert.deepEqual(
      problems.map((each) => [each.point, each.path, each.kind]),
      [[id, "file", "held_tree"]],
    );
    // What one that reads no trees finds does not vouch for them.
    cairnOk(["-C", folder, "verify", "--all"]);
    const elsewhere = path.join(SCRATCH, `rotten-${kind}`);
    cairnOk(["-C", folder, "restore", id, "--to", elsewhere]);
    assert.equal(fs.readFileSync(path.join(elsewhere, "file"), "utf8"), LETTERS);
    if (!isShared) assert.equal(cairn(["-C", folder, "verify", same, "--deep"]).status, 6);
    fs.rmSync(elsewhere, { recursive: true });
    cairnOk(["-C", folder, "restore", same, "--to", elsewhere]);
    assert.equal(fs.readFileSync(path.join(elsewhere, "file"), "utf8"), LETTERS, "of the same tree");
    cairnOk(["-C", folder, "restore", id]);
    assert.equal(fs.readFileSync(file, "utf8"), LETTERS);
    assert.equal(cairn(["-C", folder, "verify", id, "--deep"]).status, 6, "the tree is still there");
    cairnOk(["-C", folder, "doctor"]);
    cairnOk(["-C", folder, "cleanup", "policy", "--keep-trees", "0"]);
    for (const text of ["1", "2", "3"]) {
      fs.writeFileSync(file, text);
      cairnOk(["save", folder]);
      cairnOk(["-C", folder, "seal"]);
    }
    assert.deepEqual(cairnOk(["-C", folder, "verify", "--all", "--deep"]).data["problems"], [], "the tree has gone");
  });
