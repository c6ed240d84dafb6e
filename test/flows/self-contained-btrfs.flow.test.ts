import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { isSubvolume } from "../../src/fs/linux/btrfs.ts";
import { cairn, cairnOk, startCairn } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { subvolumesOf } from "../fixtures/held-place.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { cairnLibrary } from "../fixtures/work.ts";
import { killAt, passesOf } from "../crash/rounds.ts";

void describe("a self-contained workspace on btrfs", () => {
  test("init makes a self-contained workspace on btrfs as a subvolume with the engine btrfs-snapshot", async (t) => {
    const volume = loopFileSystem(t, "btrfs");
    if (volume === null) return;
    const library = await cairnLibrary();
    for (const [name, options] of [
      ["chosen", {}],
      ["asked/for", { engineType: "btrfs-snapshot" }],
    ] as const) {
      const place = path.join(volume.root, name);
      const client = await library.init(place, { selfContained: true, ...options });
      const main = path.join(place, "main");
      assert.deepEqual([client.engineType, isSubvolume(main)], ["btrfs-snapshot", true]);
      assert.deepEqual(client.engineReasons.find(({ chosen }) => chosen)?.engine, "btrfs-snapshot");
      makeFirst(main);
      const first = readFolder(main);
      const saved = await client.save();
      assert.deepEqual([saved.effective_engine, saved.degraded], ["btrfs-snapshot", []]);
      makeSecond(main);
      const { method } = await client.restore({ target: saved.save_point_id, method: "exchange" });
      assert.equal(method, "exchange");
      assertFolder(main, first, "restored");
      assert.deepEqual(fs.readdirSync(place).toSorted(), [".cairn", "main"]);
    }
    const copied = await library.init(path.join(volume.root, "copied"), { selfContained: true, engineType: "copy" });
    assert.deepEqual([copied.engineType, isSubvolume(copied.workspace.path)], ["copy", false]);
  });

  test("init refuses btrfs-snapshot outside btrfs, and chooses copy if no engine is given", async (t) => {
    const volume = loopFileSystem(t, "ext4");
    if (volume === null) return;
    const place = path.join(volume.root, "place");
    const refused = cairn(["init", "--self-contained", place, "--engine", "btrfs-snapshot"]);
    assert.equal(refused.error?.code, "unsupported");
    assert.match(refused.error.message, /not on btrfs/);
    assert.equal(fs.existsSync(place), false);
    cairnOk(["init", "--self-contained", place]);
    assert.equal((await (await cairnLibrary()).open(place)).engineType, "copy");
  });

  test("simultaneous or killed inits of a self-contained workspace leave one whole workspace", async (t) => {
    const volume = loopFileSystem(t, "btrfs");
    if (volume === null) return;
    const library = await cairnLibrary();
    const place = path.join(volume.root, "raced");
    const racing = Array.from({ length: 4 }, () => startCairn(["init", "--self-contained", place]));
    const outcomes = await Promise.all(racing.map(({ ended }) => ended));
    for (const { status, error } of outcomes)
      assert.ok(status === 0 || error?.code === "already_exists", error?.message);
    assert.equal(outcomes.filter(({ status }) => status === 0).length, 1);
    assert.ok(isSubvolume(path.join(place, "main")));
    const names = passesOf(["init", "--self-contained", path.join(volume.root, "listed")]);
    for (let pass = 1; pass <= names.length; pass += 2) {
      const killed = path.join(volume.root, `killed-${pass}`);
      const where = `killed at ${killAt(["init", "--self-contained", killed], pass)}`;
      const client = await library.openOrInit(killed, { selfContained: true });
      assert.ok(isSubvolume(path.join(killed, "main")), where);
      assert.equal((await client.save()).effective_engine, "btrfs-snapshot", where);
      const held: string[] = subvolumesOf(volume.root).filter((each: string) => each.startsWith(`killed-${pass}/`));
      assert.equal(held.filter((each) => !each.endsWith("/tree") && !each.includes(".cairn-tmp-")).length, 1, where);
    }
  });
});
