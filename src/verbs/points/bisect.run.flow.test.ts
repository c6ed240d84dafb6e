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

/** The state of a process and its name; empty for none. */
function stateOf(pid: string): string {
  const status = `/proc/${pid}/status`;
  return fs.existsSync(status) ? /State:\s*(.*)/.exec(fs.readFileSync(status, "utf8"))![1]! : "";
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
    assert.ok(found.tested.length <= 2 + Math.ceil(Math.log2(count - 1)), `${found.tested.length} runs`);
    assert.equal(told.length, found.tested.length);
    if (count === 17) assert.deepEqual(told.slice(0, 3), ["number 0: 1 of 6", "number 16: 2 of 6", "number 8: 3 of 6"]);
    assertNothingLeft(client);
  });

test("bisect runs the command at the folder's path, with the point's id in CAIRN_BISECT_POINT", async (t) => {
  const { client, ids, root, folder } = await series(t, 3);
  const seen = join(root, "seen");
  const script = `[ $(cat n) != 1 ] || { ls; cat n; echo " $CAIRN_BISECT_POINT"; pwd; } > ${seen}; echo more > other; [ $(cat n) -lt 2 ]`;
  await client.bisect(ids[0]!, ids[2]!, ["sh", "-c", script]);
  assert.deepEqual(fs.readFileSync(seen, "utf8").trimEnd().split("\n"), ["n", "other", `1 ${ids[1]}`, folder]);
  assert.equal(fs.readFileSync(join(folder, "other"), "utf8"), "as ever");
});

/** The entries below a folder with their contents and all times but that of the last access. */
function everything(folder: string): unknown[] {
  return fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => {
    const facts = fs.lstatSync(join(folder, name), { bigint: true });
    const content = facts.isFile() ? fs.readFileSync(join(folder, name), "latin1") : "";
    return [name, facts.ino, facts.mode, facts.nlink, facts.mtimeNs, facts.ctimeNs, content];
  });
}

test("bisect shows a point through absolute paths, with ignored entries and no other present ones, and keeps no write", async (t) => {
  const { client, folder, write } = await testFolder(t, {
    ".cairnignore": "/deps\n.env\ncache\n",
    ".env": "KEY=1",
    "deps/one/index": "1",
    "lib/cache/built": "built",
  });
  // As an editable installation does.
  fs.symlinkSync(join(folder, "lib"), join(folder, "deps", "lib"));
  const ids: SavePointId[] = [];
  for (const [number, content] of [...[0, 1, 2, 3].entries(), [4, 0]] as [number, number][]) {
    write("lib/code", String(content));
    if (number < 4) ids.push((await client.save()).save_point_id);
  }
  write("unsaved", "of the person");
  write("lib/unsaved/cache/x", "in a folder that no point has");
  const before = everything(folder);
  const script = `
    test "$(ls -A . lib | xargs)" = ".: .cairnignore .env deps lib lib: cache code" || exit 126
    grep -q KEY=1 .env && test -e lib/cache/built && test -e deps/one/index || exit 125
    echo KEY=2 > ${folder}/.env && echo x > deps/one/index && rm -rf lib/cache && mkdir lib/cache && mv deps gone
    content=$(cat gone/lib/code); echo 9 > gone/lib/code; test $content -lt 2`;
  const found = await client.bisect(ids[0]!, ids[3]!, ["sh", "-c", script]);
  assert.equal(found.first_bad?.save_point_id, ids[2]);
  assert.deepEqual(everything(folder), before);
  assertNothingLeft(client);
});

test("bisect shows an entry as the point has it if the present rules ignore it", async (t) => {
  const { client, write } = await testFolder(t, { "out/a": "0", "out/b": "0" });
  const ids = [(await client.save()).save_point_id];
  write("out/a", "1");
  ids.push((await client.save()).save_point_id);
  write(".cairnignore", "out\n");
  write("out/new", "2");
  const { first_bad: first } = await client.bisect(ids[0]!, ids[1]!, [
    "sh",
    "-c",
    '[ "$(ls -A . out | xargs)" = ".: out out: a b" ] && grep 0 out/a',
  ]);
  assert.equal(first?.save_point_id, ids[1]);
});

test("bisect refuses a good point on which the command fails, and a bad point on which it succeeds", async (t) => {
  const { client, ids } = await series(t, 5);
  for (const [script, words] of [
    ["exit 3", `${ids[0]!.slice(0, 8)} is bad, not good: the command ended with status 3`],
    ["exit 125", `${ids[0]!.slice(0, 8)} is skipped, not good: the command ended with status 125`],
    ["exit 0", `${ids[4]!.slice(0, 8)} is good, not bad: the command ended with status 0`],
  ] as const) {
    await assert.rejects(client.bisect(ids[0]!, ids[4]!, ["sh", "-c", script]), (error) => {
      assert.match((error as CairnError).message, new RegExp(words));
      return hasCode("usage")(error);
    });
    assertNothingLeft(client);
  }
});

test("bisect skips a point if an entry that is not ignored appears in the folder during the test", async (t) => {
  const { client, ids, folder } = await series(t, 3);
  const warnings: string[] = [];
  const found = await client.bisect(ids[0]!, ids[2]!, ["sh", "-c", "[ ! -e new ] && [ $(cat n) -lt 2 ]"], {
    onTest: ({ save_point_id: id }) => id === ids[1] && fs.mkdirSync(join(folder, "new")),
    onWarning: (warning) => warnings.push(warning),
  });
  assert.deepEqual([found.first_bad, found.candidates], [null, [ids[1], ids[2]]]);
  assert.match(warnings.join(), /^the save point \w{8} is skipped: "?new"? appeared in the folder during the test$/);
  assertNothingLeft(client);
});

test("bisect ends the processes that the command leaves", async (t) => {
  const { client, ids, root } = await series(t, 2);
  const pids = join(root, "pids");
  const script = `setsid sh -c 'echo $$ >> ${pids}; exec sleep 300' > /dev/null 2>&1 & while [ ! -s ${pids} ]; do :; done; [ $(cat n) -lt 1 ]`;
  await client.bisect(ids[0]!, ids[1]!, ["sh", "-c", script]);
  const left = fs.readFileSync(pids, "utf8").trim().split("\n");
  assert.equal(left.length, 2);
  for (const pid of left) assert.doesNotMatch(stateOf(pid), /^[RSD]/);
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
  assert.deepEqual(verdicts(ids, found.tested).slice(0, 5), [
    [0, "good"],
    [16, "bad"],
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
  const all = await client.bisect(ids[0]!, ids[2]!, below(2, [1]));
  assert.deepEqual([all.first_bad, all.candidates], [null, [ids[1], ids[2]]]);
  const { duration_ms, ...test } = all.tested[2]!;
  assert.deepEqual(test, { save_point_id: ids[1], exit_code: 125, verdict: "skipped" });
  assert.equal(typeof duration_ms, "number");
});

test("bisect fails at once if the command cannot be started, but counts a shell's status 127 as bad", async (t) => {
  const { client, ids } = await series(t, 5);
  let tests = 0;
  await assert.rejects(client.bisect(ids[0]!, ids[4]!, ["no-such-program"], { onTest: () => tests++ }), (error) => {
    const { message, hint } = error as CairnError;
    assert.match(`${message} (${hint})`, /there is no program no-such-program.*skips save points without/);
    return hasCode("not_found")(error);
  });
  assert.equal(tests, 1);
  await assert.rejects(client.bisect(ids[0]!, ids[4]!, ["./n"]), hasCode("usage"));
  await assert.rejects(client.bisect(ids[0]!, ids[4]!, []), hasCode("usage"));
  const script = "[ $(cat n) = 0 ] || no-such-program 2> /dev/null";
  const { first_bad: first } = await client.bisect(ids[0]!, ids[4]!, ["sh", "-c", script]);
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
    [0, "good"],
    [3, "bad"],
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
  const found = await client.bisect(ids[0]!, ids[2]!, below(2), { onWarning: (warning) => warnings.push(warning) });
  assert.deepEqual(found.candidates, [ids[1], ids[2]]);
  const skipped = { save_point_id: ids[1], exit_code: null, verdict: "skipped", duration_ms: 0 };
  assert.deepEqual(found.tested.slice(2), [skipped]);
  assert.match(warnings.join("\n"), /is skipped: "?large"? in it is damaged/);
  assertNothingLeft(client);
});

test("bisect refuses, and takes nothing for a verdict, if the system does not allow the mounts", async (t) => {
  const { client, ids, root } = await series(t, 3);
  const before = process.env["PATH"];
  t.after(() => (process.env["PATH"] = before));
  const programs = join(root, "programs");
  fs.mkdirSync(programs);
  const refused = async (words: RegExp): Promise<void> => {
    await assert.rejects(client.bisect(ids[0]!, ids[2]!, ["true"]), (error) => {
      assert.match(`${(error as CairnError).message} (${(error as CairnError).hint})`, words);
      return hasCode("unsupported")(error);
    });
    assertNothingLeft(client);
  };
  process.env["PATH"] = programs;
  await refused(/unshare was not started: there is no such program.*util-linux.*cairn fork POINT DIR/);
  for (const status of [0, 1, 125]) {
    fs.writeFileSync(join(programs, "unshare"), `#!/bin/sh\nexit ${status}\n`, { mode: 0o755 });
    await refused(/the mounts failed/);
  }
});
