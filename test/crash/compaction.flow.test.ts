import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { EmbeddedStore } from "../../src/workspace/store/embedded-store.ts";
import { compact } from "../../src/repository/care/compact.ts";
import { killAt, passesOf, random, saveAndCheck, someOf } from "./rounds.ts";
import { cairn } from "../fixtures/command.ts";
import { assertNoLeftovers, clientOf, newFolder, resticCheck } from "../fixtures/work.ts";

/** Saves that merge small packs and indexes are the same command; every so many of them does it. */
test("a save, if killed while it merges small packs, leaves every point whole, and packs can be merged later", async () => {
  const folder = newFolder("compaction");
  const client = await clientOf(folder);
  const file = path.join(folder, "f");
  const edit = (): void => fs.writeFileSync(file, `${random()}\n`.repeat(20));
  const packs = (): number =>
    fs
      .readdirSync(path.join(client.controlDirectory, "store/data"), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile()).length;
  let listed: string[] = [];
  for (let i = 0; i < 80 && !listed.some((name) => name.startsWith("compact.")); i++) {
    edit();
    if (i < 20) await client.save();
    else listed = passesOf(["save", folder]);
  }
  const merging = listed.flatMap((name, i) => (name.startsWith("compact.") ? [{ name, pass: i + 1 }] : []));
  assert.ok(merging.length > 3, `saves merge: ${listed.join(" ")}`);
  const wanted = new Map<string, number>();
  for (const { name } of merging) wanted.set(name, (wanted.get(name) ?? 0) + 1);
  const seen = new Set<string>();
  const kills = [...wanted].flatMap(([name, times]) =>
    [...new Set([1, Math.ceil(times / 2)])].map((nth) => ({ name, nth })),
  );
  const chosen = someOf(kills, 3);
  for (const { name, nth } of chosen) {
    let killed = false;
    for (let i = 0; i < 40 && !killed; i++) {
      edit();
      killed = cairn(["save", folder], { failpoint: `${name}:${nth}` }).killed;
    }
    if (!killed) continue;
    seen.add(name);
    if (random() < 0.4) killAt(["save", folder], 1 + Math.floor(random() * 20));
    edit();
    await saveAndCheck(client, folder, `${name}:${nth}`);
    assert.deepEqual((await client.verifyAll()).problems, [], `${name}:${nth}`);
    assertNoLeftovers(client, folder, `${name}:${nth}`);
  }
  const unseen = new Set(chosen.map(({ name }) => name).filter((name) => !seen.has(name)));
  assert.ok(unseen.size <= 1, `not killed at ${[...unseen].join(", ")}`);
  // A merge does what fits into its time, which on a busy machine is little: with time, what the kills left is no hindrance.
  const store = await EmbeddedStore.open(client.controlDirectory);
  const before = packs();
  while ((await compact(store.repository, store.index, { budgetMs: 60_000, trigger: 2 })).mergedIndexes > 0);
  store.close();
  assert.ok(packs() < 50, `${packs()} of ${before} packs are left`);
  resticCheck(client, "merged");
});
