import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { SavePointId } from "../ids.ts";
import type { Retention, SavePoint } from "../contract/index.ts";
import { hasCode, testFolder, type TestFolder } from "./testing-folder.ts";

interface Saved extends TestFolder {
  points: SavePoint[];
}

/** So many points, each with 100 000 bytes that no other has. */
async function saved(context: TestContext, count: number): Promise<Saved> {
  const at = await testFolder(context, { kept: "the same in all" });
  const points: SavePoint[] = [];
  for (let i = 1; i <= count; i++) {
    fs.writeFileSync(join(at.folder, "own"), randomBytes(100_000));
    points.push(await at.client.save({ message: `nr ${i}`, tags: [`t${i}`] }));
  }
  return { ...at, points };
}

function idsOf(points: readonly (SavePoint | undefined)[], isSorted = true): SavePointId[] {
  const ids = points.map((point) => point!.save_point_id);
  return isSorted ? ids.sort() : ids;
}

async function storeBytes({ client }: TestFolder): Promise<number> {
  return (await client.store()).bytes;
}

async function checkWithRestic(context: TestContext, { client }: TestFolder): Promise<void> {
  const { repository, password_file } = await client.store();
  const done = spawnSync("restic", ["-r", repository, "-p", password_file, "--no-cache", "check", "--read-data"], {
    encoding: "utf8",
  });
  if (done.error !== undefined) return context.diagnostic("restic is not installed");
  assert.equal(done.status, 0, done.stdout + done.stderr);
}

test("cleanup removes points that no rule keeps, and frees content that no other point has", async (context) => {
  const at = await saved(context, 5);
  const { client, points, folder } = at;
  const before = await storeBytes(at);
  const retention = { keepLast: 2, keepTags: ["t1"] };
  const plan = await client.previewCleanup({ retention });
  assert.deepEqual([...plan.reclaimable_save_points].sort(), idsOf([points[1], points[2], points[3]].slice(0, 2)));
  assert.deepEqual(plan.reasons.find(({ save_point_id }) => save_point_id === points[4]!.save_point_id)?.reasons, [
    "head",
    "latest",
    "last",
  ]);
  assert.equal(plan.candidate_count, 5);
  assert.equal(plan.protected_by_history, 1);
  assert.ok(Math.abs(plan.reclaimable_bytes_estimate - 200_000) < 10_000, String(plan.reclaimable_bytes_estimate));
  assert.equal(await storeBytes(at), before, "a plan changes nothing");
  const result = await client.runCleanup({ retention, plan: plan.id });
  assert.deepEqual([...result.removed].sort(), [...plan.reclaimable_save_points].sort());
  assert.ok(
    Math.abs(result.bytes_freed - plan.reclaimable_bytes_estimate) < 20_000,
    `${result.bytes_freed} ${plan.reclaimable_bytes_estimate}`,
  );
  assert.ok((await storeBytes(at)) <= before - 195_000);
  assert.deepEqual(
    (await client.history(undefined, 0, { all: true })).save_points.map(({ sequence }) => sequence),
    [5, 4, 1],
  );
  await checkWithRestic(context, at);
  await client.restore({ target: points[0]!.save_point_id });
  assert.equal((await client.save()).payload_root_hash, points[0]!.payload_root_hash);
  assert.ok(fs.existsSync(join(folder, "own")));
  await assert.rejects(client.runCleanup({ retention, plan: plan.id }), hasCode("stale_plan"));
});

test("previewCleanup without rules applies the policy's rules, or lists no saved point if none are set", async (context) => {
  const at = await saved(context, 3);
  const { client, points } = at;
  assert.deepEqual((await client.previewCleanup()).reclaimable_save_points, []);
  await client.setPolicy({ retention: { keepLast: 1 } });
  assert.deepEqual([...(await client.previewCleanup()).reclaimable_save_points].sort(), idsOf(points.slice(0, 2)));
});

test("cleanup removes undo points by keep-undo, but not the one that the next undo needs", async (context) => {
  const { client, points } = await saved(context, 2);
  for (let i = 0; i < 3; i++) await client.restore({ target: points[i % 2]!.save_point_id });
  const { removed } = await client.runCleanup({ retention: { keepUndo: { count: 0, within: "0h" } } });
  assert.equal(removed.length, 2);
  const { restored_to } = await client.undo();
  assert.notEqual(restored_to, null);
});

test("runCleanup with a plan refuses if another point would go or stay, names the points, and removes none", async (context) => {
  const { client, points, folder } = await saved(context, 5);
  const [first, second, third, , last] = idsOf(points, false);
  const ids = async (): Promise<SavePointId[]> =>
    (await client.history(undefined, 0, { all: true })).save_points.map(({ save_point_id: id }) => id);
  const refuses = async (retention: Retention, change: () => Promise<unknown>, named: RegExp): Promise<void> => {
    const { id: plan } = await client.previewCleanup({ retention });
    await change();
    const before = await ids();
    await assert.rejects(client.runCleanup({ retention, plan }), { code: "stale_plan", message: named });
    assert.deepEqual(await ids(), before);
  };
  const short = (id: SavePointId | undefined): string => id!.slice(0, 8);
  const keepLast = { keepLast: 2 };
  await refuses(keepLast, async () => client.pin(second!), new RegExp(`keep 3 points .*${short(second)}: pinned`));
  await refuses(keepLast, async () => client.unpin(second!), new RegExp(`remove 3 points .*${short(second)}: no`));
  const restore = async (target?: SavePointId): Promise<unknown> => client.restore({ target: target! });
  await refuses(keepLast, async () => restore(third), new RegExp(`${short(third)}: head`));
  await restore(last);
  const wanted = { keepTags: ["wanted"], keepUndo: { count: 0, within: "0h" } };
  await refuses(wanted, async () => client.tag(first!, { add: ["wanted"] }), new RegExp(`keep .*${short(first)}: `));
  const save = async (): Promise<unknown> => {
    fs.writeFileSync(join(folder, "more"), "more");
    return client.save();
  };
  await refuses(keepLast, save, /: head, latest/);
  await refuses(keepLast, async () => client.runCleanup({ only: [first!] }), /it would remove/);
  const { id: plan } = await client.previewCleanup({ retention: keepLast });
  await assert.rejects(client.runCleanup({ retention: { keepLast: 3 }, plan }), hasCode("stale_plan"));
  await assert.rejects(client.runCleanup({ retention: keepLast, plan: "../../etc" }), hasCode("usage"));
});

test("a plan of named points does not depend on other points, and force removes pinned points", async (context) => {
  const { client, points, folder } = await saved(context, 4);
  const only = idsOf(points.slice(0, 2), false);
  const plan = async (force?: boolean): Promise<string> =>
    (await client.previewCleanup({ only, ...(force && { force }) })).plan_id;
  const shown = await plan();
  assert.equal(await plan(), shown);
  assert.notEqual(await plan(true), shown);
  await client.pin(only[0]!);
  await assert.rejects(plan(), hasCode("refused"));
  await assert.rejects(client.runCleanup({ only }), hasCode("refused"));
  const isPinned = new RegExp(`: ${only[0]!.slice(0, 8)} cannot be removed: it is pinned; nothing was changed$`);
  await assert.rejects(client.runCleanup({ only, plan: shown }), { code: "stale_plan", message: isPinned });
  const gone = { only: ["0".repeat(32)], plan: shown };
  await assert.rejects(client.runCleanup(gone), { code: "stale_plan", message: /0{32}/ });
  await assert.rejects(client.runCleanup({ only: [only[1]!], plan: shown }), hasCode("stale_plan"));
  const forced = await plan(true);
  await client.unpin(only[0]!);
  await assert.rejects(client.runCleanup({ only, force: true, plan: forced }), {
    code: "stale_plan",
    message: new RegExp(`it would remove 2 points \\(.*${only[0]!.slice(0, 8)}: asked for`),
  });
  await client.pin(only[0]!);
  fs.writeFileSync(join(folder, "more"), "more");
  await client.save();
  const { removed } = await client.runCleanup({ only, force: true, plan: forced });
  assert.deepEqual(removed.toSorted(), only.toSorted());
  assert.equal((await client.history(undefined, 0, { all: true })).save_points.length, 3);
});

test("a control directory that has plans of an earlier build opens, is healthy, and can be released", async (context) => {
  const { client, folder, library } = await saved(context, 2);
  const { controlDirectory } = client;
  fs.mkdirSync(join(controlDirectory, "plans"));
  const old = { format: "cairn.cleanup-plan", version: 1, plan_id: "0123456789abcdef" };
  fs.writeFileSync(join(controlDirectory, "plans/0123456789abcdef.json"), JSON.stringify(old));
  const again = await library.open(folder);
  assert.deepEqual((await again.doctor()).findings, []);
  assert.equal((await again.runCleanup({ retention: { keepLast: 1 } })).removed.length, 1);
  await again.release({ deletePoints: true });
  assert.equal(fs.existsSync(controlDirectory), false);
});

test("cleanup keeps pinned points, origins of forks, and content that other workspaces need", async (context) => {
  const at = await saved(context, 4);
  const { client, points, root, library } = at;
  await client.pin(points[0]!.save_point_id);
  const fork = await client.fork(points[1]!.save_point_id, join(root, "fork"));
  const plan = await client.previewCleanup({ retention: { keepLast: 1 } });
  assert.deepEqual(plan.reclaimable_save_points, [points[2]!.save_point_id]);
  await client.runCleanup({ retention: { keepLast: 1 } });
  const only = await client.previewCleanup({ only: [points[1]!.save_point_id] });
  assert.ok(only.reclaimable_bytes_estimate < 10_000, "the fork holds its content too");
  await client.runCleanup({ only: [points[1]!.save_point_id] });
  const forked = await library.open(join(root, "fork"));
  fs.rmSync(join(root, "fork", "own"));
  await forked.restore({ target: fork.save_point.save_point_id });
  assert.equal(fs.statSync(join(root, "fork", "own")).size, 100_000);
  await checkWithRestic(context, at);
});

test("cleanup drop removes exactly the named points, even if they share a pack with other points", async (context) => {
  const at = await saved(context, 3);
  const { client, points, folder } = at;
  await assert.rejects(client.previewCleanup({ only: [points[2]!.save_point_id] }), hasCode("refused"));
  await client.pin(points[1]!.save_point_id);
  await assert.rejects(client.previewCleanup({ only: [points[1]!.save_point_id] }), hasCode("refused"));
  fs.writeFileSync(join(folder, "secret"), "a secret among much else");
  fs.writeFileSync(join(folder, "own"), randomBytes(3_000_000));
  const bad = await client.save();
  fs.rmSync(join(folder, "secret"));
  await client.save();
  const plan = await client.previewCleanup({ only: [bad.save_point_id.slice(0, 8)] });
  assert.deepEqual(plan.reclaimable_save_points, [bad.save_point_id]);
  const { bytes_freed } = await client.runCleanup({ only: [bad.save_point_id] });
  assert.ok(bytes_freed > 0, "also where the rest of its pack is needed");
  await checkWithRestic(context, at);
});

test("a size limit drops no point of the last day", async (context) => {
  const { client } = await saved(context, 3);
  const { reclaimable_save_points, reasons } = await client.previewCleanup({ retention: { maxBytes: 1000 } });
  assert.deepEqual(reclaimable_save_points, []);
  assert.deepEqual([...new Set(reasons.slice(1).flatMap((each) => each.reasons))], ["under a day old"]);
});

test("cleanup warns if the points that it must keep exceed the size limit", async (context) => {
  const { client } = await saved(context, 2);
  const warningsAt = async (maxBytes: number): Promise<string[]> => {
    const warnings: string[] = [];
    await client.runCleanup({ retention: { maxBytes }, onWarning: (message) => warnings.push(message) });
    return warnings;
  };
  const [told, ...more] = await warningsAt(5);
  assert.match(
    told!,
    /^the store will still have 19\d KiB, more than the given 5 B: a limit on size never removes points of the last day/,
  );
  assert.deepEqual([more, await warningsAt(1_000_000)], [[], []]);
});

test("a size limit drops the oldest points that other rules keep, but no point that a tag keeps", async (context) => {
  context.mock.timers.enable({ apis: ["Date"], now: Date.now() - 30 * 86_400_000 });
  const { client, points } = await saved(context, 6);
  context.mock.timers.reset();
  const dropped = async (retention: Retention): Promise<SavePointId[]> =>
    (await client.previewCleanup({ retention })).reclaimable_save_points.toSorted();
  const [first, second, third, fourth] = points;
  assert.deepEqual(await dropped({ keepLast: 5 }), idsOf([first]));
  assert.deepEqual(await dropped({ keepLast: 5, maxBytes: 350_000 }), idsOf([first, second, third]));
  assert.deepEqual(await dropped({ keepLast: 5, maxBytes: 10_000_000 }), idsOf([first]));
  assert.deepEqual(await dropped({ keepLast: 5, maxBytes: 350_000, keepTags: ["t2"] }), idsOf([first, third, fourth]));
});

test("cleanup keeps the content of an unreadable point, and fails if that point's snapshot is missing too", async (context) => {
  const at = await saved(context, 3);
  const { client, points } = at;
  const descriptor = join(client.controlDirectory, "workspaces", "main", "points", "0000000001", "descriptor.json");
  const bytes = fs.readFileSync(descriptor);
  fs.writeFileSync(descriptor, "{}");
  await client.runCleanup({ retention: { keepLast: 1 } });
  fs.writeFileSync(descriptor, bytes);
  await client.restore({ target: points[0]!.save_point_id });
  fs.writeFileSync(descriptor, "{}");
  const snapshots = join(client.controlDirectory, "store", "snapshots");
  for (const name of fs.readdirSync(snapshots)) fs.rmSync(join(snapshots, name));
  const before = await storeBytes(at);
  await assert.rejects(async () => client.runCleanup({ only: [points[2]!.save_point_id] }), hasCode("damaged"));
  assert.equal(await storeBytes(at), before);
});

/** Two points with content that the folder has no more, and one after them; the packs of theirs that `isLost` names are gone. */
async function withLost(context: TestContext, isLost: (size: number) => boolean) {
  const at = await saved(context, 2);
  const { client, folder } = at;
  const { repository } = await client.store();
  const before = new Set(packsIn(repository));
  fs.writeFileSync(join(folder, "lost"), randomBytes(200_000));
  const lost = [await client.save(), await client.save({ message: "the same" })];
  const packs = packsIn(repository).filter((each) => !before.has(each) && isLost(fs.statSync(each).size));
  fs.rmSync(join(folder, "lost"));
  const whole = await client.save();
  const aside = packs.map((pack) => ({ pack, bytes: fs.readFileSync(pack) }));
  for (const pack of packs) fs.rmSync(pack);
  await client.doctor({ repair: true });
  assert.deepEqual(await damagedIn(at), idsOf(lost));
  return { at, lost, whole, aside };
}

const ofData = (size: number): boolean => size > 190_000;

async function damagedIn({ client }: TestFolder): Promise<(string | null)[]> {
  return [...new Set((await client.verifyAll()).problems.map(({ point }) => point))].toSorted();
}

test("cleanup drop removes points with lost trees only if all of these points are named", async (context) => {
  const { at, lost, whole } = await withLost(context, (size) => !ofData(size));
  const { client, points } = at;
  await assert.rejects(client.previewCleanup({ only: [lost[0]!.save_point_id] }), {
    code: "damaged",
    hint: /except head in one call: `cairn cleanup drop/,
  });
  assert.deepEqual((await client.runCleanup({ only: idsOf(lost) })).removed.toSorted(), idsOf(lost));
  assert.deepEqual(await damagedIn(at), []);
  assert.deepEqual(
    (await client.history(undefined, 0, { all: true })).save_points.map(({ save_point_id: id }) => id).toSorted(),
    idsOf([...points, whole]),
  );
  await checkWithRestic(context, at);
});

const TOLD_OF_LOST =
  /^the store has lost (a blob \(|\d+ blobs \(the first: )[0-9a-f]{8}\) of remaining save points: `cairn verify --all` .*`cairn doctor --repair`/;

test("cleanup removes points although a remaining point has lost content, and keeps packs that doctor can use", async (context) => {
  const { at, lost, whole, aside } = await withLost(context, ofData);
  const { client, points } = at;
  // In no index any more: somebody may yet have it read again.
  for (const { pack, bytes } of aside) fs.writeFileSync(pack, bytes);
  const only = [points[0]!, lost[0]!];
  const before = await storeBytes(at);
  const warnings: string[] = [];
  const onWarning = (message: string): void =>
    void (/ other points? still ha(?:s|ve) /.test(message) || warnings.push(message));
  const cleaned = await client.runCleanup({ only: idsOf(only), onWarning });
  assert.deepEqual([cleaned.removed.toSorted(), cleaned.bytes_freed > 0], [idsOf(only), true]);
  assert.equal(warnings.length, 2, warnings.join("\n"));
  assert.match(warnings[0]!, TOLD_OF_LOST);
  // What was asked for may be in the packs that stay.
  assert.match(warnings[1]!, /still be in the store/);
  assert.equal(cleaned.complete, false);
  assert.ok((await storeBytes(at)) < before);
  assert.deepEqual(await damagedIn(at), [lost[1]!.save_point_id]);
  await client.doctor({ repair: true });
  assert.deepEqual(await damagedIn(at), []);
  assert.deepEqual(
    (await client.history(undefined, 0, { all: true })).save_points.map(({ save_point_id: id }) => id).toSorted(),
    idsOf([points[1]!, lost[1]!, whole]),
  );
  // There is nothing to tell of any more.
  const { complete } = await client.runCleanup({ only: [points[1]!.save_point_id], onWarning });
  assert.deepEqual([complete, warnings.length], [true, 2], warnings.join("\n"));
  await checkWithRestic(context, at);
});

function packsIn(repository: string): string[] {
  const data = join(repository, "data");
  return fs.readdirSync(data, { recursive: true, encoding: "utf8" }).flatMap((name) => {
    const path = join(data, name);
    return fs.statSync(path).isFile() ? [path] : [];
  });
}

test("release with deletePoints warns of lost content of points that stay in the store", async (context) => {
  const { at, lost } = await withLost(context, ofData);
  const other = join(at.root, "other");
  fs.mkdirSync(other);
  fs.writeFileSync(join(other, "b"), "two");
  const second = await at.library.init(other, { controlDirectory: at.client.controlDirectory });
  await second.save();
  const warnings: string[] = [];
  await second.release({ deletePoints: true, onWarning: (message) => warnings.push(message) });
  assert.equal(warnings.length, 1, warnings.join("\n"));
  assert.match(warnings[0]!, TOLD_OF_LOST);
  assert.deepEqual(await damagedIn(at), idsOf(lost));
});
