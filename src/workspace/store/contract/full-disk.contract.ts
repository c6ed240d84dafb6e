import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { oneOf } from "../../../../test/crash/rounds.ts";
import { cairn } from "../../../../test/fixtures/command.ts";
import type { EngineClauses } from "../../../../test/fixtures/engine-clauses.ts";
import { assertFolder, readFolder } from "../../../../test/fixtures/folder-state.ts";
import { assertHeldTidy } from "../../../../test/fixtures/held-place.ts";
import { untilFree } from "../../../../test/fixtures/room.ts";
import { makeFirst, makeSecond } from "../../../../test/fixtures/two-states.ts";
import { cairnLibrary, resticCheck } from "../../../../test/fixtures/work.ts";

/** On a full disk calls fail with `no_space`, leave nothing half done, and work again when there is room. */
export function fullDiskClauses({ clause }: EngineClauses): void {
  clause(
    "save, restore and fork on a full disk leave nothing half done, and work again once space is free",
    async (place) => {
      const { client, folder, volume } = place;
      const first = readFolder(folder);
      const { save_point_id: firstId } = await client.save();
      await client.seal();
      makeSecond(folder);
      fs.appendFileSync(path.join(folder, "big"), Buffer.alloc(2 << 20, "more"));
      const second = readFolder(folder);
      const before = (await client.history(undefined, 0, { all: true })).save_points;
      const filler = path.join(volume.root, "filler");
      fill(filler);
      const fork = path.join(volume.root, "fork");
      for (const args of [["save"], ["save", "--allow", "space"], ["fork", firstId, fork], ["restore", firstId]]) {
        const done = cairn([...args, "-C", folder]);
        if (done.status !== 0) assert.deepEqual([done.status, done.error?.code], [8, "no_space"], done.stdout);
        const now = oneOf(folder, { first, second }, args.join(" "));
        assert.equal(now, args[0] === "restore" && done.status === 0 ? "first" : "second", args.join(" "));
        if (args[0] !== "fork") continue;
        if (done.status === 0) assertFolder(fork, first, "forked");
        else assert.equal(fs.existsSync(fork), false, "no half of a fork");
      }
      // Whether or not these calls failed: points are whole, no leftovers remain, and freeing space helps.
      const meanwhile = cairn(["status", "-C", folder]);
      assert.ok(meanwhile.status === 0 || meanwhile.status === 8, meanwhile.stdout);
      fs.rmSync(filler, { recursive: true });
      if (volume.kind === "btrfs") execFileSync("btrfs", ["filesystem", "sync", volume.root]);
      await untilFree(volume.root, 16 << 20);
      if (fs.existsSync(fork)) await (await (await cairnLibrary()).open(fork)).release({ deletePoints: true });
      fs.rmSync(fork, { recursive: true, force: true });
      const state = readFolder(folder);
      const { save_point_id: id } = await client.save();
      await client.seal();
      const { save_points, damaged } = await client.history(undefined, 0, { all: true });
      assert.deepEqual(damaged, []);
      assert.deepEqual(
        save_points.slice(-before.length).map(({ save_point_id }) => save_point_id),
        before.map(({ save_point_id }) => save_point_id),
      );
      assert.deepEqual((await client.verifyAll()).problems, []);
      const to = path.join(volume.root, "to");
      await client.restore({ target: id, to });
      assertFolder(to, state, "restored");
      fs.rmSync(to, { recursive: true });
      await client.restore({ target: firstId });
      assertFolder(folder, first, "restored in place");
      await client.seal();
      assertHeldTidy(place, "full");
      resticCheck(client, "full");
    },
    { fill: makeFirst, ownVolume: true },
  );
}

/** Fills the disk with ever smaller files. */
function fill(place: string): void {
  fs.mkdirSync(place);
  for (let size = 8 << 20, n = 0; size >= 512; size >>= 2) {
    for (;;) {
      const file = path.join(place, `${n++}`);
      try {
        const fd = fs.openSync(file, "w");
        try {
          const bytes = Buffer.alloc(size, n);
          for (let at = 0; at < size;) at += fs.writeSync(fd, bytes, at);
          fs.fsyncSync(fd);
        } finally {
          fs.closeSync(fd);
        }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
        break;
      }
    }
  }
}
