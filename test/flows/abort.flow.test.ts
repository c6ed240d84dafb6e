import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { before, describe, test } from "node:test";
import type { CallOptions, Client, Progress } from "../../src/contract/index.ts";
import { SCRATCH, startCairn } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { heldPlace } from "../fixtures/held-place.ts";
import { assertNoLeftovers, clientOf, newFolder, resticCheck } from "../fixtures/work.ts";
import { LONG } from "../fixtures/long.ts";

/**
 * Every call that may take long is stopped by its signal and leaves nothing half done. The first stop is asked for as
 * soon as the event loop turns, so a call that never lets it turn is found whatever the machine's speed; one that goes
 * on in spite of its signal by what it reports afterwards. How long it took is only printed: it includes taking back
 * what was made.
 */

const DIRECTORIES = LONG ? 200 : 60;
const FILES = 30;
const POINTS = LONG ? 24 : 12;
const BIG = (LONG ? 64 : 32) << 20;
/** Reports that may be under way when a call is stopped; they come ten times a second, and one stop may take long. */
const LATE_REPORTS = 3;
/** Moments of a stop, as shares of the time that the whole call takes. */
const MOMENTS = LONG ? [0.1, 0.3, 0.6] : [0.3];

type Call = (options: CallOptions) => Promise<unknown>;

function fill(folder: string): void {
  for (let d = 0; d < DIRECTORIES; d++) {
    fs.mkdirSync(path.join(folder, `d${d}`), { recursive: true });
    for (let f = 0; f < FILES; f++)
      fs.writeFileSync(path.join(folder, `d${d}/f${f}`), randomFillSync(Buffer.alloc(600)));
  }
  fs.writeFileSync(path.join(folder, "big"), randomFillSync(Buffer.alloc(BIG)));
}

/** Touches every directory, so that the points on both sides share no tree. */
function change(folder: string): void {
  for (let d = 0; d < DIRECTORIES; d++)
    fs.writeFileSync(path.join(folder, `d${d}/f0`), randomFillSync(Buffer.alloc(600)));
}

interface Stopped {
  /** the code it failed with, or `done` */
  code: string;
  /** from the abort to the end of the call */
  ms: number;
  /** reports after the abort */
  late: number;
}

/** Aborts a call after so many milliseconds; null: when the event loop turns first. */
async function stopAfter(call: Call, ms: number | null): Promise<Stopped> {
  const controller = new AbortController();
  let at = Number.POSITIVE_INFINITY;
  const abort = (): void => {
    at = performance.now();
    controller.abort();
  };
  let late = 0;
  const onProgress = (): void => void (controller.signal.aborted && late++);
  const timer = ms === null ? void setImmediate(abort) : setTimeout(abort, ms);
  const code = await call({ signal: controller.signal, onProgress }).then(
    () => "done",
    (error: unknown) => (error as { code?: string }).code ?? String(error),
  );
  clearTimeout(timer);
  return { code, ms: performance.now() - at, late };
}

/** Stops a call at several moments; `check` says what must hold after each. Ends with the whole call, whose result it returns. */
async function stopOften<T>(
  name: string,
  call: (options: CallOptions) => Promise<T>,
  check: () => unknown,
): Promise<T> {
  const ahead = AbortSignal.abort();
  await assert.rejects(async () => call({ signal: ahead }), { code: "interrupted" }, `${name}: aborted beforehand`);
  const first = await stopAfter(call, null);
  // What is done within that turn could not be stopped.
  const wanted = first.ms === Number.NEGATIVE_INFINITY ? "done" : "interrupted";
  assert.equal(first.code, wanted, `${name}: aborted at the first turn of the event loop`);
  await check();
  const began = performance.now();
  const result = await call({});
  const whole = performance.now() - began;
  const took: number[] = [];
  for (const moment of MOMENTS) {
    let stopped = await stopAfter(call, whole * moment);
    for (let i = 0; i < 3 && stopped.late > LATE_REPORTS; i++) stopped = await stopAfter(call, whole * moment);
    const { code, ms, late } = stopped;
    assert.ok(late <= LATE_REPORTS, `${name}: went on in spite of its signal, with ${late} reports`);
    assert.ok(code === "interrupted" || code === "done", `${name}: ${code}`);
    if (code === "done") continue;
    took.push(ms);
    await check();
  }
  process.stdout.write(
    `# ${name}: ${whole.toFixed(0)} ms; stopped in ${took.map((ms) => ms.toFixed(0)).join(", ")} ms\n`,
  );
  return result;
}

async function drain(pieces: AsyncIterable<Uint8Array>): Promise<number> {
  let bytes = 0;
  for await (const piece of pieces) bytes += piece.length;
  return bytes;
}

describe("abort signals of library calls", () => {
  let folder: string;
  let client: Client;
  /** oldest first */
  const points: string[] = [];
  const tidy = (what: string): void => assertNoLeftovers(client, folder, what);

  before(async () => {
    folder = newFolder("abort");
    fill(folder);
    client = await clientOf(folder);
    points.push((await client.save()).save_point_id);
    change(folder);
    points.push((await client.save()).save_point_id);
    for (let i = points.length; i < POINTS; i++) {
      fs.writeFileSync(path.join(folder, `d${i}/f1`), `point ${i}`);
      points.push((await client.save()).save_point_id);
    }
  });

  test("an abort ends verify, doctor, status, diff, history and restore plans soon, and changes nothing", async () => {
    const [first, second] = points;
    const calls: Record<string, Call> = {
      verify: async (options) => client.verify(first!, options),
      verifyAll: async (options) => client.verifyAll(options),
      doctor: async (options) => client.doctor(options),
      "doctor --repair": async (options) => client.doctor({ ...options, repair: true }),
      status: async (options) => client.status(options),
      "diff of two points": async (options) => client.diff(first!, second!, options),
      "diff with the folder": async (options) => client.diff(first!, null, options),
      "history --path": async (options) => client.history(undefined, 0, { ...options, path: "d1/f1" }),
      "restore --plan": async (options) => client.planRestore({ ...options, target: first! }),
      "show of a file": async (options) => drain(client.read(first!, "big", options)),
    };
    for (const [name, call] of Object.entries(calls)) await stopOften(name, call, () => tidy(name));
    assert.equal((await client.verifyAll()).problems.length, 0);
    for (const call of [
      async (options: CallOptions) => client.show(first!, "", options),
      async (options: CallOptions) => drain(client.read(null, "big", options)),
      async (options: CallOptions) => client.history(undefined, 0, options),
    ])
      await assert.rejects(async () => call({ signal: AbortSignal.abort() }), { code: "interrupted" });
  });

  test("an aborted fork, view or restore --to leaves no partial folder", async () => {
    const [first] = points;
    const parent = newFolder("elsewhere");
    let made = 0;
    const here = (): string[] => fs.readdirSync(parent).filter((name) => !done.has(name));
    const done = new Set<string>();
    const elsewhere = (what: (target: string, options: CallOptions) => Promise<unknown>): Call => {
      return async (options) => {
        const name = `${made++}`;
        await what(path.join(parent, name), options);
        done.add(name);
      };
    };
    const calls: Record<string, Call> = {
      fork: elsewhere(async (target, options) => client.fork(first!, target, options)),
      "fork --standalone": elsewhere(async (target, options) =>
        client.fork(first!, target, { ...options, standalone: true }),
      ),
      "restore --to": elsewhere(async (to, options) => client.restore({ ...options, target: first!, to })),
    };
    for (const [name, call] of Object.entries(calls)) {
      await stopOften(name, call, async () => {
        assert.deepEqual(here(), [], `${name}: nothing is left beside what was made`);
        const partial = path.join(client.controlDirectory, "partial");
        // The first may be stopped before it is made.
        assert.deepEqual(fs.existsSync(partial) ? fs.readdirSync(partial) : [], [], name);
      });
    }
    const views = path.join(client.controlDirectory, "views");
    const view: Call = async (options) => {
      const { view_id: id } = await client.view(first!, options);
      await assert.rejects(client.closeView(id, { signal: AbortSignal.abort() }), { code: "interrupted" });
      await client.closeView(id);
    };
    await stopOften("view", view, async () => {
      assert.deepEqual(await client.listViews(), []);
      assert.deepEqual(fs.readdirSync(views), []);
    });
  });

  test("save and restore report the bytes of one large file, and an abort stops a restore halfway through it", async () => {
    const place = newFolder("large");
    fs.writeFileSync(path.join(place, "big"), randomFillSync(Buffer.alloc(BIG * 3)));
    const own = await clientOf(place);
    const read: number[] = [];
    const { save_point_id: id } = await own.save({
      onProgress: ({ phase, bytes = 0 }) => void (phase === "scanning" && read.push(bytes)),
    });
    assert.deepEqual(
      read,
      read.toSorted((a, b) => a - b),
    );
    assert.ok(
      read.some((bytes) => bytes > 0 && bytes <= BIG * 3),
      read.join(),
    );
    fs.writeFileSync(path.join(place, "big"), "something else");
    const before = readFolder(place);
    const controller = new AbortController();
    const written: [number, number | undefined][] = [];
    const onProgress = ({ phase, bytes = 0, total_bytes: total }: Progress): void => {
      if (phase !== "restoring" || bytes === 0) return;
      written.push([bytes, total]);
      controller.abort();
    };
    await assert.rejects(own.restore({ target: id, signal: controller.signal, onProgress }), { code: "interrupted" });
    assert.ok(written[0]![0] < BIG * 3, "it was stopped before the file was whole");
    assert.equal(written[0]![1], BIG * 3);
    assert.equal(written.length, 1);
    assertFolder(place, before, "nothing was touched");
    assertNoLeftovers(own, place, "stopped");
  });

  test("a restore interrupted while it exchanges entries is rolled back, and undo reverts the earlier restore", async () => {
    const place = newFolder("stopped");
    const own = await clientOf(place);
    const write = (text: string): void => ["a", "b"].forEach((name) => fs.writeFileSync(path.join(place, name), text));
    write("first");
    const { save_point_id: first } = await own.save();
    write("unsaved");
    await own.restore({ target: first });
    write("second");
    fs.writeFileSync(path.join(place, "c"), "second");
    await own.save();
    const before = readFolder(place);
    const hold = path.join(SCRATCH, "held-restore");
    fs.writeFileSync(hold, "");
    const run = startCairn(["restore", first, "-C", place], { env: { CAIRN_FAILPOINT: `restore.swapped@${hold}` } });
    await run.paused;
    assert.equal(fs.readFileSync(path.join(place, "a"), "utf8"), "first");
    run.child.kill("SIGINT");
    fs.rmSync(hold);
    const ended = await run.ended;
    assert.deepEqual([ended.status, ended.error?.code], [130, "interrupted"]);
    assert.match(ended.error!.message, /taken back: the folder is as it was before$/);
    assertFolder(place, before, "taken back");
    // What was written after the first restore is an edit.
    await own.undo({ over: true });
    assert.equal(fs.readFileSync(path.join(place, "a"), "utf8"), "unsaved");
    assertNoLeftovers(own, place, "taken back");
  });

  test("an aborted cleanup removes either no point or every point that its plan lists", async () => {
    const retention = { keepLast: 2 };
    const preview = async (options: CallOptions): Promise<unknown> => client.previewCleanup({ ...options, retention });
    await stopOften("cleanup --plan", preview, () => undefined);
    const before = (await client.history(undefined, 0, { all: true })).save_points.length;
    const { plan_id: plan, reclaimable_save_points: listed } = await client.previewCleanup({ retention });
    const run = async (options: CallOptions): Promise<unknown> => client.runCleanup({ ...options, retention, plan });
    assert.ok(listed.length > POINTS / 2);
    await assert.rejects(run({ signal: AbortSignal.abort() }), { code: "interrupted" });
    assert.equal(
      (await client.history(undefined, 0, { all: true })).save_points.length,
      before,
      "stopped before its commit",
    );
    // Stopped once the points are gone: the rest is for whoever comes next.
    const controller = new AbortController();
    const onProgress = ({ phase, done }: { phase: string; done: number }): void => {
      if (phase === "cleaning" && done > 0) controller.abort();
    };
    await assert.rejects(run({ signal: controller.signal, onProgress }), { code: "interrupted" });
    assert.equal((await client.history(undefined, 0, { all: true })).save_points.length, before - listed.length);
    const { recovered } = await client.status();
    assert.deepEqual(
      recovered.map(({ operation, outcome }) => [operation, outcome]),
      [["cleanup", "completed"]],
    );
    await assert.rejects(run({}), { code: "stale_plan" });
    assert.deepEqual((await client.verifyAll()).problems, []);
    tidy("cleanup");
    resticCheck(client, "cleanup");
  });

  test("an aborted doctor --repair ends soon and can be repeated", async () => {
    const data = path.join(client.controlDirectory, "store/data");
    const packs = fs
      .readdirSync(data, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.join(entry.parentPath, entry.name))
      .toSorted((a, b) => fs.statSync(b).size - fs.statSync(a).size);
    const [pack] = packs;
    fs.chmodSync(pack!, 0o600);
    const fd = fs.openSync(pack!, "r+");
    fs.writeSync(fd, Buffer.alloc(16, 0x55), 0, 16, 1000);
    fs.closeSync(fd);
    assert.ok((await client.verifyAll()).problems.length > 0);
    const stopped = await stopAfter(async (options) => client.doctor({ ...options, repair: true }), null);
    assert.equal(stopped.code, "interrupted");
    const later = await stopAfter(async (options) => client.doctor({ ...options, repair: true }), 150);
    assert.ok(later.code === "interrupted" || later.code === "done", later.code);
    await client.doctor({ repair: true });
    // What the pack held is lost for good; nothing else is.
    const left = (await client.verifyAll()).problems;
    assert.deepEqual(
      [...new Set(left.map(({ kind }) => kind))].toSorted(),
      ["content"],
      JSON.stringify(left.slice(0, 9)),
    );
  });
});

test("an aborted seal leaves the point unsealed and no snapshot in the store", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill, options: { size: 768 << 20 } });
  if (place === null) return;
  const { client, folder } = place;
  const before = readFolder(folder);
  await client.save();
  const seals: Call = async (options) => client.seal(options);
  const first = await stopAfter(seals, null);
  assert.equal(first.code, "interrupted");
  for (const ms of [20, 60, 200]) {
    const { code } = await stopAfter(seals, ms);
    assert.ok(code === "interrupted" || code === "done", code);
    if (code === "done") break;
    assert.equal((await client.history(undefined, 0, { all: true })).save_points[0]!.sealed, false);
    const stray = fs.readdirSync(path.join(client.controlDirectory, "store/snapshots"));
    assert.deepEqual(stray, [], "no snapshot of a point that is not sealed");
  }
  await client.seal();
  assert.equal((await client.history(undefined, 0, { all: true })).save_points[0]!.sealed, true);
  assert.deepEqual((await client.verifyAll()).problems, []);
  assertFolder(folder, before, "the folder is as it was");
});
