import assert from "node:assert/strict";
import { lastView, pageOfPoint } from "../../src/cli/page-address.ts";
import type { SavePointId } from "../../src/ids.ts";
import type { BisectResult } from "../../src/verbs/schemas.ts";
import { buildCommand, cairn, cairnOk, type RunOptions, SCRATCH, startCairn } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { assertHeldTidy, heldPlace, type HoldingEngine } from "../fixtures/held-place.ts";
import { loopFileSystem, type LoopKind, ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";
import { execFileSync, spawnSync } from "node:child_process";
import { describe, test, type TestContext } from "node:test";
import fs from "node:fs";
import path from "node:path";

/** `cairn bisect`, from processes of its own. */

/** Saves points whose file `n` has the numbers from 0 on. */
function series(folder: string, count: number, options: RunOptions = {}): SavePointId[] {
  return Array.from({ length: count }, (_, number) => {
    fs.writeFileSync(path.join(folder, "n"), String(number));
    const saved = cairnOk(["save", "-m", `number ${number}`, "-C", folder], options);
    return (saved.data["save_point"] as { save_point_id: SavePointId }).save_point_id;
  });
}

/** The options come before the words of the command. */
function bisect(folder: string, [good, bad]: readonly [string, string], script: string): string[] {
  return ["bisect", "-C", folder, "--json", good, bad, "--", "sh", "-c", script];
}

function temporaryOf(folder: string): string {
  return path.join(controlOf(folder), "tmp");
}

function controlOf(folder: string, options: RunOptions = {}): string {
  const { workspaces } = cairnOk(["workspaces"], options).data as {
    workspaces: { path: string; control_directory: string }[];
  };
  return workspaces.find((each) => each.path === folder)!.control_directory;
}

test("bisect --json prints one object, with the address of the first bad point, whatever the command prints", () => {
  const folder = newFolder();
  const ids = series(folder, 5);
  const done = cairn(bisect(folder, [ids[0]!, "head"], "echo to stdout; [ $(cat n) -lt 3 ]"), { own: true });
  assert.equal(done.status, 0, done.stderr);
  assert.equal(done.stdout.trimEnd().split("\n").length, 1);
  assert.match(done.stderr, /to stdout/);
  const { first_bad: first, tested, ...others } = done.data as unknown as BisectResult & { address: string };
  assert.equal(first?.save_point_id, ids[3]);
  assert.deepEqual(others, { last_good: ids[2], candidates: [], address: pageOfPoint(folder, ids[3]!) });
  assert.equal(lastView(folder), others.address, "`cairn ui` begins there");
  assert.match(others.address, /^#\/point\?w=%2F[^&/]+&p=[0-9a-f]{32}$/);
  for (const each of tested)
    assert.deepEqual(Object.keys(each), ["save_point_id", "exit_code", "verdict", "duration_ms"]);
  const skips = "n=$(cat n); [ $n -lt 1 ] || { [ $n -lt 4 ] && exit 125 || exit 1; }";
  const unclear = cairn(bisect(folder, [ids[0]!, "head"], skips), { own: true });
  assert.deepEqual([unclear.status, unclear.error], [10, null]);
  assert.deepEqual([unclear.data["first_bad"], unclear.data["address"]], [null, null]);
  assert.deepEqual(unclear.data["candidates"], ids.slice(1));
});

test("bisect prints each test, the first bad point with its cause, and the next commands", () => {
  const folder = newFolder();
  const cause = JSON.stringify({ kind: "tool_call", tool: "bash", agent: "claude-code", session: "s1" });
  const ids: string[] = [];
  for (const number of [0, 1, 2]) {
    fs.writeFileSync(path.join(folder, "n"), String(number));
    const saved = cairnOk(["save", "-m", `number ${number}`, "--cause", cause, "-C", folder]);
    ids.push((saved.data["save_point"] as { save_point_id: string }).save_point_id.slice(0, 8));
  }
  const run = (script: string): ReturnType<typeof spawnSync> =>
    spawnSync(process.execPath, [buildCommand(), "bisect", "head~2", "head", "--", "sh", "-c", script], {
      cwd: folder,
      encoding: "utf8",
    });
  const { stdout, stderr, status } = run("[ $(cat n) = 0 ]");
  assert.equal(status, 0);
  const steps = [0, 2, 1].map((n, at) => `cairn: testing ${ids[n]} (step ${at + 1} of about 3): number ${n}\n`);
  assert.equal(stderr, steps.join(""));
  const lines = String(stdout).trimEnd().split("\n");
  assert.equal(lines[0], `first bad ${ids[1]}  number 1`);
  assert.match(lines[1]!, /^ {2}saved \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(just now\)$/);
  assert.equal(lines[2], "  cause: tool_call bash, agent claude-code, session s1");
  assert.match(lines[3]!, /^ {2}3 save points tested in /);
  assert.equal(lines[4], `  what it changed: cairn diff ${ids[0]} ${ids[1]}`);
  assert.match(lines[5]!, /^ {2}in the page: cairn ui$/);
  const unclear = run("case $(cat n) in 0) ;; 1) exit 125 ;; *) exit 1 ;; esac");
  assert.equal(unclear.status, 10);
  assert.match(String(unclear.stdout), new RegExp(`one of these is the first bad .*\n  ${ids[1]}\n  ${ids[2]}\n`));
});

for (const signal of ["SIGINT", "SIGTERM"] as const)
  test(`${signal} ends bisect and the tested command, and removes the temporary folder`, async () => {
    const folder = newFolder();
    const ids = series(folder, 3);
    const mark = path.join(SCRATCH, `mark-${signal}`);
    const script = `echo $$ > ${mark}; exec sleep 300`;
    const { child, ended, paused } = startCairn(bisect(folder, [ids[0]!, ids[2]!], script));
    paused.catch(() => undefined);
    await eventually("the command runs", () => fs.existsSync(mark) && fs.readFileSync(mark, "utf8") !== "");
    assert.equal(fs.readdirSync(temporaryOf(folder)).length, 1);
    child.kill(signal);
    const { error, status } = await ended;
    assert.deepEqual([error?.code, status], ["interrupted", signal === "SIGINT" ? 130 : 143]);
    assert.deepEqual(fs.readdirSync(temporaryOf(folder)), []);
    const pid = Number(fs.readFileSync(mark, "utf8"));
    assert.throws(() => process.kill(pid, 0), /ESRCH/);
  });

test("the next save removes the temporary folder of a killed bisect", () => {
  const folder = newFolder();
  const ids = series(folder, 5);
  for (const failpoint of ["bisect.placed", "bisect.removed", "bisect.placed:2"]) {
    const killed = cairn(bisect(folder, [ids[0]!, ids[4]!], "[ $(cat n) = 0 ]"), { failpoint });
    assert.ok(killed.killed, killed.stdout);
    if (failpoint === "bisect.placed") assert.equal(fs.readdirSync(temporaryOf(folder)).length, 1);
    cairnOk(["save", "-C", folder]);
    assert.deepEqual(fs.readdirSync(temporaryOf(folder)), [], failpoint);
  }
});

test("a command that bisect runs cannot save the folder, and its own workspaces elsewhere work", () => {
  const folder = newFolder();
  const ids = series(folder, 2);
  const other = newFolder();
  const line = `${process.execPath} ${buildCommand()}`;
  const script = `${line} save ${other} && { ${line} save; [ $? = 7 ]; } && [ $(cat n) = 0 ]`;
  const done = cairn(bisect(folder, [ids[0]!, ids[1]!], script), { own: true });
  assert.equal((done.data["first_bad"] as { save_point_id: string } | undefined)?.save_point_id, ids[1], done.stdout);
  assert.match(done.stderr, /shows a save point here that a bisect tests/);
  const { save_points: points } = cairnOk(["history", "-C", folder]).data as {
    save_points: { save_point_id: string }[];
  };
  assert.deepEqual(
    points.map(({ save_point_id: id }) => id),
    ids.toReversed(),
  );
});

const ENGINES: readonly [LoopKind, HoldingEngine, string][] = [
  ["btrfs", "btrfs-snapshot", "clones unsealed points of btrfs-snapshot, and seals none"],
  ["xfs", "reflink-copy", "seals the unsealed points of reflink-copy that it tests"],
];

for (const [kind, engine, what] of ENGINES)
  test(`a bisect ${what}`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    const ids: string[] = [];
    for (let number = 0; number < 9; number++) {
      fs.writeFileSync(path.join(folder, "n"), String(number));
      ids.push((await client.save()).save_point_id);
    }
    const script = "n=$(cat n); [ -e same/kept.txt ] || exit 125; echo changed > n; rm -rf same; [ $n -lt 6 ]";
    const found = await client.bisect(ids[0]!, "head", ["sh", "-c", script]);
    assert.deepEqual([found.first_bad?.save_point_id, found.tested.length], [ids[6], 5]);
    const { save_points: points } = await client.history(undefined, 0, { all: true });
    const sealed = points.flatMap((point) => (point.sealed ? [point.save_point_id] : []));
    const tested = found.tested.map((each) => each.save_point_id);
    assert.deepEqual(sealed.toSorted(), kind === "btrfs" ? [] : tested.toSorted());
    assertHeldTidy(place, "after the bisect");
    assert.equal(await contentOf(client.read(ids[4]!, "n")), "4");
  });

async function contentOf(pieces: AsyncIterable<Uint8Array>): Promise<string> {
  let text = "";
  for await (const piece of pieces) text += Buffer.from(piece).toString();
  return text;
}

describe("an ordinary user", { skip: whyNoOrdinaryUser() ?? false }, () => {
  function begin(
    t: TestContext,
    make: (place: string) => string | null,
  ): { folder: string; options: RunOptions } | null {
    const user = installForOrdinaryUser();
    t.after(() => user.remove());
    const folder = make(user.place);
    if (folder === null) return null;
    fs.chownSync(folder, ORDINARY_USER, ORDINARY_USER);
    return { folder, options: user.optionsIn(folder) };
  }

  test("bisect by an ordinary user skips an incomplete point", (t) => {
    const { folder, options } = begin(t, (place) => fs.mkdtempSync(path.join(place, "work-")))!;
    const ids = series(folder, 3, options);
    fs.writeFileSync(path.join(folder, "secret"), "root's", { mode: 0o600 });
    fs.writeFileSync(path.join(folder, "n"), "3");
    const saved = cairn(["save"], options);
    assert.equal(saved.status, 10);
    const incomplete = (saved.data["save_point"] as { save_point_id: SavePointId }).save_point_id;
    fs.rmSync(path.join(folder, "secret"));
    fs.writeFileSync(path.join(folder, "late"), "");
    ids.push(incomplete, ...series(folder, 2, options));
    const script = `touch ${folder}/made && [ $(id -u) = ${ORDINARY_USER} ] && [ ! -e ${folder}/late ]`;
    const done = cairn(bisect(folder, [ids[0]!, ids[5]!], script), options);
    assert.equal(fs.existsSync(path.join(folder, "made")), false);
    assert.deepEqual([done.status, done.data["candidates"]], [10, [incomplete, ids[4]]], done.stdout);
    assert.match(done.warnings.join("\n"), new RegExp(`${incomplete.slice(0, 8)} is skipped: it is incomplete`));
    assert.deepEqual(fs.readdirSync(path.join(controlOf(folder, options), "tmp")), []);
  });

  test("bisect by an ordinary user clones subvolumes and removes the clones", (t) => {
    const volume = loopFileSystem(t, "btrfs", {});
    if (volume === null) return;
    fs.chownSync(volume.root, ORDINARY_USER, ORDINARY_USER);
    const { folder, options } = begin(t, () => {
      const made = path.join(volume.root, "ws");
      execFileSync("btrfs", ["-q", "subvolume", "create", made]);
      return made;
    })!;
    cairnOk(["init", folder, "--engine", "btrfs-snapshot"], options);
    const ids = series(folder, 5, options);
    const done = cairn(bisect(folder, [ids[0]!, ids[4]!], "[ $(cat n) -lt 2 ]"), options);
    assert.equal((done.data["first_bad"] as { save_point_id: string }).save_point_id, ids[2], done.stdout);
    assert.deepEqual(fs.readdirSync(path.join(controlOf(folder, options), "tmp")), []);
  });
});
