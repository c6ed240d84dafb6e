import assert from "node:assert/strict";
import type { Client } from "../../contract/index.ts";
import type { CairnError } from "../../errors.ts";
import type { SavePointId } from "../../ids.ts";
import { hasCode, testFolder, type TestFolder } from "../../keep/testing-folder.ts";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import type { BisectTest } from "./bisect.ts";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import fs from "node:fs";

/** Saves points whose file `n` has the numbers from 0 on. */
async function series(t: TestContext, count: number): Promise<TestFolder & { ids: SavePointId[] }> {
  const place = await testFolder(t, { other: "as ever" });
  const ids: SavePointId[] = [];
  for (let i = 0; i < count; i++) ids.push(await next(place, i));
  return { ...place, ids };
}

async function next({ client, write }: Pick<TestFolder, "client" | "write">, number: number): Promise<SavePointId> {
  write("n", String(number));
  return (await client.save({ message: `number ${number}` })).save_point_id;
}

/** The command that is happy with numbers below `bad` and skips those of `skipped`. */
function below(bad: number, skipped: readonly number[] = []): string[] {
  return ["sh", "-c", `n=$(cat n); case " ${skipped.join(" ")} " in *" $n "*) exit 125;; esac; [ $n -lt ${bad} ]`];
}

function verdicts(ids: readonly string[], tested: readonly BisectTest[]): [number, string][] {
  return tested.map(({ save_point_id: id, verdict }) => [ids.indexOf(id), verdict]);
}

function assertNothingLeft({ controlDirectory }: Client): void {
  assert.deepEqual(fs.readdirSync(join(controlDirectory, "tmp")), []);
}

for (const [count, bad] of [
  [17, 1],
  [17, 8],
  [17, 16],
  [2, 1],
  [3, 2],
] as const)
  test(`bisect finds the first bad point of ${count}, number ${bad}, in as few runs as a binary search`, async (t) => {
    const { client, ids } = await series(t, count);
    const told: string[] = [];
    const found = await client.bisect(ids[0]!, "latest", below(bad), {
      onTest: ({ message }, step, steps) => told.push(`${message}: ${step} of ${steps}`),
    });
    assert.equal(found.first_bad?.save_point_id, ids[bad]);
    assert.equal(found.first_bad?.message, `number ${bad}`);
    assert.equal(found.last_good, ids[bad - 1]);
    assert.deepEqual(found.candidates, []);
    assert.ok(found.tested.length <= Math.ceil(Math.log2(count - 1)), `${found.tested.length} runs`);
    assert.equal(told.length, found.tested.length);
    if (count === 17) assert.equal(told[0], "number 8: 1 of 4");
    assertNothingLeft(client);
  });

test("bisect runs the command in a folder with the point's content, with the point's id in CAIRN_BISECT_POINT", async (t) => {
  const { client, ids, root, folder } = await series(t, 3);
  const seen = join(root, "seen");
  await client.bisect(ids[0]!, ids[2]!, [
    "sh",
    "-c",
    `ls > ${seen}; cat n >> ${seen}; echo " $CAIRN_BISECT_POINT" >> ${seen}; pwd >> ${seen}; echo more > other; exit 1`,
  ]);
  const [n, other, point, where] = fs.readFileSync(seen, "utf8").trimEnd().split("\n");
  assert.deepEqual([n, other, point], ["n", "other", `1 ${ids[1]}`]);
  assert.ok(where!.startsWith(client.controlDirectory) && !fs.existsSync(where!));
  assert.equal(fs.readFileSync(join(folder, "other"), "utf8"), "as ever");
});

test("bisect changes neither the workspace's folder nor head nor any point", async (t) => {
  const { client, ids, folder, write } = await series(t, 9);
  await client.restore({ target: ids[7]! });
  write("n", "unsaved");
  const facts = async (): Promise<unknown> => [
    walkDigests(folder),
    await client.history(undefined, 0, { all: true }),
    (await client.status()).changes,
  ];
  const before = await facts();
  await client.bisect(ids[0]!, ids[8]!, ["sh", "-c", "n=$(cat n); rm -r other n; mkdir n; [ $n -lt 3 ]"]);
  assert.deepEqual(await facts(), before);
  assertNothingLeft(client);
});

test("bisect skips a point if the command ends with status 125, and still finds the first bad point", async (t) => {
  const { client, ids } = await series(t, 17);
  const found = await client.bisect(ids[0]!, ids[16]!, below(5, [8, 7]));
  assert.equal(found.first_bad?.save_point_id, ids[5]);
  assert.deepEqual(verdicts(ids, found.tested).slice(0, 3), [
    [8, "skipped"],
    [7, "skipped"],
    [9, "bad"],
  ]);
});

test("bisect lists all candidates if skipped points hide the first bad point", async (t) => {
  const { client, ids } = await series(t, 9);
  const found = await client.bisect(ids[0]!, ids[8]!, below(5, [4, 5]));
  assert.deepEqual([found.first_bad, found.last_good], [null, ids[3]]);
  assert.deepEqual(found.candidates, [ids[4], ids[5], ids[6]]);
  const all = await client.bisect(ids[0]!, ids[2]!, ["sh", "-c", "exit 125"]);
  assert.deepEqual([all.first_bad, all.candidates], [null, [ids[1], ids[2]]]);
  assert.deepEqual(all.tested, [
    { save_point_id: ids[1], exit_code: 125, verdict: "skipped", duration_ms: all.tested[0]!.duration_ms },
  ]);
});

test("bisect fails at once if the command cannot be started, but counts a shell's status 127 as bad", async (t) => {
  const { client, ids } = await series(t, 5);
  let tests = 0;
  await assert.rejects(client.bisect(ids[0]!, ids[4]!, ["no-such-program"], { onTest: () => tests++ }), (error) => {
    const { message, hint } = error as CairnError;
    assert.match(
      `${message} (${hint})`,
      /no-such-program was not started: there is no such program.*skips save points without/,
    );
    return hasCode("not_found")(error);
  });
  assert.equal(tests, 1);
  await assert.rejects(client.bisect(ids[0]!, ids[4]!, ["./n"]), hasCode("io"));
  await assert.rejects(client.bisect(ids[0]!, ids[4]!, []), hasCode("usage"));
  const { first_bad: first } = await client.bisect(ids[0]!, ids[4]!, ["sh", "-c", "no-such-program 2> /dev/null"]);
  assert.equal(first?.save_point_id, ids[1]);
  assertNothingLeft(client);
});

test("bisect stops with a hint to continue if a signal ends the command, or the status stands for a signal", async (t) => {
  const { client, ids } = await series(t, 9);
  for (const [end, words] of [
    ["kill -9 $$", "was ended by SIGKILL"],
    ["exit 130", "ended with status 130"],
  ]) {
    const script = `n=$(cat n); [ $n -lt 4 ] || exit 1; [ $n -lt 2 ] || { ${end}; }`;
    await assert.rejects(client.bisect(ids[0]!, ids[8]!, ["sh", "-c", script]), (error) => {
      const { message, hint } = error as CairnError;
      assert.match(message, new RegExp(words!));
      const [good, bad] = [ids[0]!, ids[4]!].map((id) => id.slice(0, 8));
      assert.ok(hint!.endsWith(`go on with: cairn bisect ${good} ${bad} -- COMMAND`), hint);
      return hasCode("io")(error);
    });
    assertNothingLeft(client);
  }
});

test("an aborted bisect ends its command and removes its folder", async (t) => {
  const { client, ids } = await series(t, 3);
  const controller = new AbortController();
  const started = performance.now();
  const onTest = (): void => void setTimeout(() => controller.abort(), 50);
  const running = client.bisect(ids[0]!, ids[2]!, ["sleep", "60"], { signal: controller.signal, onTest });
  await assert.rejects(running, hasCode("interrupted"));
  assert.ok(performance.now() - started < 30_000);
  assertNothingLeft(client);
});

test("bisect fails unless the good point is an ancestor of the bad point", async (t) => {
  const place = await series(t, 5);
  const { client, ids } = place;
  const refused = async (good: string, bad: string, words: RegExp): Promise<void> => {
    await assert.rejects(client.bisect(good, bad, ["true"]), (error) => {
      assert.match(`${(error as CairnError).message}; ${(error as CairnError).hint}`, words);
      return hasCode("usage")(error);
    });
  };
  await refused("head", "latest", /are the same point, .*older than the bad one/);
  await refused(ids[3]!, ids[1]!, /is newer than the bad one.*the good point first/);
  await client.restore({ target: ids[1]! });
  const other = await next(place, 9);
  await refused(ids[3]!, other, new RegExp(`did not lead to.*for example ${ids[1]!.slice(0, 8)}$`));
  await assert.rejects(client.bisect("00000000", "head", ["true"]), hasCode("not_found"));
});

test("bisect tests only ancestors of the bad point, and no undo points", async (t) => {
  const place = await series(t, 5);
  const { client, ids, write } = place;
  write("n", "unsaved");
  await client.restore({ target: ids[1]! });
  const later = [await next(place, 6), await next(place, 7)];
  const led = [ids[0]!, ids[1]!, ...later];
  const { tested, first_bad: first } = await client.bisect(ids[0]!, "head", below(7));
  assert.equal(first?.save_point_id, later[1]);
  assert.deepEqual(verdicts(led, tested), [
    [1, "good"],
    [2, "good"],
  ]);
});

test("bisect skips points that a cleanup removed, and points with a damaged record", async (t) => {
  const { client, ids } = await series(t, 9);
  await client.runCleanup({ only: [ids[3]!, ids[4]!] });
  const workspaces = join(client.controlDirectory, "workspaces");
  const points = join(workspaces, fs.readdirSync(workspaces)[0]!, "points");
  fs.writeFileSync(join(points, "0000000007", "descriptor.json"), "{");
  const warnings: string[] = [];
  const onWarning = (warning: string): void => void warnings.push(warning);
  const found = await client.bisect(ids[0]!, ids[8]!, below(4), { onWarning });
  assert.deepEqual([found.first_bad?.save_point_id, found.last_good], [ids[5], ids[2]]);
  assert.deepEqual(warnings, [`the save point ${ids[6]!.slice(0, 8)} is skipped: its record is damaged`]);
  assert.ok(found.tested.every(({ save_point_id: id }) => ![3, 4, 6].includes(ids.indexOf(id))));
});

test("bisect skips a point with damaged content without running the command", async (t) => {
  const place = await testFolder(t);
  const { client, write, folder } = place;
  const ids = [await next(place, 0)];
  write("large", randomBytes(100_000).toString("latin1"));
  ids.push(await next(place, 1));
  fs.rmSync(join(folder, "large"));
  ids.push(await next(place, 2));
  const data = join(client.controlDirectory, "store", "data");
  const packs = fs.readdirSync(data, { recursive: true, encoding: "utf8" }).map((name) => join(data, name));
  const files = packs.filter((file) => fs.statSync(file).isFile());
  const largest = files.toSorted((a, b) => fs.statSync(b).size - fs.statSync(a).size)[0]!;
  const bytes = fs.readFileSync(largest);
  bytes[bytes.length >> 1]! ^= 1;
  fs.writeFileSync(largest, bytes);
  const warnings: string[] = [];
  const found = await client.bisect(ids[0]!, ids[2]!, ["true"], { onWarning: (warning) => warnings.push(warning) });
  assert.deepEqual(found.candidates, [ids[1], ids[2]]);
  assert.deepEqual(found.tested, [{ save_point_id: ids[1], exit_code: null, verdict: "skipped", duration_ms: 0 }]);
  assert.match(warnings.join("\n"), /is skipped: "?large"? in it is damaged/);
  assertNothingLeft(client);
});
