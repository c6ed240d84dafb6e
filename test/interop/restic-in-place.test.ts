import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { noRestic, resticRepository, restic, runOn, type TestRepository } from "../fixtures/repository.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { assertNoLeftovers, clientOf, newFolder, resticCheck } from "../fixtures/work.ts";
import { chosenPasses, killAt, oneOf, passesOf } from "../crash/rounds.ts";

const COMPARE = { withoutRootTime: true };

interface Scene {
  folder: string;
  place: TestRepository;
  /** as restic saved it */
  first: FolderState;
  before: FolderState;
}

/** A folder that restic has in its first state, and that went on. */
function scene(version: 1 | 2 = 2): Scene {
  const folder = newFolder("restic-in-place");
  makeFirst(folder);
  // Cut by restic's own rule, and content that neither can have by heart.
  fs.writeFileSync(path.join(folder, "chunked"), randomBytes(3_000_000));
  // A pipe that restic 0.14 makes is one; its name and time come back.
  const place = resticRepository(version);
  restic(place, "backup", folder);
  const first = readFolder(folder, COMPARE);
  makeSecond(folder);
  makeUnsaved(folder);
  return { folder, place, first, before: readFolder(folder, COMPARE) };
}

function inPlace({ folder, place }: Scene, ...more: string[]): string[] {
  return ["-C", folder, "backup", "restore", "latest", ...more, "--in-place", ...place.options];
}

/** What the snapshot has, and beside it what only the folder had; no file takes the place of a folder with something in it. */
function withKept({ first, before }: Scene): FolderState {
  const wanted = new Map(first);
  for (const [name, facts] of before) if (!wanted.has(name) || name === "was-file") wanted.set(name, facts);
  return wanted;
}

/** Paths and reasons of what a restore left as it was. */
function leftBy(args: readonly string[]): unknown[] {
  const { status, data, stdout } = cairn(args);
  assert.equal(status, 10, stdout);
  return (data["left_out"] as { path: string; reason: string }[]).map((each) => [each.path, each.reason]);
}

/** Damages a blob where the index of a restic repository says that it lies. */
function flipBlob(place: TestRepository, blob: string): void {
  interface Index {
    packs: { id: string; blobs: { id: string; offset: number }[] }[];
  }
  for (const name of fs.readdirSync(path.join(place.location, "index"))) {
    const { packs } = JSON.parse(restic(place, "cat", "index", name)) as Index;
    for (const { id: pack, blobs } of packs) {
      const found = blobs.find(({ id }) => id === blob);
      if (found === undefined) continue;
      const file = path.join(place.location, "data", pack.slice(0, 2), pack);
      const bytes = fs.readFileSync(file);
      bytes[found.offset + 20]! ^= 1;
      fs.chmodSync(file, 0o600);
      fs.writeFileSync(file, bytes);
    }
  }
}

const IN_THE_WAY = ["was-file", "keep_present"];

describe("a snapshot that restic made", { skip: noRestic }, () => {
  for (const version of [1, 2] as const)
    test(`comes back over the folder, keeps what it does not have, and is taken back (version ${version})`, async () => {
      const at = scene(version);
      const { folder } = at;
      cairnOk(["save", folder]);
      const planned = cairn(inPlace(at, "--dry-run")).data as { changes: Record<string, number> };
      assertFolder(folder, at.before, "only planned", COMPARE);
      const { data } = cairn(inPlace(at));
      const { changes, left_out: left } = data as { changes: Record<string, number>; left_out: { path: string }[] };
      assert.deepEqual([data["read_again"], data["read_from"], data["untold_files"]], [true, "disk", 0]);
      assert.deepEqual(
        left.map(({ path: name }) => name),
        ["was-file"],
      );
      assert.deepEqual(planned.changes, changes);
      assertFolder(folder, withKept(at), "restored", COMPARE);
      const client = await clientOf(folder);
      assert.deepEqual((await client.verifyAll()).problems, []);
      assertNoLeftovers(client, folder, "restored");
      await client.undo();
      assertFolder(folder, at.before, "undone", COMPARE);
      // Once more, with what is there already.
      assert.deepEqual(leftBy(inPlace(at)), [IN_THE_WAY]);
      assertFolder(folder, withKept(at), "restored again", COMPARE);
      resticCheck(client, "restored");
    });

  test("comes back in parts, and nothing else is touched", async () => {
    const at = scene();
    const { folder, first, before } = at;
    cairnOk(inPlace(at, "moded", "chunked"));
    const now = readFolder(folder, COMPARE);
    for (const [name, facts] of now)
      assert.equal(facts, (/^(moded|chunked)(\/|$)/.test(name) ? first : before).get(name), name);
    const { head } = await (await clientOf(folder)).history();
    assert.equal(head, null);
  });

  test("that is damaged comes back without what is lost, which stays as it is and is named", () => {
    const at = scene();
    const { folder, place } = at;
    const packs = fs
      .readdirSync(path.join(place.location, "data"), { recursive: true, encoding: "utf8" })
      .map((name) => path.join(place.location, "data", name))
      .filter((name) => fs.statSync(name).isFile())
      .toSorted((a, b) => fs.statSync(b).size - fs.statSync(a).size);
    const bytes = fs.readFileSync(packs[0]!);
    bytes[bytes.length >> 1]! ^= 1;
    fs.chmodSync(packs[0]!, 0o600);
    fs.writeFileSync(packs[0]!, bytes);
    fs.writeFileSync(path.join(folder, "chunked"), "the present one");
    assert.deepEqual(leftBy(inPlace(at)), [["chunked", "damaged"], IN_THE_WAY]);
    assert.equal(fs.readFileSync(path.join(folder, "chunked"), "utf8"), "the present one");
    assert.equal(fs.readFileSync(path.join(folder, "same/updated.txt"), "utf8"), "first\n");
  });

  test("of whose folder nothing can be read is damaged, and nothing is changed", async () => {
    const at = scene();
    const { folder, place, before } = at;
    cairnOk(["save", folder]);
    const [{ tree: root }] = JSON.parse(restic(place, "snapshots", "--json")) as [{ tree: string }];
    interface Listed {
      nodes: { name: string; subtree: string }[];
    }
    const tree = folder
      .split("/")
      .filter((name) => name !== "")
      .reduce((id, name) => {
        const { nodes } = JSON.parse(restic(place, "cat", "blob", id)) as Listed;
        return nodes.find((node) => node.name === name)!.subtree;
      }, root);
    flipBlob(place, tree);
    const refused = cairn(inPlace(at));
    assert.match(`${refused.status} ${refused.stdout}`, /^6 .*nothing of snapshot/);
    assertFolder(folder, before, "refused", COMPARE);
    const client = await clientOf(folder);
    assert.equal((await client.history()).save_points.length, 1);
    assertNoLeftovers(client, folder, "refused");
  });

  test("of several folders, or of another path, is refused with a way out or goes where it is asked to", () => {
    const at = scene();
    const other = newFolder("other");
    fs.writeFileSync(path.join(other, "own"), "stays\n");
    cairnOk(["save", other]);
    assert.equal(cairn(inPlace({ ...at, folder: other })).status, 3);
    cairnOk(["-C", other, "backup", "restore", "latest", "--path", at.folder, "--in-place", ...at.place.options]);
    assert.equal(fs.readFileSync(path.join(other, "same/updated.txt"), "utf8"), "first\n");
    assert.equal(fs.readFileSync(path.join(other, "own"), "utf8"), "stays\n");
    const text = restic(at.place, "backup", "--json", at.folder, other);
    const id = /"snapshot_id":"([0-9a-f]+)"/.exec(text)![1]!;
    const refused = cairn(["-C", other, "backup", "restore", id, "--in-place", ...at.place.options]);
    assert.match(`${refused.status} ${refused.stdout}`, /^7 .*is not of one folder.*--to/);
  });

  test("made of . is restored, and one of a relative name is refused with the reason", () => {
    const at = scene();
    const { folder, place } = at;
    const from = (cwd: string, name: string): string => {
      const text = runOn(place, "restic", ["backup", "--json", name], { cwd }).toString("utf8");
      return /"snapshot_id":"([0-9a-f]+)"/.exec(text)![1]!;
    };
    fs.chmodSync(folder, 0o751);
    const rights = fs.statSync(folder).mode;
    const other = newFolder("from-within");
    makeFirst(other);
    const within = from(other, ".");
    cairnOk(["save", folder]);
    const run = (id: string, ...more: string[]): ReturnType<typeof cairn> =>
      cairn(["-C", folder, "backup", "restore", id, ...more, "--in-place", ...place.options]);
    cairnOk(["-C", folder, "backup", "restore", within, "--in-place", ...place.options, "same"]);
    const planned = run(within, "--dry-run").data as { changes: Record<string, number> };
    assert.ok(planned.changes["updated"]! > 0);
    assert.deepEqual(
      (run(within).data["left_out"] as { path: string }[]).map((each) => each.path),
      ["was-file"],
    );
    assert.equal(fs.readFileSync(path.join(folder, "same/updated.txt"), "utf8"), "first\n");
    assert.equal(fs.statSync(folder).mode, rights);
    for (const name of [
      "latest",
      from(path.dirname(other), path.basename(other)),
      from(other, "same/../../" + path.basename(other)),
    ]) {
      const refused = run(name, "--path", other);
      assert.match(`${refused.status} ${refused.stdout}`, /^7 .*whether from-within\S* is \/.* itself or lies in it/);
    }
  });

  test("and is restored by a process that is killed at any step leaves the old state or the new one", async () => {
    const at = scene();
    const { folder } = at;
    cairnOk(["save", folder]);
    const client = await clientOf(folder);
    const names = passesOf(inPlace(at));
    await client.undo();
    const outcomes = new Set<string>();
    for (const pass of chosenPasses(names, 5)) {
      const where = `killed at pass ${pass}, ${killAt(inPlace(at), pass)}`;
      await client.save({ skipUnchanged: true });
      const outcome = oneOf(folder, { restored: withKept(at), before: at.before }, where, COMPARE);
      outcomes.add(outcome);
      assertNoLeftovers(client, folder, where);
      if (outcome === "restored") await client.undo();
      assertFolder(folder, at.before, where, COMPARE);
    }
    assert.equal(outcomes.size, 2, "both outcomes were seen");
    assert.deepEqual((await client.verifyAll()).problems, []);
  });
});
