import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { Client } from "../../src/contract/index.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { btrfsPlace } from "../fixtures/held-place.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { clientOf, leftoversOf, newFolder, resticCheck } from "../fixtures/work.ts";
import { chosenPasses, killAt, oneOf, passesOf, saveAndCheck, someOf } from "./rounds.ts";

interface Place {
  client: Client;
  folder: string;
}

/** A fork with changes that no point has. */
async function changedFork({ client }: Place, to: string): Promise<FolderState> {
  await client.fork("head", to);
  makeSecond(to);
  fs.writeFileSync(path.join(to, "only-here"), "unsaved\n");
  return readFolder(to, { withoutRootTime: true });
}

const removalOf = (folder: string, to: string): string[] => ["-C", folder, "fork", "--remove", to];

function asides(parent: string): string[] {
  return fs.readdirSync(parent).filter((name) => /\.cairn-(removing|partial)-/.test(name));
}

/** After a kill and one more command the fork is whole in its place, or gone with its state in a point. */
async function checkEnd({ client, folder }: Place, fork: { to: string; state: FolderState }, where: string) {
  const { to, state } = fork;
  if (client.engineType === "copy") await saveAndCheck(client, folder, where);
  else await client.save();
  assert.equal((await client.status()).clean, true, where);
  assert.deepEqual(asides(path.dirname(to)), [], where);
  assert.deepEqual(fs.readdirSync(path.join(client.controlDirectory, "partial")), [], where);
  const isThere = fs.existsSync(to);
  if (isThere) {
    oneOf(to, { state }, where, { withoutRootTime: true });
    cairnOk(removalOf(folder, to));
  }
  const { save_points: points } = await client.history(undefined, 0, { all: true });
  const name = path.basename(to);
  const last = points.find(({ cause }) => cause.kind === "adopt" && cause["from_workspace"] === name);
  assert.ok(last !== undefined, `${where}: the original has a point of ${name}`);
  await client.restore({ target: last.save_point_id, to });
  oneOf(to, { state }, `${where}: the point`, { withoutRootTime: true });
  fs.rmSync(to, { recursive: true });
  return isThere;
}

async function killRemovals(place: Place, name: string): Promise<void> {
  const { client, folder } = place;
  await client.save();
  const parent = path.dirname(folder);
  const first = path.join(parent, `${name}-listed`);
  await changedFork(place, first);
  const names = passesOf(removalOf(folder, first));
  for (const step of ["fork.removal-recorded", "fork.aside", "fork.searched", "fork.releasing", "fork.released"])
    assert.ok(names.includes(step), `${step} is passed: ${names.join(" ")}`);
  const own = names.flatMap((each, i) => (/^(fork|release)\./.test(each) ? [i + 1] : []));
  const outcomes = new Set<boolean>();
  for (const pass of new Set([...chosenPasses(names), ...someOf(own)].toSorted((a, b) => a - b))) {
    const to = path.join(parent, `${name}-${pass}`);
    const state = await changedFork(place, to);
    const at = killAt(removalOf(folder, to), pass);
    const isThere = await checkEnd(place, { to, state }, `fork --remove killed at ${pass} (${at})`);
    outcomes.add(isThere);
    const left = leftoversOf(client.controlDirectory).filter((file) => /(^|\/)tmp\/|\/journal\/|\/intent$/.test(file));
    assert.deepEqual(left, [], `killed at ${pass} (${at})`);
  }
  assert.equal(outcomes.size, 2, "both outcomes were seen");
  resticCheck(client, name);
}

async function plainPlace(): Promise<Place> {
  const folder = newFolder("original");
  makeFirst(folder);
  return { client: await clientOf(folder), folder };
}

test("btrfs: fork --remove, if killed at any step, leaves the whole fork or its state in a point", async (t) => {
  const place = await btrfsPlace(t, makeFirst);
  if (place !== null) await killRemovals(place, "btrfs");
});

test("a removal killed at any step is also ended by a call on the fork, and by the same call again", async () => {
  const place = await plainPlace();
  const { client, folder } = place;
  await client.save();
  for (const [failpoint, words] of [
    ["fork.aside", "status"],
    ["fork.searched", "save"],
    ["fork.aside", "restore latest"],
    ["fork.aside", "again"],
    ["fork.released", "again"],
    ["release.workspace-renamed", "again"],
  ] as const) {
    const to = `${folder}-${failpoint.replace(".", "-")}-${words.replace(" ", "-")}`;
    const state = await changedFork(place, to);
    assert.ok(cairn(removalOf(folder, to), { failpoint }).killed, failpoint);
    assert.equal(fs.existsSync(to), false, failpoint);
    const where = `${failpoint}, then ${words}`;
    if (words === "again") {
      const { data } = cairnOk(removalOf(folder, to));
      await client.restore({ target: data["save_point_id"] as string, to });
    } else cairnOk(["-C", to, ...words.split(" ")]);
    oneOf(to, words === "restore latest" ? { state, saved: state } : { state }, where, { withoutRootTime: true });
    assert.deepEqual(asides(path.dirname(to)), [], where);
  }
});

test("a killed removal does not replace a folder that was put at the fork's path since", async () => {
  const place = await plainPlace();
  const { client, folder } = place;
  await client.save();
  const to = `${folder}-taken`;
  const state = await changedFork(place, to);
  assert.ok(cairn(removalOf(folder, to), { failpoint: "fork.searched" }).killed);
  fs.mkdirSync(to);
  fs.writeFileSync(path.join(to, "mine"), "mine");
  const { warnings } = cairnOk(["-C", folder, "save"]);
  assert.match(warnings.join(" "), /the removal of the fork .* was interrupted: the fork lies in .*\.cairn-removing-/);
  assert.equal(fs.readFileSync(path.join(to, "mine"), "utf8"), "mine");
  fs.renameSync(to, `${to}-away`);
  cairnOk(["-C", folder, "save"]);
  oneOf(to, { state }, "given back", { withoutRootTime: true });
});

test("a removal that was killed waits while its disk is not mounted", async (t) => {
  for (const kind of ["ext4", "btrfs"] as const) {
    const disk = loopFileSystem(t, kind);
    if (disk === null) continue;
    for (const failpoint of ["fork.removal-recorded", "fork.aside", "fork.released"]) {
      const folder = newFolder("unmounted");
      makeFirst(folder);
      const client = await clientOf(folder);
      await client.save();
      const to = path.join(disk.root, `fork-${failpoint.replace(".", "-")}`);
      const state = await changedFork({ client, folder }, to);
      assert.ok(cairn(removalOf(folder, to), { failpoint }).killed, failpoint);
      disk.unmounted(() => {
        const { warnings } = cairnOk(["-C", folder, "save"]);
        assert.match(warnings.join(" "), /the removal of the fork .* was interrupted: its disk is not mounted at/);
      });
      await checkEnd({ client, folder }, { to, state }, `${kind}: not mounted at ${failpoint}`);
    }
    disk.close();
  }
});

test("a removal ends after a power cut in the middle, and nothing comes back after one at its end", async (t) => {
  for (const kind of ["ext4", "xfs", "btrfs"] as const) {
    const disk = loopFileSystem(t, kind);
    if (disk === null) continue;
    for (const failpoint of ["fork.aside", "fork.searched", "release.workspace-renamed", "fork.released", null]) {
      const folder = newFolder("powered");
      makeFirst(folder);
      const client = await clientOf(folder);
      await client.save();
      const to = path.join(disk.root, `fork-${(failpoint ?? "end").replace(".", "-")}`);
      const state = await changedFork({ client, folder }, to);
      // Only flushed writes are promised.
      execFileSync("sync", ["-f", disk.root]);
      const ended = cairn(removalOf(folder, to), failpoint === null ? { own: true } : { failpoint });
      assert.ok(failpoint === null ? ended.status === 0 : ended.killed, `${kind} ${failpoint}`);
      disk.cutPower();
      if (failpoint === null) {
        assert.equal(fs.existsSync(to), false, kind);
        assert.deepEqual(asides(disk.root), [], kind);
        fs.mkdirSync(path.dirname(to), { recursive: true });
      }
      await checkEnd({ client, folder }, { to, state }, `${kind}: power cut at ${failpoint}`);
    }
    disk.close();
  }
});
