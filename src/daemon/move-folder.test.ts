import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { momentNow } from "../clones/walk-entries.ts";
import type { FolderMove } from "../formats/records/daemon-state.ts";
import { newFolder } from "../../test/fixtures/work.ts";
import { finishMove } from "./move-folder.ts";

/** A move whose two entries changed places and changed back before it was killed. */
function takenBack(name: string, { isBack }: { isBack: boolean }): { move: FolderMove; copy: string } {
  const parent = newFolder(name);
  const [at, target, aside] = ["folder", "target", "aside"].map((each) => path.join(parent, each)) as [
    string,
    string,
    string,
  ];
  const [original, copy] = isBack ? [target, aside] : [at, target];
  for (const folder of [original, copy]) {
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, "file"), "content");
  }
  fs.symlinkSync(target, isBack ? at : aside);
  const inode = isBack ? "" : fs.lstatSync(at, { bigint: true }).ino.toString();
  return { move: { path: at, target, aside, back: isBack, inode }, copy };
}

for (const isBack of [false, true])
  test(`the end of a killed move ${isBack ? "back" : "away"} removes the copy, unless it has later writes`, async () => {
    const clean = takenBack("clean", { isBack });
    const made = String(await momentNow());
    assert.deepEqual(await finishMove({ ...clean.move, made }), { state: "not moved", kept: null });
    assert.equal(fs.existsSync(clean.copy), false);

    const written = takenBack("written", { isBack });
    const { mtimeNs } = fs.lstatSync(path.join(written.copy, "file"), { bigint: true });
    const end = await finishMove({ ...written.move, made: String(mtimeNs) });
    assert.deepEqual(end, { state: "not moved", kept: Buffer.from(written.copy) });
    assert.equal(fs.readFileSync(path.join(written.copy, "file"), "utf8"), "content");
    assert.equal(fs.realpathSync(written.move.path), isBack ? written.move.target : written.move.path);

    // The clock was set back, so later writes cannot be seen.
    const ahead = takenBack("ahead", { isBack });
    const later = String((BigInt(Date.now()) + 3_600_000n) * 1_000_000n);
    assert.deepEqual((await finishMove({ ...ahead.move, made: later })).kept, Buffer.from(ahead.copy));

    // A process may still write.
    const held = takenBack("held", { isBack });
    const now = String(await momentNow());
    const holder = spawn("sleep", ["100"], { cwd: held.copy });
    try {
      assert.deepEqual((await finishMove({ ...held.move, made: now })).kept, Buffer.from(held.copy));
    } finally {
      holder.kill();
    }

    // A record of an earlier build has no time.
    const old = takenBack("old", { isBack });
    assert.deepEqual(await finishMove(old.move), { state: "not moved", kept: null });
  });
