import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { BackupRepository, PruneBackupsOptions, PruneBackupsResult } from "../../contract/index.ts";
import type { FileKind, Storage, StoredFile } from "../../repository/storage/storage.ts";
import { resticCheck } from "../../repository/testing-archive.ts";
import { type BackupScene, backupScene, opened } from "../testing-far.ts";

const DAY_MS = 24 * 60 * 60_000;
const COUNTS_MS = 23 * 60 * 60_000;

interface Scene extends BackupScene {
  /** Ids of three snapshots, each with 300 kB of its own; oldest first. */
  ids: string[];
}

async function scene(t: TestContext, scheme: "far" | "local"): Promise<Scene> {
  const at = await backupScene(t, scheme);
  const ids: string[] = [];
  for (let i = 0; i < 3; i++) {
    rmSync(join(at.folder, "random"), { force: true });
    writeFileSync(join(at.folder, "random"), randomBytes(300_000));
    const { snapshot } = await at.client.createBackup(at.repository, { save: true });
    ids.push(snapshot!.snapshot_id);
  }
  return { ...at, ids };
}

function packsIn(place: string): string[] {
  const entries = readdirSync(join(place, "data"), { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map(({ name }) => name);
}

function pathOf({ place }: Scene, id: string): string {
  return join(place, "snapshots", id);
}

/** Takes the file of a snapshot away and returns a function that puts it back, as a sync tool does. */
function takeAway(at: Scene, id: string): () => void {
  const aside = join(at.root, id);
  renameSync(pathOf(at, id), aside);
  return () => renameSync(aside, pathOf(at, id));
}

interface Pruned {
  result: PruneBackupsResult;
  warnings: string[];
}

async function prune(repository: BackupRepository, options: PruneBackupsOptions = {}): Promise<Pruned> {
  const warnings: string[] = [];
  const result = await repository.prune({
    maxUnused: 0,
    instant: true,
    ...options,
    onWarning: (text) => void warnings.push(text),
  });
  return { result, warnings };
}

/** Has the storage that was opened last as `far:` answer lists of a kind otherwise; returns a function that ends it. */
function lying(kind: FileKind, answer: (files: StoredFile[]) => StoredFile[]): () => void {
  const storage: Storage = opened.far!;
  storage.list = async function list(asked, call) {
    const files = await Object.getPrototypeOf(storage).list.call(storage, asked, call);
    return asked === kind ? answer(files) : files;
  };
  return () => void delete (storage as Partial<Storage>).list;
}

async function requireWhole(at: Scene, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    const restored = await at.repository.restore(
      id,
      join(at.root, `to-${id.slice(0, 8)}-${randomBytes(2).toString("hex")}`),
    );
    assert.ok(restored.proof !== null, id);
  }
  resticCheck(at.place);
}

/** Opens the repository as a host with a cache of its own. */
async function asOtherHost<T>(at: Scene, work: (repository: BackupRepository) => Promise<T>): Promise<T> {
  const own = process.env["XDG_CACHE_HOME"];
  process.env["XDG_CACHE_HOME"] = join(at.root, "other-cache");
  const repository = await at.library.openRepository(at.options);
  process.env["XDG_CACHE_HOME"] = own;
  try {
    return await work(repository);
  } finally {
    await repository.close();
  }
}

test("prune refuses a repository that has lost all its snapshots, and names the snapshots", async (t) => {
  const at = await scene(t, "local");
  const back = at.ids.map((id) => takeAway(at, id));
  const packs = packsIn(at.place);
  await assert.rejects(at.repository.prune(), {
    code: "refused",
    message: new RegExp(`3 snapshots there before: .*${at.ids[1]!.slice(0, 8)}`),
    hint: /--allow empty/,
  });
  await assert.rejects(at.repository.forget({ retention: { keepLast: 1 }, prune: true }), { code: "refused" });
  await assert.rejects(
    asOtherHost(at, async (other) => other.prune()),
    { code: "refused" },
  );
  // What was seen before counts beside the override, too.
  const { result } = await prune(at.repository, { allow: ["empty"] });
  assert.deepEqual(result.missing_snapshots.map(({ snapshot_id: id }) => id).toSorted(), at.ids.toSorted());
  assert.deepEqual(packsIn(at.place), packs);
  for (const put of back) put();
  await requireWhole(at, at.ids);
});

test("prune with --allow empty, --allow missing and --instant empties a repository without snapshots", async (t) => {
  const at = await scene(t, "local");
  for (const id of at.ids) takeAway(at, id);
  await prune(at.repository, { allow: ["empty", "missing"], instant: true });
  assert.deepEqual(packsIn(at.place), []);
});

test("forget with --prune refuses to remove all snapshots before it removes any", async (t) => {
  const at = await scene(t, "local");
  await assert.rejects(at.repository.forget({ snapshots: at.ids, prune: true }), { code: "refused" });
  await requireWhole(at, at.ids);
  await at.repository.forget({ snapshots: at.ids, prune: true, instant: true, allow: ["empty"] });
  assert.deepEqual(packsIn(at.place), []);
});

test("prune keeps the content of a lost snapshot for 23 hours and frees other unneeded content", async (t) => {
  const at = await scene(t, "local");
  const [first, second, third] = at.ids as [string, string, string];
  const back = takeAway(at, second);
  await at.repository.forget({ snapshots: [first] });
  const { result, warnings } = await prune(at.repository);
  assert.ok(result.bytes_freed > 250_000, String(result.bytes_freed));
  assert.deepEqual(
    result.missing_snapshots.map(({ snapshot_id: id, needed }) => [id, needed]),
    [[second, true]],
  );
  assert.match(warnings.join("\n"), new RegExp(`${second.slice(0, 8)}.*23 hours.*--allow missing`));
  back();
  await requireWhole(at, [second, third]);
  assert.deepEqual((await prune(at.repository)).result.missing_snapshots, []);
});

for (const how of ["23 hours later", "at once"] as const)
  test(`prune frees the content of a lost snapshot ${how === "at once" ? "at once with --allow missing" : how}`, async (t) => {
    const at = await scene(t, "local");
    takeAway(at, at.ids[1]!);
    t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
    await prune(at.repository);
    t.mock.timers.setTime(Date.now() + COUNTS_MS - 60_000);
    assert.equal((await prune(at.repository)).result.bytes_freed, 0);
    if (how !== "at once") t.mock.timers.setTime(Date.now() + 60_000);
    const { result, warnings } = await prune(at.repository, { allow: how === "at once" ? ["missing"] : [] });
    assert.ok(result.bytes_freed > 250_000, String(result.bytes_freed));
    assert.match(warnings.join("\n"), /count as forgotten now/);
    // It is named once.
    assert.deepEqual((await prune(at.repository)).result.missing_snapshots, []);
    t.mock.timers.reset();
    await requireWhole(at, [at.ids[0]!, at.ids[2]!]);
  });

test("prune restarts the 23 hours of a lost snapshot if the clock was set back", async (t) => {
  const at = await scene(t, "local");
  const back = takeAway(at, at.ids[1]!);
  const now = Date.now();
  t.mock.timers.enable({ apis: ["Date"], now: now + 400 * DAY_MS });
  await prune(at.repository);
  t.mock.timers.setTime(now);
  const { result } = await prune(at.repository);
  assert.deepEqual(
    result.missing_snapshots.map(({ missed_at: missed }) => Date.parse(missed)),
    [now],
  );
  t.mock.timers.setTime(now + COUNTS_MS - 1);
  await prune(at.repository);
  t.mock.timers.reset();
  back();
  await requireWhole(at, at.ids);
});

test("prune removes nothing if a server has a snapshot and does not list it", async (t) => {
  const at = await scene(t, "far");
  const [first, second] = at.ids as [string, string];
  await at.repository.forget({ snapshots: [first] });
  const packs = packsIn(at.place);
  const end = lying("snapshots", (files) => files.filter(({ name }) => name !== second));
  const dry = await prune(at.repository, { dryRun: true });
  const { result, warnings } = await prune(at.repository, { instant: true });
  assert.deepEqual([dry.result.postponed, result.postponed], [true, true]);
  assert.match(warnings.join("\n"), new RegExp(`does not list: ${second.slice(0, 8)}.*nothing was removed`));
  assert.deepEqual(packsIn(at.place), packs);
  end();
  assert.ok((await prune(at.repository)).result.bytes_freed > 250_000);
  await requireWhole(at, at.ids.slice(1));
});

test("prune removes nothing while a server lists no snapshot for an hour", async (t) => {
  const at = await scene(t, "far");
  const packs = packsIn(at.place);
  const end = lying("snapshots", () => []);
  for (const minutes of [0, 30, 60]) {
    t.mock.timers.reset();
    t.mock.timers.enable({ apis: ["Date"], now: Date.now() + minutes * 60_000 });
    await assert.rejects(at.repository.prune(), { code: "refused" });
    await assert.rejects(at.repository.forget({ retention: { keepLast: 1 }, prune: true }), { code: "refused" });
    // The override does not make a wrong list right.
    assert.equal((await prune(at.repository, { allow: ["empty"], instant: true })).result.postponed, true);
  }
  t.mock.timers.reset();
  end();
  assert.deepEqual(packsIn(at.place), packs);
  await requireWhole(at, at.ids);
});

test("prune reports a lost snapshot of this host as missing even if no list has named it yet", async (t) => {
  const at = await scene(t, "local");
  const { snapshot } = await at.client.createBackup(at.repository, { save: true });
  const back = takeAway(at, snapshot!.snapshot_id);
  const { result } = await prune(at.repository);
  assert.deepEqual(
    result.missing_snapshots.map(({ snapshot_id: id }) => id),
    [snapshot!.snapshot_id],
  );
  back();
  await requireWhole(at, [snapshot!.snapshot_id]);
});

test("prune does not report snapshots as missing that this host forgot, tagged or rewrote", async (t) => {
  const at = await scene(t, "local");
  await at.repository.tag({ snapshots: [at.ids[1]!], add: ["kept"] });
  const { result } = await prune(at.repository);
  assert.deepEqual(result.missing_snapshots, []);
  const forgot = await at.repository.forget({ retention: { keepLast: 1 }, prune: true, instant: true });
  assert.deepEqual([forgot.removed.length, forgot.prune!.missing_snapshots], [2, []]);
  assert.ok(forgot.prune!.bytes_freed > 250_000);
});

test("prune frees content after another host forgot and pruned a snapshot", async (t) => {
  const at = await scene(t, "local");
  const [first, second, third] = at.ids as [string, string, string];
  await asOtherHost(at, async (other) => other.forget({ snapshots: [second], prune: true, instant: true }));
  await at.repository.forget({ snapshots: [first] });
  const { result, warnings } = await prune(at.repository);
  assert.ok(result.bytes_freed > 250_000, String(result.bytes_freed));
  assert.match(warnings.join("\n"), /if they were forgotten on another host, use --allow missing/);
  await requireWhole(at, [third]);
});

test("prune fails with `damaged` if a lost snapshot's index files are lost too", async (t) => {
  const at = await scene(t, "local");
  const indexes = (): string[] => readdirSync(join(at.place, "index"));
  const before = indexes();
  writeFileSync(join(at.folder, "last"), randomBytes(200_000));
  const { snapshot } = await at.client.createBackup(at.repository, { save: true });
  takeAway(at, snapshot!.snapshot_id);
  for (const name of indexes()) if (!before.includes(name)) rmSync(join(at.place, "index", name));
  const packs = packsIn(at.place);
  await assert.rejects(at.repository.prune({ maxUnused: 0 }), {
    code: "damaged",
    hint: /repair index.*--allow missing/,
  });
  assert.deepEqual(packsIn(at.place), packs);
  await at.repository.repair({ what: "index" });
  assert.equal((await prune(at.repository)).result.bytes_freed, 0);
});

for (const shape of ["lost", "garbage", "a directory", "a link to itself"] as const)
  test(`prune works if the record of seen snapshots is ${shape}`, async (t) => {
    const at = await scene(t, "local");
    const [id] = readdirSync(join(process.env["XDG_CACHE_HOME"]!, "cairn/repositories"));
    const record = join(process.env["XDG_CACHE_HOME"]!, "cairn/repositories", id!, "seen-snapshots");
    assert.ok(existsSync(record));
    rmSync(record);
    if (shape === "garbage") writeFileSync(record, "{]");
    if (shape === "a directory") mkdirSync(join(record, "x"), { recursive: true });
    if (shape === "a link to itself") symlinkSync(record, record);
    const another = await at.library.openRepository(at.options);
    t.after(async () => another.close());
    await another.forget({ snapshots: [at.ids[0]!] });
    assert.ok((await prune(another)).result.bytes_freed > 250_000);
    const back = takeAway(at, at.ids[1]!);
    assert.equal((await prune(another)).result.bytes_freed, 0);
    back();
    await requireWhole(at, at.ids.slice(1));
  });

for (const answer of ["empty", "stale"] as const)
  test(`forget and prune remove nothing if an ${answer} list of locks lacks their own lock`, async (t) => {
    const at = await scene(t, "far");
    const stale = [...(await opened.far!.list("locks"))];
    await at.repository.forget({ snapshots: [at.ids[0]!] });
    const packs = packsIn(at.place);
    const end = lying("locks", () => (answer === "empty" ? [] : stale));
    await assert.rejects(at.repository.forget({ snapshots: [at.ids[1]!] }), { code: "busy", message: /list of locks/ });
    await assert.rejects(at.repository.prune({ maxUnused: 0 }), { code: "busy", message: /list of locks/ });
    assert.deepEqual(new Set(packs).difference(new Set(packsIn(at.place))), new Set());
    end();
    await requireWhole(at, at.ids.slice(1));
  });

test("forget fails with `busy` if a list lacks a lock that was seen held before", async (t) => {
  const at = await scene(t, "far");
  const { access } = at.repository as unknown as { access: { locked: (...given: unknown[]) => Promise<unknown> } };
  await asOtherHost(at, async () => undefined);
  await access.locked(false, {}, async () => {
    const held = readdirSync(join(at.place, "locks"));
    await assert.rejects(at.repository.forget({ snapshots: [at.ids[0]!], lockTimeoutMs: 0 }), { code: "busy" });
    const end = lying("locks", (files) => files.filter(({ name }) => !held.includes(name)));
    await assert.rejects(at.repository.forget({ snapshots: [at.ids[0]!], lockTimeoutMs: 0 }), { code: "busy" });
    end();
  });
  await requireWhole(at, at.ids);
});

test("the hint for a listed snapshot that cannot be read does not propose to forget it", async (t) => {
  const at = await scene(t, "far");
  const storage: Storage = opened.far!;
  const [, second] = at.ids as [string, string];
  rmSync(join(process.env["XDG_CACHE_HOME"]!), { recursive: true });
  const back = takeAway(at, second);
  const end = lying("snapshots", (files) => [...files, { name: second, size: 300 }]);
  const isCareful = ({ code, hint }: { code: string; hint: string }): boolean =>
    code === "damaged" && !hint.includes("forget") && /run the command again later/.test(hint);
  await assert.rejects(at.repository.prune(), isCareful);
  await assert.rejects(at.repository.show(second), isCareful);
  await assert.rejects(at.repository.show("latest"), isCareful);
  end();
  back();
  await storage.list("snapshots");
  await requireWhole(at, at.ids);
});

test("prune removes nothing from a copied repository whose snapshots have not all arrived yet", async (t) => {
  const at = await scene(t, "local");
  const copy = join(at.root, "copy");
  for (const name of ["config", "keys", "index", "data"])
    cpSync(join(at.place, name), join(copy, name), { recursive: true });
  for (const name of ["snapshots", "locks"]) mkdirSync(join(copy, name));
  const other = await at.library.openRepository({ ...at.options, repository: `local:${copy}` });
  t.after(async () => other.close());
  await assert.rejects(other.prune(), { code: "refused" });
  // The first of the snapshots has come: those of the same repository that this host knows count.
  cpSync(pathOf(at, at.ids[0]!), join(copy, "snapshots", at.ids[0]!));
  const { result } = await prune(other);
  assert.deepEqual([result.bytes_freed, result.missing_snapshots.length], [0, 2]);
  cpSync(join(at.place, "snapshots"), join(copy, "snapshots"), { recursive: true });
  await requireWhole({ ...at, place: copy, repository: other }, at.ids);
});

test("a prune frees nothing at its first look, and no content of a later backup at a second look with an old list", async (t) => {
  const at = await scene(t, "far");
  const bytes = randomBytes(200_000);
  const back = (): void => writeFileSync(join(at.folder, "back"), bytes);
  back();
  const { snapshot: old } = await at.client.createBackup(at.repository, { save: true });
  rmSync(join(at.folder, "back"));
  await at.client.createBackup(at.repository, { save: true });
  await at.repository.forget({ snapshots: [old!.snapshot_id] });
  const packs = packsIn(at.place);
  const { result } = await prune(at.repository, { instant: false });
  assert.ok(result.marked_packs > 0 && result.free_from !== null);
  assert.deepEqual(new Set(packs).difference(new Set(packsIn(at.place))), new Set());
  // Between the looks the content comes back.
  back();
  const { snapshot: again } = await at.client.createBackup(at.repository, { save: true });
  await asOtherHost(at, async (other) => {
    const storage: Storage = opened.far!;
    storage.now = async () => Date.now() + DAY_MS;
    lying("snapshots", (files) => files.filter(({ name }) => name !== again!.snapshot_id));
    assert.ok((await prune(other, { instant: false })).result.removed_packs > 0);
  });
  await requireWhole(at, [...at.ids.slice(1), again!.snapshot_id]);
});

test("the error of a full storage names --instant and the bytes that are marked", async (t) => {
  const at = await backupScene(t, "faulty");
  writeFileSync(join(at.folder, "gone"), randomBytes(300_000));
  const { snapshot } = await at.client.createBackup(at.repository, { save: true });
  rmSync(join(at.folder, "gone"));
  await at.client.createBackup(at.repository, { save: true });
  await at.repository.forget({ snapshots: [snapshot!.snapshot_id] });
  await at.repository.prune({ maxUnused: 0 });
  writeFileSync(join(at.folder, "more"), randomBytes(300_000));
  opened.faulty!.arm({ operation: "saveFile", kind: "data", fault: "no_space", times: 100 });
  await assert.rejects(at.client.createBackup(at.repository, { save: true }), {
    code: "no_space",
    hint: /backup prune --instant.* frees \d+.* KiB .*marked/,
  });
  opened.faulty!.disarm();
});
