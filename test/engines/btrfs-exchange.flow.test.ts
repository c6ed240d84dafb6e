import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { describe, test } from "node:test";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { btrfsPlace, subvolumesOf } from "../fixtures/held-place.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { startCairn } from "../fixtures/command.ts";
import { assertNoLeftovers, pauseFile } from "../fixtures/work.ts";

const EXCHANGE = { method: "exchange" } as const;

void describe("a restore by exchange", () => {
  test("restore by exchange gives every state back, with undo and redo, and leaves nothing but points", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const a = await client.save({ message: "first" });
    makeSecond(folder);
    const second = readFolder(folder);
    const b = await client.save({ message: "second" });
    makeUnsaved(folder);
    const unsaved = readFolder(folder);
    const restored = await client.restore({ target: a.save_point_id, ...EXCHANGE });
    assert.deepEqual([restored.method, restored.changes, restored.left_out], ["exchange", null, []]);
    assertFolder(folder, first, "restored");
    assert.equal((await client.status()).head, a.save_point_id);
    assert.equal((await client.undo(EXCHANGE)).method, "exchange");
    assertFolder(folder, unsaved, "undone");
    assert.equal((await client.redo(EXCHANGE)).method, "exchange");
    assertFolder(folder, first, "done again");
    assert.equal((await client.restore({ target: b.save_point_id, ...EXCHANGE })).method, "exchange");
    assertFolder(folder, second, "the other");
    assert.equal((await client.restore({ target: restored.undo_id!, method: "entries" })).method, "entries");
    assertFolder(folder, unsaved, "by entries");
    assert.deepEqual((await client.verifyAll()).problems, []);
    assert.equal((await client.status()).clean, true);
    const held = (await client.history(undefined, 0, { all: true })).save_points.filter(
      ({ effective_engine: engine }) => engine !== "copy",
    ).length;
    await client.close();
    assertNoLeftovers(client, folder, "exchange");
    assert.ok(subvolumesOf(volume.root).length <= held + 1, "no tree without its point");
  });

  test("restore by exchange leaves every point usable if older points are not sealed", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const a = await client.save();
    makeSecond(folder);
    const b = await client.save();
    fs.writeFileSync(path.join(folder, "more"), "more\n");
    assert.equal((await client.restore({ target: b.save_point_id, ...EXCHANGE })).method, "exchange");
    const to = path.join(volume.root, "fork");
    await client.fork(a.save_point_id, to);
    assertFolder(to, first, "a fork of the older point");
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

  test("restore makes no undo point if the folder still equals the tree of the target", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    await client.save();
    fs.writeFileSync(path.join(folder, "more"), "more\n");
    const { undo_id: undoId } = await client.restore({ target: "head" });
    for (let round = 0; round < 2; round++) assert.equal((await client.restoreLatest()).undo_id, null);
    const undone = await client.undo();
    assert.deepEqual([undone.restored_to, undone.undo_id === null], [undoId, false]);
    assert.equal(fs.readFileSync(path.join(folder, "more"), "utf8"), "more\n");
  });

  test("restore goes entry by entry if the point has ignore rules, and keeps ignored files", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    fs.writeFileSync(path.join(folder, ".cairnignore"), "cache/\n");
    fs.mkdirSync(path.join(folder, "cache"));
    fs.writeFileSync(path.join(folder, "cache/kept"), "before\n");
    const a = await client.save();
    fs.writeFileSync(path.join(folder, "cache/kept"), "after\n");
    makeSecond(folder);
    const { method } = await client.restore({ target: a.save_point_id, ...EXCHANGE });
    assert.equal(method, "entries");
    assert.equal(fs.readFileSync(path.join(folder, "cache/kept"), "utf8"), "after\n");
  });

  test("restore by exchange seals no point that ignore rules cannot affect", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const isSealed = async (id: string): Promise<boolean> =>
      (await client.history(undefined, 0, { all: true })).save_points.find((each) => each.save_point_id === id)!
        .payload_root_hash !== null;
    const states = new Map<string, FolderState>();
    const save = async (): Promise<void> => {
      fs.appendFileSync(path.join(folder, "same/kept.txt"), "more\n");
      states.set((await client.save()).save_point_id, readFolder(folder));
    };
    await save();
    makeSecond(folder);
    await save();
    await client.seal();
    await save();
    await save();
    const [first, second, third, fourth] = [...states.keys()];
    assert.deepEqual([await isSealed(second!), await isSealed(third!), await isSealed(fourth!)], [true, false, false]);
    for (const id of [third!, fourth!, first!, third!]) {
      makeUnsaved(folder);
      assert.equal((await client.restore({ target: id, ...EXCHANGE })).method, "exchange");
      assertFolder(folder, states.get(id)!, id);
    }
    assert.deepEqual([await isSealed(third!), await isSealed(fourth!)], [false, false]);
    // Of a folder that is a copy of a point's tree.
    await save();
    const fifth = [...states.keys()].at(-1)!;
    makeUnsaved(folder);
    assert.equal((await client.restore({ target: fifth, ...EXCHANGE })).method, "exchange");
    assertFolder(folder, states.get(fifth)!, "fifth");
    assert.equal(await isSealed(fifth), false);
    assert.equal((await client.status()).clean, true);
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

  test("restore goes entry by entry if an ignore file was added after a point without ignore rules", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const a = await client.save();
    await client.seal();
    const kept = path.join(folder, "goes/deep/cache/kept");
    const assertStays = async (): Promise<void> => {
      fs.mkdirSync(path.dirname(kept), { recursive: true });
      fs.writeFileSync(path.join(folder, "goes/deep/.cairnignore"), "cache/\n");
      fs.writeFileSync(kept, "before\n");
      const { save_point_id: target } = await client.save();
      fs.writeFileSync(kept, "after\n");
      fs.writeFileSync(path.join(folder, "same/kept.txt"), "unsaved\n");
      assert.equal((await client.restore({ target, ...EXCHANGE })).method, "entries");
      assert.equal(fs.readFileSync(kept, "utf8"), "after\n");
      assert.notEqual(fs.readFileSync(path.join(folder, "same/kept.txt"), "utf8"), "unsaved\n");
    };
    await assertStays();
    assert.equal((await client.restore({ target: a.save_point_id, ...EXCHANGE })).method, "exchange");
    assert.equal(fs.existsSync(kept), false, "by the rules of the target nothing of it stays");
    await assertStays();
    const excluding = await client.save({ exclude: ["same"] });
    fs.writeFileSync(path.join(folder, "same/kept.txt"), "excluded\n");
    assert.equal((await client.restore({ target: excluding.save_point_id, ...EXCHANGE })).method, "entries");
    assert.equal(fs.readFileSync(path.join(folder, "same/kept.txt"), "utf8"), "excluded\n");
  });

  test("restore goes entry by entry if only some paths are restored or a subvolume lies inside the folder", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const a = await client.save();
    makeSecond(folder);
    const warnings: string[] = [];
    const onWarning = (message: string): void => void warnings.push(message);
    const part = await client.restore({ target: a.save_point_id, paths: ["same"], onWarning, ...EXCHANGE });
    assert.equal(part.method, "entries");
    assert.match(warnings.join("\n"), /not by an exchange: an exchange cannot restore only some paths/);
    execFileSync("btrfs", ["-q", "subvolume", "create", path.join(folder, "inside")]);
    fs.writeFileSync(path.join(folder, "inside/file"), "not to be lost\n");
    const whole = await client.restore({ target: a.save_point_id, ...EXCHANGE });
    assert.equal(whole.method, "entries");
  });

  test("restore goes entry by entry if the folder is mounted elsewhere or a program listens on a socket in it", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const { save_point_id: target } = await client.save();
    const other = path.join(volume.root, "other");
    fs.mkdirSync(other);
    makeSecond(folder);
    execFileSync("mount", ["--bind", path.join(folder, "same"), other]);
    try {
      assert.equal((await client.restore({ target, ...EXCHANGE })).method, "entries");
      assertFolder(folder, first, "by entries");
      assert.deepEqual(fs.readdirSync(other), fs.readdirSync(path.join(folder, "same")));
    } finally {
      execFileSync("umount", [other]);
    }
    makeSecond(folder);
    const script = `mount --bind '${folder}' '${other}' && echo mounted && cat`;
    const container = spawn("unshare", ["--mount", "--kill-child", "sh", "-c", script], { cwd: "/" });
    try {
      await once(container.stdout, "data");
      assert.equal((await client.restore({ target, ...EXCHANGE })).method, "entries");
      assertFolder(folder, first, "by entries again");
    } finally {
      container.stdin.end();
      await once(container, "close");
    }
    const server = createServer().listen(path.join(folder, "socket"));
    await once(server, "listening");
    assert.equal((await client.restore({ target, ...EXCHANGE })).method, "entries");
    server.close();
    await once(server, "close");
    makeSecond(folder);
    assert.equal((await client.restore({ target, ...EXCHANGE })).method, "exchange");
  });

  test("restore goes entry by entry if a quota group limits the folder, and keeps the limit", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const { save_point_id: target } = await client.save();
    const btrfs = (...args: string[]): string => execFileSync("btrfs", args, { encoding: "utf8", stdio: "pipe" });
    btrfs("quota", "enable", volume.root);
    for (const [set, unset] of [
      [
        ["limit", "100M", folder],
        ["limit", "none", folder],
      ],
      [
        ["limit", "100M", "1/7", volume.root],
        ["destroy", "1/7", volume.root],
      ],
    ] as const) {
      makeSecond(folder);
      assert.equal((await client.restore({ target, ...EXCHANGE })).method, "exchange", "no limit yet");
      if (set.includes("1/7")) btrfs("qgroup", "create", "1/7", volume.root);
      btrfs("qgroup", ...set);
      makeSecond(folder);
      const warnings: string[] = [];
      const onWarning = (message: string): void => void warnings.push(message);
      assert.equal((await client.restore({ target, onWarning, ...EXCHANGE })).method, "entries");
      assert.match(warnings.join("\n"), /a quota group limits the folder's subvolume/);
      assertFolder(folder, first, "by entries");
      assert.match(btrfs("qgroup", "show", "-re", "--raw", volume.root), /104857600/);
      btrfs("qgroup", ...unset);
    }
  });

  test("restore by exchange keeps the last write into the displaced folder in the undo point", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const a = await client.save();
    await client.seal();
    fs.writeFileSync(path.join(folder, "same/kept.txt"), "written before the exchange\n");
    const { undo_id: undoId, method } = await client.restore({ target: a.save_point_id, ...EXCHANGE });
    assert.equal(method, "exchange");
    const parts: Uint8Array[] = [];
    for await (const part of client.read(undoId!, "same/kept.txt")) parts.push(part);
    assert.equal(Buffer.concat(parts).toString(), "written before the exchange\n");
  });

  test("restore keeps files that were written into the folder while it was exchanged and exchanged back", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const a = await client.save();
    makeSecond(folder);
    await client.save();
    const pause = pauseFile();
    const args = [
      "-C",
      folder,
      "--control-dir",
      client.controlDirectory,
      "restore",
      a.save_point_id,
      "--method",
      "exchange",
    ];
    const running = startCairn(args, { failpoint: `exchange.shown@${pause}` });
    await running.paused;
    let holder: ReturnType<typeof spawn> | undefined;
    try {
      // The target's tree has the folder's place. A process still works in the displaced folder.
      const temporary = path.join(client.controlDirectory, "tmp");
      const [staging] = fs.readdirSync(temporary).filter((name) => fs.existsSync(path.join(temporary, name, "same")));
      holder = spawn("sleep", ["100"], { cwd: path.join(temporary, staging!) });
      await once(holder, "spawn");
      fs.writeFileSync(path.join(folder, "late"), "late\n");
    } finally {
      fs.rmSync(pause);
    }
    const { stdout } = await running.ended;
    holder.kill();
    const { warnings } = JSON.parse(stdout) as { warnings: string[] };
    const kept = /these files are in (\S+): copy/.exec(warnings.join("\n"))?.[1];
    assert.ok(kept !== undefined, stdout);
    assert.equal(fs.readFileSync(path.join(kept, "late"), "utf8"), "late\n");
  });
});
