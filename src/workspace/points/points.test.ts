import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { descriptorOf } from "../../../test/fixtures/descriptor.ts";
import { countFileCalls } from "../../../test/fixtures/file-calls.ts";
import { CairnError } from "../../errors.ts";
import type { Descriptor } from "../../formats/records/descriptor.ts";
import { newSavePointId, type SavePointId } from "../../ids.ts";
import { encodeDescriptorFile, MAX_DESCRIPTOR_BYTES } from "./point-files.ts";
import { Points } from "./points.ts";
import { requireChosenId, resolveTarget } from "./targets.ts";

function scratch(context: TestContext): { paths: { points: string; catalog: string; texts: string }; points: Points } {
  const directory = mkdtempSync(join(tmpdir(), "cairn-points-"));
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  const [points, catalog, texts] = ["points", "catalog", "texts"].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  const paths = { points, catalog, texts };
  mkdirSync(paths.points);
  return { paths, points: new Points(paths) };
}

function save(points: Points, changes: Partial<Descriptor> = {}): SavePointId {
  const sequence = points.nextSequence();
  points.claim(sequence, newSavePointId());
  return points.commit(descriptorOf(sequence, changes)).descriptor.save_point_id;
}

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === code;
}

test("Points.list returns the newest points first, at most as many as the limit", (context) => {
  const { points } = scratch(context);
  assert.deepEqual(points.list(), { points: [], damaged: [], truncated: false });
  const ids = [1, 2, 3, 4].map(() => save(points));
  const { points: two, truncated } = points.list({ limit: 2 });
  assert.deepEqual(
    two.map((point) => point.descriptor.save_point_id),
    [ids[3], ids[2]],
  );
  assert.equal(truncated, true);
  assert.deepEqual(
    points.list({ before: 3 }).points.map((point) => point.sequence),
    [2, 1],
  );
  assert.equal(points.list({ limit: 4 }).truncated, false);
});

test("Points.claim throws conflict if the sequence number is already claimed", (context) => {
  const { points } = scratch(context);
  const sequence = points.nextSequence();
  points.claim(sequence, newSavePointId());
  assert.throws(() => points.claim(sequence, newSavePointId()), hasCode("conflict"));
  assert.equal(points.nextSequence(), sequence + 1);
  assert.deepEqual(points.list().points, [], "a claim is no point");
  points.abandon(sequence);
  assert.equal(points.nextSequence(), sequence);
});

test("Points.commit throws conflict if the writer's claim was removed", (context) => {
  const { points } = scratch(context);
  points.claim(1, newSavePointId());
  assert.deepEqual(points.removeLeftovers(), ["0000000001"]);
  assert.throws(() => points.commit(descriptorOf(1)), hasCode("conflict"));
  points.claim(1, newSavePointId());
  points.commit(descriptorOf(1));
  assert.throws(() => points.commit(descriptorOf(1)), hasCode("conflict"));
  points.abandon(1);
  assert.equal(points.committed().length, 1);
});

test("Points.list reports damaged descriptors and still returns the other points", (context) => {
  const { points, paths } = scratch(context);
  const ids = [1, 2, 3, 4].map(() => save(points));
  writeFileSync(points.pathsOf(2).descriptor, "{}");
  writeFileSync(points.pathsOf(3).descriptor, encodeDescriptorFile(descriptorOf(9)));
  for (const fresh of [points, new Points(paths)]) {
    const { points: healthy, damaged } = fresh.list();
    assert.deepEqual(
      healthy.map((point) => point.sequence),
      [4, 1],
    );
    assert.deepEqual(
      damaged.map((each) => [each.sequence, each.id, each.problem.code]),
      [
        [3, ids[2], "damaged"],
        [2, ids[1], "damaged"],
      ],
    );
  }
  assert.throws(() => resolveTarget(points, ids[1]!, ids[3]!), hasCode("damaged"));
  assert.throws(() => resolveTarget(points, "head~1", ids[3]!), hasCode("damaged"));
  assert.equal(resolveTarget(points, "head~3", ids[3]!).sequence, 1);
});

test("Points.commit refuses a descriptor that is too long, and the claim can be abandoned", (context) => {
  const { points } = scratch(context);
  save(points);
  points.claim(2, newSavePointId());
  const degraded = ["r".repeat(MAX_DESCRIPTOR_BYTES)];
  assert.throws(() => points.commit(descriptorOf(2, { degraded })), hasCode("unsupported"));
  points.abandon(2);
  assert.deepEqual(points.sequences(), [1]);
});

test("Points.list reports a descriptor of a newer version with the code newer_version", (context) => {
  const { points } = scratch(context);
  save(points);
  const bytes = readFileSync(points.pathsOf(1).descriptor, "utf8").replace('"version":1', '"version":4');
  writeFileSync(points.pathsOf(1).descriptor, bytes);
  assert.equal(points.list().damaged[0]?.problem.code, "newer_version");
});

test("pins, edited tags and verifications do not change the descriptor's checksum", (context) => {
  const { points } = scratch(context);
  save(points);
  const { checksum, tags } = points.read(1);
  assert.deepEqual(tags, ["made"]);
  points.writePin(1, { at: "2026-11-20T09:10:11.000Z", reason: "kept" });
  points.writeTags(1, ["edited"]);
  points.writeVerification(1, { at: "2026-11-20T09:10:11.000Z", ok: true, problems: [] });
  const after = points.read(1);
  assert.deepEqual(
    [after.checksum, after.tags, after.pin?.reason, after.verification?.ok],
    [checksum, ["edited"], "kept", true],
  );
  points.writePin(1, null);
  assert.equal(points.read(1).pin, null);
});

test("a point with an unreadable pin file stays pinned and has a problem", (context) => {
  const { points } = scratch(context);
  save(points);
  writeFileSync(points.pathsOf(1).pin, "?");
  const point = points.read(1);
  assert.notEqual(point.pin, null);
  assert.equal(point.problems.length, 1);
});

test("a target can be an id, a prefix of an id, or a word such as latest or head~1", (context) => {
  const { points } = scratch(context);
  const first = save(points, { save_point_id: `abcd1${"0".repeat(27)}` as SavePointId });
  const second = save(points, { save_point_id: `abcd2${"0".repeat(27)}` as SavePointId });
  const undo = save(points, {
    save_point_id: "e".repeat(32) as SavePointId,
    undo: true,
    cause: { kind: "restore" },
  });
  const idOf = (target: string, head: SavePointId | null = second): string =>
    resolveTarget(points, target, head).descriptor.save_point_id;
  assert.equal(idOf(first), first);
  assert.equal(idOf("abcd2"), second);
  assert.equal(idOf("ABCD2"), second);
  assert.equal(idOf("latest"), second);
  assert.equal(idOf("head"), second);
  assert.equal(idOf("head~1"), first);
  assert.equal(idOf("head~"), first);
  assert.equal(idOf("head~0"), second);
  assert.equal(idOf("head~1", undo), second);
  assert.throws(() => idOf("head~2"), hasCode("not_found"));
  for (const [target, id] of [
    ["HEAD", second],
    ["@", second],
    ["HEAD~1", first],
    ["@~1", first],
    ["HEAD^", first],
    ["head^", first],
  ] as const)
    assert.equal(idOf(target), id, target);
  assert.throws(() => idOf("HEAD^^"), hasCode("not_found"));
  const other = save(points, { save_point_id: `9${"0".repeat(31)}` as SavePointId });
  assert.equal(idOf("9000"), other);
  assert.throws(() => idOf("900"), hasCode("invalid_id"));
  assert.throws(() => idOf("../../etc"), hasCode("invalid_id"));
  assert.throws(() => idOf("0".repeat(33)), hasCode("invalid_id"));
  assert.throws(() => idOf("fffff"), hasCode("not_found"));
  assert.throws(() => idOf("head", null), hasCode("not_found"));
  assert.throws(
    () => idOf("abcd"),
    (error) => hasCode("ambiguous")(error) && (error as CairnError).details?.["candidates"] !== undefined,
  );
});

test("a target that equals a chosen id means its point, although other ids begin with the same characters", (context) => {
  const { points } = scratch(context);
  const hex = save(points, { chosen_id: "1a2b3c4d" });
  const word = save(points, { chosen_id: "step-12", tags: ["step-12"] });
  const dated = save(points, { chosen_id: "2026-05-01 a" });
  const longer = save(points, { chosen_id: "step-123" });
  const other = save(points, { save_point_id: `1a2b3c4d${"7".repeat(24)}` as SavePointId, tags: ["step-1"] });
  const idOf = (target: string): string => resolveTarget(points, target, other).descriptor.save_point_id;
  for (const [target, id] of [
    ["1a2b3c4d", hex],
    ["1A2B3C4D7", other],
    ["step-12", word],
    ["step-123", longer],
    ["2026-05-01 a", dated],
    ["step-1", other],
    [hex, hex],
  ] as const)
    assert.equal(idOf(target), id, target);
  assert.throws(() => idOf("1a2b3c"), hasCode("ambiguous"));
  assert.throws(() => idOf("step"), hasCode("ambiguous"));
  for (const id of ["1a2b3c4d", "step-12", "step-1", other.slice(0, 12)])
    assert.throws(() => requireChosenId(points, id, false), hasCode("already_exists"), id);
  for (const id of ["latest", "HEAD", "head~2", "yesterday", "a b", "@"])
    assert.throws(() => requireChosenId(points, id, false), hasCode("invalid_id"), id);
  for (const id of ["0123abcd", "12", "headline", "a.b_c-d"]) requireChosenId(points, id, false);
  for (const id of ["a b", "2026-05-02"]) requireChosenId(points, id, true);
});

test("a chosen id may begin another point's id, and a refusal tells what has it", (context) => {
  const { points } = scratch(context);
  const other = save(points, { save_point_id: `57c0ffee${"1".repeat(24)}` as SavePointId, tags: ["v1"] });
  for (const id of ["5", "57", "57c", "57c0", "57C0FFE"]) requireChosenId(points, id, false);
  const step = save(points, { chosen_id: "57c0" });
  const idOf = (target: string): string => resolveTarget(points, target, other).descriptor.save_point_id;
  assert.deepEqual([idOf("57c0"), idOf("57c0f")], [step, other]);
  for (const [id, reason] of [
    ["57c0", /already has the id 57c0$/],
    ["v1", /57c0ffee already has the tag v1$/],
    ["57c0ffee-x", /57c0ffee already has an id that begins with 57c0ffee$/],
  ] as const)
    assert.throws(() => requireChosenId(points, id, false), reason);
});

test("an id that an agent chose does not hide a person's later tag or another point's id", (context) => {
  const { points } = scratch(context);
  const cause: Descriptor["cause"] = { kind: "tool_call" };
  for (const chosen_id of ["release", "abcd1234"]) save(points, { cause, chosen_id, tags: [chosen_id] });
  const kept = save(points, { cause, chosen_id: "step", tags: ["step"] });
  const person = save(points, { save_point_id: `abcd1234${"7".repeat(24)}` as SavePointId, tags: ["release"] });
  const idOf = (target: string): string => resolveTarget(points, target, person).descriptor.save_point_id;
  assert.equal(idOf("release"), person);
  assert.equal(idOf("step"), kept);
  assert.throws(() => idOf("abcd1234"), hasCode("ambiguous"));
  const begun = `${person.slice(0, 8)}-x`;
  assert.throws(() => requireChosenId(points, begun, false), hasCode("already_exists"));
});

test("undo points do not count in head~N", (context) => {
  const { points } = scratch(context);
  const first = save(points);
  save(points, { undo: true });
  const second = save(points);
  save(points, { undo: true });
  const third = save(points);
  const idOf = (target: string): string => resolveTarget(points, target, third).descriptor.save_point_id;
  assert.deepEqual([idOf("head~1"), idOf("head~2")], [second, first]);
  assert.throws(() => idOf("head~3"), hasCode("not_found"));
});

test("a time as a target means the newest point saved at or before that time", (context) => {
  const { points } = scratch(context);
  const now = new Date(2026, 10, 24, 15, 30, 20).getTime();
  const at = (...given: [number, number, number]): string => new Date(2026, 10, ...given).toISOString();
  const old = save(points, { created_at: at(22, 9, 0) });
  const noon = save(points, { created_at: at(23, 12, 0) });
  save(points, { created_at: at(23, 12, 30), undo: true });
  const evening = save(points, { created_at: at(23, 20, 0) });
  const today = save(points, { created_at: at(24, 14, 0) });
  const idOf = (target: string): string => resolveTarget(points, target, today, now).descriptor.save_point_id;
  for (const [target, id] of [
    ["yesterday", evening],
    ["yesterday 13:00", noon],
    ["2026-11-23", evening],
    ["2026-11-23 12:00", noon],
    ["2026-11-23T11:59", old],
    [new Date(2026, 10, 23, 20, 0).toISOString(), evening],
    ["14:00", today],
    ["13:59:59", evening],
    ["2 hours ago", evening],
    ["an hour ago", today],
    ["120 min ago", evening],
    ["2h ago", evening],
    ["120m", evening],
    ["2h", evening],
    ["2 days", old],
    ["last hour", today],
    ["now", today],
    ["2 days ago", old],
    ["today", today],
  ] as const)
    assert.equal(idOf(target), id, target);
  assert.throws(() => idOf("3 weeks ago"), hasCode("not_found"));
  for (const target of ["tomorrow", "25:00", "2026-02-30", "2026-13-01", "ago", "1 fortnight ago"])
    assert.throws(() => idOf(target), hasCode("invalid_id"), target);
});

test("Points.latest returns the newest point that is not an undo point, or null if there is none", (context) => {
  const { points } = scratch(context);
  assert.equal(points.latest(), null);
  save(points, { undo: true });
  assert.equal(points.latest(), null);
  save(points);
  // A cause that a program chose itself.
  const id = save(points, { cause: { kind: "undo" } });
  save(points, { undo: true, cause: { kind: "restore" } });
  assert.equal(points.latest()?.descriptor.save_point_id, id);
});

test("points are found even if the point catalog is empty, cut or wrong", (context) => {
  const { points, paths } = scratch(context);
  const ids = [1, 2, 3].map(() => save(points));
  const whole = readFileSync(paths.catalog);
  const wrong = Buffer.from(whole.toString().replaceAll(/ [0-9a-f]{32} s/g, ` ${"0".repeat(32)} s`));
  for (const bytes of [Buffer.alloc(0), whole.subarray(0, 100), wrong, Buffer.from("nonsense\n9999999999 x\n")]) {
    writeFileSync(paths.catalog, bytes);
    const fresh = new Points(paths);
    for (const id of ids) assert.equal(fresh.byId(id)?.descriptor.save_point_id, id);
    assert.equal(fresh.latest()?.descriptor.save_point_id, ids[2]);
    assert.equal(fresh.nextSequence(), 4);
  }
  writeFileSync(paths.catalog, whole.subarray(0, 100));
  const fresh = new Points(paths);
  save(fresh);
  assert.equal(new Points(paths).ids().size, 4);
});

test("Points.byId does not find a removed point, even if a new point has the same sequence number", (context) => {
  const { points, paths } = scratch(context);
  const first = save(points);
  const second = save(points);
  assert.equal(points.remove(2), true);
  assert.equal(points.remove(2), false);
  points.claim(2, newSavePointId());
  const third = descriptorOf(2);
  writeFileSync(points.pathsOf(2).descriptor, encodeDescriptorFile(third));
  const fresh = new Points(paths);
  assert.equal(fresh.byId(second), null);
  assert.equal(fresh.byId(third.save_point_id)?.sequence, 2);
  assert.equal(fresh.byId(first)?.sequence, 1);
});

test("a killed commit or remove leaves a complete point or none, and removeLeftovers removes the rest", (context) => {
  const { paths } = scratch(context);
  const script = (failpoint: string): string => `
    process.env.CAIRN_FAILPOINT = ${JSON.stringify(failpoint)};
    const { Points } = await import(${JSON.stringify(new URL("points.ts", import.meta.url).href)});
    const points = new Points(${JSON.stringify(paths)});
    const sequence = points.nextSequence();
    points.claim(sequence, ${JSON.stringify(newSavePointId())});
    points.commit({ ...${JSON.stringify(descriptorOf(1))}, sequence });
    points.remove(sequence);`;
  for (const [name, left] of [
    ["point-claimed", 0],
    ["point-before-descriptor", 0],
    ["point-committed", 1],
    ["point-removed", 0],
  ] as const) {
    const child = spawnSync(process.execPath, ["--input-type=module", "-e", script(name)]);
    assert.equal(child.signal, "SIGKILL", `${name}: ${child.stderr.toString()}`);
    const points = new Points(paths);
    assert.equal(points.list().points.length, left, name);
    points.removeLeftovers();
    assert.deepEqual(readdirSync(paths.points).length, left, name);
    for (const sequence of points.committed()) points.remove(sequence);
  }
});

test("listing 20 of 3000 points, or finding one by prefix or as the latest, reads only the returned points", (context) => {
  const { points, paths } = scratch(context);
  const descriptor = descriptorOf(1);
  let lines = "";
  let last = descriptor.save_point_id;
  for (let sequence = 1; sequence <= 3000; sequence++) {
    last = newSavePointId();
    mkdirSync(points.pathsOf(sequence).root);
    writeFileSync(
      points.pathsOf(sequence).descriptor,
      // A call that reads this point reports damage.
      sequence > 2980 ? encodeDescriptorFile({ ...descriptor, save_point_id: last, sequence }) : "damaged",
    );
    lines += `${String(sequence).padStart(10, "0")} ${last} s\n`;
  }
  appendFileSync(paths.catalog, lines);
  const started = performance.now();
  const list = countFileCalls(context, () => {
    const listed = new Points(paths).list({ limit: 20 });
    assert.deepEqual([listed.points.length, listed.damaged.length, listed.truncated], [20, 0, true]);
  });
  const prefix = countFileCalls(context, () => assert.equal(new Points(paths).withPrefix(last.slice(0, 12)).length, 1));
  const latest = countFileCalls(context, () => assert.equal(new Points(paths).latest()?.sequence, 3000));
  context.diagnostic(`${(performance.now() - started).toFixed(1)} ms for a list, a prefix and the latest`);
  // Each point is opened and read, and three names beside it are looked up; the catalog comes as a whole.
  assert.ok(list >= 20 && list < 160, `${list} calls for the list`);
  assert.ok(prefix < 20 && latest < 20, `${prefix} calls for a prefix, ${latest} for the latest`);
});

test("Points.claim succeeds at the second try if another process took the number within one clock tick", (context) => {
  const { paths, points } = scratch(context);
  const past = new Date(Date.now() - 60_000 + 0.5);
  utimesSync(paths.points, past, past);
  assert.equal(points.nextSequence(), 1);
  mkdirSync(join(paths.points, "0000000001"));
  utimesSync(paths.points, past, past);
  assert.throws(() => points.claim(points.nextSequence(), newSavePointId()), hasCode("conflict"));
  points.claim(points.nextSequence(), newSavePointId());
  assert.deepEqual(points.sequences(), [1, 2]);
});

test(
  "Points.claim leaves no directory if the disk is full",
  { skip: spawnSync("mount", ["--version"]).error !== undefined || process.geteuid?.() !== 0 },
  (context) => {
    const { paths, points } = scratch(context);
    // Room for directories only.
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=4k,nr_inodes=4", "none", paths.points]).status !== 0)
      return context.skip("mounting is not allowed");
    try {
      writeFileSync(join(paths.points, "filler"), Buffer.alloc(4096));
      assert.throws(() => points.claim(1, newSavePointId()), hasCode("no_space"));
      assert.deepEqual(readdirSync(paths.points), ["filler"]);
    } finally {
      spawnSync("umount", ["--lazy", paths.points]);
    }
  },
);
