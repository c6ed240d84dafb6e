import assert from "node:assert/strict";
import type { Client, EngineType } from "../../src/contract/index.ts";
import { loadPackHeader } from "../../src/repository/packs/pack-read.ts";
import type { RemovePathsResult } from "../../src/verbs/schemas.ts";
import { EmbeddedStore } from "../../src/workspace/store/embedded-store.ts";
import { cairn, cairnOk, startCairn } from "../fixtures/command.ts";
import { type HeldKind, heldPlace, type HoldingEngine } from "../fixtures/held-place.ts";
import { assertNoLeftovers, cairnLibrary, newFolder, pauseFile, resticCheck } from "../fixtures/work.ts";
import { chosenPasses, killAt, passesOf, random } from "./rounds.ts";
import { createHash, randomBytes } from "node:crypto";
import { test, type TestContext } from "node:test";
import fs from "node:fs";
import path from "node:path";

/** Files below a folder with these bytes. No link is followed. */
function filesWith(folder: string, bytes: Buffer): string[] {
  return fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name))
    .filter((file) => fs.readFileSync(file).includes(bytes));
}

/** Where a control directory has a secret: files with its bytes, the index, and the headers of packs. */
async function placesOf(client: Client, secret: Buffer): Promise<string[]> {
  const control = client.controlDirectory;
  const found = filesWith(control, secret);
  const id = createHash("sha256").update(secret).digest();
  const store = await EmbeddedStore.open(control);
  try {
    if (store.index.entryOf({ id, type: "data" }) >= 0) found.push("the index");
    for (const { name, size } of await store.storage.list("data"))
      for (const blob of await loadPackHeader(store.repository, name, size))
        if (Buffer.compare(blob.id, id) === 0) found.push(`pack ${name}`);
  } finally {
    store.close();
  }
  return found;
}

/** The clones of points that are there and count. */
function treesOf(client: Client): string[] {
  const trees = fs.globSync("workspaces/*/points/*/tree", { cwd: client.controlDirectory });
  return trees.filter((tree) => fs.lstatSync(path.join(client.controlDirectory, tree)).isDirectory()).toSorted();
}

interface Place {
  client: Client;
  folder: string;
  fork: string;
}

/** Ids, numbers, and the content of the file beside the secret, of all points. */
async function others(place: Place): Promise<string[]> {
  const points: string[] = [];
  for (const folder of [place.folder, place.fork]) {
    const client = await (await cairnLibrary()).open(folder);
    const { save_points: listed, damaged } = await client.history(undefined, 0, { all: true });
    assert.deepEqual(damaged, []);
    for (const { save_point_id: id, sequence } of listed) {
      const { data } = cairnOk(["show", `${id}:beside`, "-C", folder]);
      points.push(`${id} ${sequence} ${String(data["content_b64"])}`);
    }
  }
  return points.toSorted();
}

/** Removes all points of a folder but the one that it stands at, so that a run of many passes stays fast. */
async function removeOthers(folder: string): Promise<void> {
  const client = await (await cairnLibrary()).open(folder);
  const { save_points: listed, head } = await client.history(undefined, 0, { all: true });
  const ids = listed.map(({ save_point_id: id }) => id).filter((id) => id !== head);
  cairnOk(["cleanup", "drop", "--force", ...ids, "-C", folder]);
}

/** Saves a new secret in both workspaces, in pinned points, undo points, and as an ignored file. */
async function saveSecrets({ client, folder, fork }: Place, round: number): Promise<Buffer[]> {
  const secrets = [randomBytes(64), randomBytes(64), randomBytes(64)];
  const [first, second, third] = secrets as [Buffer, Buffer, Buffer];
  fs.writeFileSync(path.join(folder, "d/key.secret"), first);
  fs.writeFileSync(path.join(folder, "d/ignored.secret"), second);
  fs.writeFileSync(path.join(folder, "beside"), `${round}`);
  const { save_point_id: id } = await client.save();
  await client.pin(id);
  await client.seal();
  fs.writeFileSync(path.join(folder, "beside"), `${round} later`);
  await client.save();
  // The undo point has the secret too.
  fs.writeFileSync(path.join(folder, "beside"), `${round} never saved`);
  await client.restore({ target: id });
  fs.writeFileSync(path.join(fork, "other.secret"), third);
  fs.writeFileSync(path.join(fork, "beside"), `${round} fork`);
  cairnOk(["save", "-C", fork]);
  fs.rmSync(path.join(folder, "d/key.secret"));
  fs.rmSync(path.join(folder, "d/ignored.secret"));
  fs.rmSync(path.join(fork, "other.secret"));
  return secrets;
}

async function placeOf(t: TestContext, kind: HeldKind | null, engine: EngineType): Promise<Place | null> {
  const fill = (folder: string): void => {
    fs.mkdirSync(path.join(folder, "d"));
    fs.writeFileSync(path.join(folder, "d/.cairnignore"), "ignored.secret\n");
  };
  let folder = newFolder("paths");
  let client: Client;
  if (kind === null) {
    fill(folder);
    client = await (await cairnLibrary()).init(folder, { engineType: engine });
  } else {
    const held = await heldPlace(t, { kind, engine: engine as HoldingEngine, fill });
    if (held === null) return null;
    ({ client, folder } = held);
  }
  fs.writeFileSync(path.join(folder, "beside"), "first");
  await client.save();
  const fork = `${folder}-fork`;
  await client.fork("head", fork);
  return { client, folder, fork };
}

const REMOVE = ["cleanup", "purge", "--path", "*.secret"];

for (const [kind, engine] of [
  [null, "copy"],
  ["xfs", "reflink-copy"],
  ["btrfs", "btrfs-snapshot"],
] as const) {
  test(`${engine}: a removal of paths, if killed at any step, has no effect or is finished by the next command`, async (t) => {
    const place = await placeOf(t, kind, engine);
    if (place === null) return;
    const { client, folder, fork } = place;
    const args = [...REMOVE, "-C", folder];
    let secrets = await saveSecrets(place, 0);
    for (const secret of kind === "btrfs" ? secrets : secrets.filter((_, at) => at !== 1))
      assert.notDeepEqual(await placesOf(client, secret), []);
    const trees = treesOf(client);
    const names = passesOf(args);
    assert.deepEqual(treesOf(client), trees, "the clones were made again");
    for (const secret of secrets) assert.deepEqual(await placesOf(client, secret), [], "not killed");
    t.diagnostic(`${names.length} passes`);
    const outcomes = new Set<string>();
    for (const pass of chosenPasses(names)) {
      secrets = await saveSecrets(place, pass);
      const before = await others(place);
      const kills = [killAt(args, pass)];
      // The command that finishes it is killed, too, in the one or the other workspace.
      const next = ["save", "--skip-unchanged", "-C", pass % 4 === 0 ? fork : folder];
      if (pass % 2 === 0) kills.push(killAt(next, 1 + Math.floor(random() * 40)));
      const where = `killed at ${pass} (${kills.join(", then ")})`;
      if (pass % 3 === 0 || pass % 4 === 0) cairnOk(["save", "--skip-unchanged", "-C", fork]);
      cairnOk(["save", "-C", folder, "--skip-unchanged"]);
      const found = (await Promise.all(secrets.map(async (secret) => placesOf(client, secret)))).flat();
      outcomes.add(found.length === 0 ? "all" : "nothing");
      if (found.length > 0) {
        const { data } = cairnOk([...args, "--plan"]);
        assert.equal((data as unknown as RemovePathsResult).point_count, 4, where);
        cairnOk(args);
        for (const secret of secrets) assert.deepEqual(await placesOf(client, secret), [], where);
      }
      const now = await others(place);
      assert.deepEqual(
        now.filter((each) => before.includes(each)),
        before,
        where,
      );
      assertNoLeftovers(client, folder, where);
      assert.deepEqual((await client.verifyAll({ deep: true })).problems, [], where);
      for (const each of [folder, fork]) await removeOthers(each);
    }
    assert.equal(outcomes.size, 2, "both outcomes were seen");
    resticCheck(client, engine);
    assert.equal(cairn(["doctor", "-C", fork]).status, 0);
  });
}

test("a killed removal of paths is finished per workspace, as soon as no other process uses the workspace", async (t) => {
  const place = await placeOf(t, null, "copy");
  const { client, folder, fork } = place!;
  const secrets = await saveSecrets(place!, 0);
  const killed = cairn([...REMOVE, "-C", folder], { failpoint: "paths.journal-written" });
  assert.equal(killed.killed, true, killed.stdout);
  const pause = pauseFile();
  const running = startCairn(["save", "-C", fork], { failpoint: `point-before-descriptor@${pause}` });
  await running.paused;
  cairnOk(["save", "--skip-unchanged", "-C", folder]);
  const names = (await client.findNames("*.secret", { all: true })).found;
  assert.deepEqual(
    names.map(({ path: name }) => name),
    ["other.secret"],
  );
  const journals = fs.globSync("workspaces/*/journal/removed-paths.json", { cwd: client.controlDirectory });
  assert.equal(journals.length, 1);
  fs.rmSync(pause);
  assert.equal((await running.ended).status, 0);
  cairnOk(["save", "--skip-unchanged", "-C", folder]);
  for (const secret of secrets) assert.deepEqual(await placesOf(client, secret), []);
  assertNoLeftovers(client, folder, "finished");
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("a killed removal that meets damage waits for a repair, and saves go on", async () => {
  const folder = newFolder("damaged");
  fs.writeFileSync(path.join(folder, "secret"), "one");
  const client = await (await cairnLibrary()).openOrInit(folder);
  const { save_point_id: id } = await client.save();
  assert.ok(
    cairn(["-C", folder, "cleanup", "purge", "--path", "secret"], { failpoint: "paths.journal-written" }).killed,
  );
  const data = path.join(client.controlDirectory, "store/data");
  const packs = fs.readdirSync(data).map((name) => path.join(data, name));
  for (const each of packs) fs.renameSync(each, `${each}-away`);
  fs.writeFileSync(path.join(folder, "secret"), "two");
  const { stdout } = cairnOk(["save", folder]);
  assert.match(stdout, /a removal of paths was interrupted, and cannot go on/);
  for (const each of packs) fs.cpSync(`${each}-away`, each, { recursive: true });
  for (const each of packs) fs.rmSync(`${each}-away`, { recursive: true });
  cairnOk(["-C", folder, "doctor", "--repair"]);
  cairnOk(["save", folder]);
  assert.deepEqual(fs.globSync("**/removed-paths.json", { cwd: client.controlDirectory }), []);
  assert.equal((await client.show(id)).entries.length, 0);
});
