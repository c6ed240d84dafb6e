import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { MAX_IGNORE_FILE_BYTES } from "../../src/fs/ignore.ts";
import {
  decodeDescriptorFile,
  encodeDescriptorFile,
  MAX_DESCRIPTOR_BYTES,
} from "../../src/workspace/points/point-files.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { assertHeldTidy, btrfsPlace, treeOf } from "../fixtures/held-place.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";

/** Ignore files that nobody can read as rules, found when a tree that is held already is sealed. */

const TOO_LONG = `${"# nothing\n".repeat(MAX_IGNORE_FILE_BYTES / 10)}hidden\n`;

void describe("a held tree", () => {
  test("a seal keeps files that only a too long ignore file hides, and does not block other points", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const a = await client.save();
    makeSecond(folder);
    fs.writeFileSync(path.join(folder, ".cairnignore"), "left\n");
    fs.writeFileSync(path.join(folder, "left"), "left out\n");
    fs.mkdirSync(path.join(folder, "long"));
    fs.writeFileSync(path.join(folder, "long/.cairnignore"), TOO_LONG);
    fs.writeFileSync(path.join(folder, "long/hidden"), "in the point\n");
    const second = readFolder(folder);
    const odd = await client.save();
    const warnings: string[] = [];
    await client.seal({ onWarning: (message) => void warnings.push(message) });
    const restored = await client.restore({ target: a.save_point_id });
    assert.equal(
      warnings.filter((each) => each.includes("long/.cairnignore: ignore files of more than 1048576 bytes")).length,
      1,
    );
    assertFolder(folder, first, "the point before it");
    const { save_points: points } = await client.history(undefined, 0, { all: true });
    const { labels } = points.find((each) => each.save_point_id === odd.save_point_id)!;
    assert.deepEqual(
      labels.map(({ path: where, label }) => [where, label]),
      [["long/.cairnignore", "rules-not-applied"]],
    );
    const to = path.join(volume.root, "to");
    await client.restore({ target: odd.save_point_id, to });
    assert.equal(fs.existsSync(path.join(to, "left")), false, "other rules hold");
    fs.writeFileSync(path.join(to, "left"), "left out\n");
    assert.equal(fs.readFileSync(path.join(to, "long/hidden"), "utf8"), "in the point\n");
    fs.rmSync(to, { recursive: true });
    await client.restore({ target: restored.undo_id!, method: "entries" });
    assertFolder(folder, second, "undone");
    // What lies in the folder can still be made smaller: there it is refused.
    await assert.rejects(client.status(), { code: "refused" });
    fs.writeFileSync(path.join(folder, "long/.cairnignore"), "hidden\n");
    await client.save();
    await client.runCleanup({ only: [odd.save_point_id] });
    assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
    await client.close();
    assertHeldTidy(place, "after all");
  });

  test("a seal without rules keeps all files if the rules are too long for its record, and can be read", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    // Each byte of it is six in a record.
    const rules = `${"\u0001".repeat(MAX_IGNORE_FILE_BYTES - 8)}\nhidden\n`;
    for (let i = 0; i < 11; i++) {
      fs.mkdirSync(path.join(folder, `d${i}`));
      fs.writeFileSync(path.join(folder, `d${i}/.cairnignore`), rules);
      fs.writeFileSync(path.join(folder, `d${i}/hidden`), "in the point\n");
    }
    const whole = readFolder(folder);
    const { save_point_id: id } = await client.save({ exclude: ["excluded"] });
    const warnings: string[] = [];
    assert.equal((await client.seal({ onWarning: (message) => void warnings.push(message) })).sealed, 1);
    assert.match(
      warnings.join("\n"),
      /^the ignore files \(\.cairnignore\) are too long to be recorded, so the point .* also has the files/,
    );
    await client.save();
    const to = path.join(volume.root, "to");
    await client.restore({ target: id, to });
    assertFolder(to, whole, "elsewhere");
    fs.rmSync(to, { recursive: true });
    fs.writeFileSync(path.join(folder, "excluded"), "");
    fs.rmSync(path.join(folder, "d7/hidden"));
    assert.equal((await client.restore({ target: id, method: "exchange" })).method, "entries");
    assert.equal(fs.existsSync(path.join(folder, "excluded")), true);
    assert.equal(fs.readFileSync(path.join(folder, "d7/hidden"), "utf8"), "in the point\n");
    assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
    await client.close();
    assertHeldTidy(place, "after all");
  });

  test("a seal of several points skips a point whose record would be too long", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    // Of what was left out the seal has samples.
    for (let i = 0; i < 20; i++) fs.writeFileSync(path.join(folder, `${"n".repeat(230)}${i}.tmp`), "");
    await client.save();
    fs.writeFileSync(path.join(folder, "one more"), "");
    await client.save({ exclude: ["*.tmp"] });
    const file = path.join(path.dirname(treeOf(client, 2)), "descriptor.json");
    const descriptor = decodeDescriptorFile(fs.readFileSync(file));
    const labelled = (reason: string): Uint8Array =>
      encodeDescriptorFile({ ...descriptor, labels: [{ path: "same", label: "torn-possible", reason }] });
    const room = MAX_DESCRIPTOR_BYTES - labelled("").length;
    fs.writeFileSync(file, labelled("r".repeat(room)));
    makeSecond(folder);
    await client.save();
    await assert.rejects(client.seal(), { message: /^2 sealed; the save point's record would need/ });
    assert.deepEqual(
      [1, 2, 3].map((sequence) => fs.existsSync(path.join(path.dirname(treeOf(client, sequence)), "seal.json"))),
      [true, false, true],
    );
  });

  test("a save that leaves large files out needs no store and is not refused for a too long ignore file", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    await client.save();
    fs.writeFileSync(path.join(folder, ".cairnignore"), TOO_LONG);
    fs.writeFileSync(path.join(folder, "large"), "1".repeat(2_000_000));
    const config = path.join(client.controlDirectory, "store/config");
    fs.renameSync(config, `${config}-away`);
    const saved = await client.save({ excludeLargerThan: 1_999_999 });
    assert.equal(saved.effective_engine, "btrfs-snapshot");
    assert.deepEqual(
      saved.left_out.map(({ path: where, reason }) => [where, reason]),
      [["large", "excluded"]],
    );
    fs.renameSync(`${config}-away`, config);
  });

  test("a save that cannot hold the tree after it looked for large files warns once of rules that are not applied", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    fs.symlinkSync("nowhere", path.join(folder, ".cairnignore"));
    execFileSync("btrfs", ["-q", "subvolume", "create", path.join(folder, "nested")]);
    const warnings: string[] = [];
    const onWarning = (message: string): unknown => warnings.push(message);
    const saved = await client.save({ excludeLargerThan: 1_999_999, onWarning });
    assert.equal(saved.effective_engine, "copy");
    assert.equal(warnings.filter((each) => each.includes("are not applied")).length, 1, warnings.join("\n"));
  });

  test("restore goes entry by entry if an ignore file that was too long is short in the target", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const rules = path.join(folder, "same/.cairnignore");
    // So many that the name is not written together with the file.
    fs.mkdirSync(path.join(folder, "many"));
    for (let i = 0; i < 1000; i++) fs.writeFileSync(path.join(folder, `many/${i}`), "");
    fs.writeFileSync(rules, TOO_LONG);
    await client.save();
    await client.seal();
    fs.truncateSync(rules, 0);
    fs.writeFileSync(rules, "hidden\n");
    const next = await client.save();
    fs.writeFileSync(path.join(folder, "same/hidden"), "of no point\n");
    assert.equal((await client.restore({ target: next.save_point_id, method: "exchange" })).method, "entries");
    assert.equal(fs.existsSync(path.join(folder, "same/hidden")), true);
  });
});
