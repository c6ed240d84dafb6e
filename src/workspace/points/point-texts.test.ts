import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { descriptorOf } from "../../../test/fixtures/descriptor.ts";
import { newPacer } from "../../pacer.ts";
import { folded } from "./point-texts.ts";
import { Points } from "./points.ts";

interface Scene {
  points: Points;
  paths: { points: string; catalog: string; texts: string };
  /** The file of the first points' rows. */
  file: string;
}

function scene(t: TestContext, messages: readonly string[]): Scene {
  const root = mkdtempSync(join(tmpdir(), "cairn-texts-"));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const paths = { points: join(root, "points"), catalog: join(root, "catalog"), texts: join(root, "texts") };
  mkdirSync(paths.points);
  const points = new Points(paths);
  for (const message of messages) commit(points, { message });
  return { points, paths, file: join(paths.texts, "000000") };
}

function commit(points: Points, changes: Parameters<typeof descriptorOf>[1]): void {
  const sequence = points.nextSequence();
  const descriptor = descriptorOf(sequence, changes);
  points.claim(sequence, descriptor.save_point_id);
  points.commit(descriptor);
}

/** Finds the numbers of the points with a text, newest first, and how many points were read for that. */
async function find(points: Points, text: string): Promise<{ found: number[]; read: number }> {
  const found: number[] = [];
  let read = 0;
  for await (const listed of points.texts(points.listed({}), newPacer(undefined)))
    for (const known of listed) {
      if (!("row" in known)) continue;
      if (known.point !== undefined) read++;
      if (known.row.text.includes(folded(text))) found.push(known.sequence);
    }
  return { found, read };
}

test("texts reads each point once, finds folded UTF-8 texts, tags and causes, and reads a new point only", async (t) => {
  const { points, paths } = scene(t, ["Größe\nund Maß", "second", "third"]);
  commit(points, { message: "x", tags: ["Release"], cause: { kind: "command", command: ["make", "ΟΔΟΣ"] } });
  assert.deepEqual(await find(points, "GRÖSSE"), { found: [], read: 4 });
  const fresh = new Points(paths);
  assert.deepEqual(await find(fresh, "größe\nUND"), { found: [1], read: 0 });
  assert.deepEqual(await find(fresh, "release"), { found: [4], read: 0 });
  assert.deepEqual(await find(fresh, "οδος"), { found: [4], read: 0 });
  commit(fresh, { message: "a fifth" });
  assert.deepEqual(await find(fresh, "fifth"), { found: [5], read: 1 });
  assert.deepEqual(await find(fresh, "fifth"), { found: [5], read: 0 });
});

test("texts follows edited tags, replaced causes and removed points, also under a reused number", async (t) => {
  const { points, file } = scene(t, ["one", "two", "three"]);
  await find(points, "");
  points.writeTags(2, ["Edited"]);
  assert.deepEqual(await find(points, "edited"), { found: [2], read: 1 });
  points.replaceCauses([{ point: points.read(1), by: { message: "(removed)", cause: { kind: "person" } } }]);
  assert.doesNotMatch(readFileSync(file, "utf8"), /one/);
  assert.deepEqual(
    [await find(points, "one"), await find(points, "removed")],
    [
      { found: [], read: 1 },
      { found: [1], read: 0 },
    ],
  );
  points.remove(3);
  assert.doesNotMatch(readFileSync(file, "utf8"), /three/);
  commit(points, { message: "another" });
  assert.deepEqual(await find(points, "three"), { found: [], read: 1 });
  assert.deepEqual(await find(points, "another"), { found: [3], read: 0 });
  points.removeAll([1, 2, 3]);
  assert.equal(existsSync(file), false);
});

test("texts reads points again whose rows are lost, cut, damaged, of another version or of other points", async (t) => {
  const { points, paths, file } = scene(t, ["one", "two", "three"]);
  await find(points, "");
  const whole = readFileSync(file);
  const harms: Record<string, () => void> = {
    lost: () => rmSync(paths.texts, { recursive: true }),
    cut: () => truncateSync(file, whole.length - 5),
    "cut in its head": () => truncateSync(file, 9),
    "a flipped bit": () =>
      writeFileSync(
        file,
        whole.map((byte, at) => (at === 70 ? byte ^ 1 : byte)),
      ),
    "another version": () => writeFileSync(file, whole.toString("latin1").replace("texts 1", "texts 2"), "latin1"),
    nonsense: () => writeFileSync(file, "nonsense\n".repeat(90)),
    "a length beyond the end": () => writeFileSync(file, "cairn-texts 1 00000000 9999999999\n"),
    "a directory in its place": () => {
      rmSync(file);
      mkdirSync(file);
    },
  };
  for (const [name, harm] of Object.entries(harms)) {
    harm();
    assert.deepEqual(await find(new Points(paths), "two"), { found: [2], read: 3 }, name);
    if (name.startsWith("a directory")) rmSync(file, { recursive: true });
    else assert.deepEqual(await find(new Points(paths), "two"), { found: [2], read: 0 }, `${name}, again`);
    rmSync(paths.texts, { recursive: true, force: true });
    mkdirSync(paths.texts);
    writeFileSync(file, whole);
  }
  // As in a control directory of which an older copy was put back: the numbers belong to other points.
  const other = scene(t, ["one", "zwei", "three"]);
  mkdirSync(other.paths.texts);
  writeFileSync(other.file, whole);
  assert.deepEqual(await find(other.points, "zwei"), { found: [2], read: 3 });
});

test("texts keeps no row that is long, and no prompt or command of an agent's event", async (t) => {
  const { points, paths } = scene(t, ["short", `${"long ".repeat(4000)}end`]);
  const event = { kind: "tool_call", event: "PreToolUse" };
  commit(points, { cause: { ...event, prompt: "sk-live-1" } });
  commit(points, { cause: { ...event, command: "sk-live-2" } });
  for (let round = 0; round < 2; round++) {
    assert.deepEqual((await find(points, "end")).found, [2]);
    assert.deepEqual(await find(points, "sk-live"), { found: [4, 3], read: 3 });
  }
  const kept = readdirSync(paths.texts).map((name) => readFileSync(join(paths.texts, name), "latin1"));
  assert.ok(kept.join("").length < 1000 && !kept.join("").includes("sk-live"));
});

test("a reader that read a point before a removal or a new tag adds no row of it afterwards", async (t) => {
  for (const isCached of [true, false]) {
    const { points, paths, file } = scene(t, ["one", "two"]);
    if (isCached) await find(points, "");
    commit(points, { message: "secret" });
    const reader = new Points(paths);
    const walk = reader.texts(reader.listed({}), newPacer(undefined));
    await walk.next();
    // The reader has read all three, and appends when it goes on.
    points.remove(3);
    points.writeTags(2, ["later"]);
    await walk.next();
    assert.ok(!existsSync(file) || !readFileSync(file, "utf8").includes("secret"));
    assert.deepEqual((await find(new Points(paths), "later")).found, [2]);
  }
});

test("a change that was killed leaves none of the point's text, and readers add none until the next change", async (t) => {
  const { points, paths, file } = scene(t, ["one", "two", "three"]);
  await find(points, "");
  const script = `
    process.env.CAIRN_FAILPOINT = "texts.withdrawn";
    const { Points } = await import(${JSON.stringify(new URL("points.ts", import.meta.url).href)});
    new Points(${JSON.stringify(paths)}).remove(2);`;
  assert.equal(spawnSync(process.execPath, ["--input-type=module", "-e", script]).signal, "SIGKILL");
  for (let round = 0; round < 2; round++) {
    assert.deepEqual(await find(new Points(paths), "two"), { found: [2], read: 1 });
    assert.ok(!readFileSync(file, "utf8").includes("two"));
  }
  points.writeTags(1, ["x"]);
  await find(new Points(paths), "");
  assert.deepEqual(await find(new Points(paths), "two"), { found: [2], read: 0 });
});

test("rows of thousands of points lie in several files, and a change touches only its own", async (t) => {
  const { points, paths } = scene(t, []);
  for (const sequence of [1, 1023, 1024, 5000]) {
    const descriptor = descriptorOf(sequence, { message: `number ${sequence}` });
    points.claim(sequence, descriptor.save_point_id);
    points.commit(descriptor);
  }
  assert.deepEqual(await find(points, "number"), { found: [5000, 1024, 1023, 1], read: 4 });
  const contents = (): string[] =>
    readdirSync(paths.texts).map((name) => readFileSync(join(paths.texts, name), "utf8"));
  const before = contents();
  points.remove(5000);
  assert.deepEqual(contents(), before.slice(0, 2));
  // Whoever may only read uses the rows that are there.
  appendFileSync(join(paths.texts, "000000"), "");
  assert.deepEqual(await find(new Points(paths), "number 10"), { found: [1024, 1023], read: 0 });
});
