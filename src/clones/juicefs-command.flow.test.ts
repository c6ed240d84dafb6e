import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { CairnError } from "../errors.ts";
import { JUICEFS_MISSING, findJuicefs, runJuicefsClone } from "./juicefs-command.ts";
import { juicefsHolder } from "./juicefs-holder.ts";

/** What becomes of a clone that goes wrong. The programs are scripts that fail in one way each; nothing is mounted. */

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-juicefs-command-"));
after(() => fs.rmSync(scratch, { recursive: true, force: true }));

/** Without native calls attributes are not compared. */
const COMPARES_ATTRIBUTES = spawnSync("setfattr", ["--version"]).error === undefined;

interface Place {
  from: Buffer;
  to: Buffer;
  program: string;
}

let places = 0;

/** A folder, a place for its clone, and a program of these lines: $3 is the folder, $4 the place. */
function placeWith(lines: string): Place {
  const root = path.join(scratch, `${places++}`);
  fs.mkdirSync(path.join(root, "from", "below"), { recursive: true });
  for (const name of ["a", "b", "below/c"]) fs.writeFileSync(path.join(root, "from", name), `${name}\n`);
  for (const name of ["a", "b", "below/c", "below", ""]) fs.utimesSync(path.join(root, "from", name), 1e9, 1e9);
  const program = path.join(root, "juicefs");
  fs.writeFileSync(program, `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
  return { from: Buffer.from(path.join(root, "from")), to: Buffer.from(path.join(root, "to")), program };
}

async function refused(place: Place, call: { limitMs?: number; signal?: AbortSignal } = {}): Promise<CairnError> {
  const { program } = place;
  const { signal, ...options } = call;
  const holder = juicefsHolder({ program, ...options });
  const capture = holder.capture(place.from, place.to.toString(), { signal });
  const failed = await capture.then(
    () => assert.fail("it was held"),
    (error: unknown) => error as CairnError,
  );
  assert.ok(failed instanceof CairnError, String(failed));
  assert.ok(!fs.existsSync(place.to), "nothing is left");
  return failed;
}

test("runJuicefsClone passes names to the program without a shell", async () => {
  const place = placeWith('[ "$#" = 4 ] && [ "$1 $2" = "clone -p" ] && exec cp -a -- "$3" "$4"');
  const odd = path.join(scratch, "-p $(touch x); 'q' \"\n");
  fs.cpSync(place.from.toString(), odd, { recursive: true, preserveTimestamps: true });
  await runJuicefsClone(Buffer.from(odd), place.to, { program: place.program });
  assert.equal(fs.readFileSync(path.join(place.to.toString(), "below/c"), "utf8"), "below/c\n");
});

test("the error of a failed clone has the program's message without passwords and terminal controls", async () => {
  const lines = String.raw`printf '\033[31m2026 juicefs[7] <FATAL>: redis://:secret@host:1 is\n\n not there\033[0m\n' >&2; exit 1`;
  const { code, message } = await refused(placeWith(lines));
  assert.equal(code, "unsupported");
  assert.match(message, /exit status 1: 2026 juicefs\[7\] <FATAL>: redis:\/\/…@host:1 is not there$/);
});

test("capture fails with `no_space` on a full disk and with `permission` for missing rights", async () => {
  for (const [said, code] of [
    ["clone failed: no space left on device", "no_space"],
    ["clone failed: disk quota exceeded", "no_space"],
    ["clone failed: permission denied", "permission"],
    ["clone failed: operation not permitted", "permission"],
  ] as const)
    assert.equal((await refused(placeWith(`echo "${said}" >&2; exit 1`))).code, code);
});

test("a juicefs program that hangs is killed, and its partial clone is removed", async () => {
  const place = placeWith('cp -a "$3" "$4"; sleep 60 & sleep 60');
  const begun = performance.now();
  const { code, message } = await refused(place, { limitMs: 400 });
  assert.equal(code, "unsupported");
  assert.match(message, /did not end within 0 s/);
  assert.ok(performance.now() - begun < 30_000);
});

test("a stopped capture ends at once and leaves no clone", async () => {
  const place = placeWith('mkdir "$4"; sleep 60');
  const abort = new AbortController();
  setTimeout(() => abort.abort(), 150);
  const begun = performance.now();
  assert.equal((await refused(place, { signal: abort.signal })).code, "interrupted");
  assert.ok(performance.now() - begun < 30_000);
  assert.equal((await refused(place, { signal: AbortSignal.abort() })).code, "interrupted");
});

test("a juicefs program that succeeds without making a clone is an error", async () => {
  for (const lines of ["head -c 100000 /dev/urandom >&2", 'echo nonsense; echo x > "$4"', "true"]) {
    const place = placeWith(lines);
    const failed = await runJuicefsClone(place.from, place.to, { program: place.program }).then(
      () => assert.fail(lines),
      (error: unknown) => error as CairnError,
    );
    assert.equal(failed.code, "unsupported");
    assert.match(failed.message, /there is no clone at/);
  }
});

test("capture refuses a clone that differs from the folder, and names the difference", async () => {
  for (const [lines, what] of [
    ['rm "$4/below/c"', /below\/c is not in the clone/],
    ['touch -d @1000000000 "$4/new"', /new is only in the clone/],
    ['printf x > "$4/a"; touch -d @1000000000 "$4/a"', /a has another size/],
    ['touch "$4/a"', /a has another time/],
    ['chmod 600 "$4/a"', /a has another mode/],
    ['chmod 700 "$4"', /: \. has another mode/],
    ...(COMPARES_ATTRIBUTES ? [['setfattr -n user.note -v y "$4/a"', /a has another set of attributes/] as const] : []),
    ['ln -sf a "$4/b"', /b has another kind/],
    ['rm "$4/b"; mkdir "$4/b"', /b has another kind/],
  ] as const) {
    const place = placeWith(`cp -a "$3" "$4"; ${lines}; touch -d @1000000000 "$4/below" "$4"; exit 0`);
    const { code, message } = await refused(place);
    assert.equal(code, "unsupported", lines);
    assert.match(message, what);
  }
});

test("capture repeats the clone of a folder that changes meanwhile, and lists later changes as torn", async () => {
  const late = 'echo more >> "$3/a"; rm -f "$3/b"; echo new > "$3/below/new$$"; sleep 0.2';
  const once = placeWith(`cp -a "$3" "$4"; [ -e "$0.again" ] || { touch "$0.again"; ${late}; }; exit 0`);
  const held = await juicefsHolder({ program: once.program }).capture(once.from, once.to.toString(), {});
  assert.deepEqual(held.torn, []);
  assert.equal(fs.readFileSync(path.join(once.to.toString(), "a"), "utf8"), "a\nmore\n");
  const always = placeWith(`cp -a "$3" "$4"; ${late}; exit 0`);
  const { torn } = await juicefsHolder({ program: always.program }).capture(always.from, always.to.toString(), {});
  const names = torn.map((each) => Buffer.from(each).toString().replace(/\d+$/, "N")).toSorted();
  // What came last is not in the clone.
  assert.deepEqual(names, ["a", "below", "below/newN"]);
});

test("capture refuses a folder with a change time in the future", async () => {
  // A clone has the times of what it is of; here the one to come is of the clone's own file.
  const place = placeWith('cp -a "$3" "$4"');
  const now = Date.now;
  Date.now = () => now() - 60_000;
  try {
    const { code, hint } = await refused(place);
    assert.equal(code, "unsupported");
    assert.match(hint ?? "", /clock/);
  } finally {
    Date.now = now;
  }
});

test("capture restores hard links and the times of their directories in the clone", async () => {
  const place = placeWith('cp -a --no-preserve=links "$3" "$4"');
  const from = (name: string): string => path.join(place.from.toString(), name);
  for (const name of ["below/d", "e"]) fs.linkSync(from("a"), from(name));
  for (const name of ["below", ""]) fs.utimesSync(from(name), 1e9, 1e9);
  await juicefsHolder({ program: place.program }).capture(place.from, place.to.toString(), {});
  const [a, d, e, below] = ["a", "below/d", "e", "below"].map((name) =>
    fs.lstatSync(path.join(place.to.toString(), name)),
  );
  assert.deepEqual([d!.ino, e!.ino, a!.nlink], [a!.ino, a!.ino, 3]);
  assert.equal(below!.mtimeMs, 1e12);
});

test("capture refuses a target inside the folder, an existing target and a missing folder", async () => {
  const { from, program } = placeWith('cp -a "$3" "$4"');
  const holder = juicefsHolder({ program });
  const capture = async (root: Buffer, place: string): Promise<unknown> => holder.capture(root, place, {});
  await assert.rejects(capture(from, `${from.toString()}/held`), { code: "refused" });
  await assert.rejects(capture(from, `${from.toString()}/below`), { code: "refused" });
  await assert.rejects(capture(from, path.dirname(from.toString())), { code: "already_exists" });
  await assert.rejects(capture(Buffer.from(`${from.toString()}x`), `${from.toString()}y`), { code: "not_found" });
  assert.deepEqual(fs.readdirSync(from).toSorted(), ["a", "b", "below"]);
});

test("capture refuses a folder whose name is not UTF-8", async () => {
  const { to, program } = placeWith('cp -a "$3" "$4"');
  const odd = Buffer.concat([Buffer.from(`${scratch}/odd-`), Buffer.from([0xff])]);
  fs.mkdirSync(odd);
  await assert.rejects(juicefsHolder({ program }).capture(odd, to.toString(), {}), { code: "unsupported" });
});

test("findJuicefs searches only absolute folders of PATH", async () => {
  const { program } = placeWith("exit 0");
  const folder = path.dirname(program);
  assert.equal(findJuicefs(`/nowhere:${folder}`), program);
  assert.equal(findJuicefs(path.relative(process.cwd(), folder)), null);
  assert.equal(findJuicefs(""), null);
  fs.chmodSync(program, 0o644);
  assert.equal(findJuicefs(folder), null);
  const before = process.env["PATH"];
  process.env["PATH"] = folder;
  try {
    const held = juicefsHolder().capture(Buffer.from(scratch), `${folder}-held`, {});
    await assert.rejects(held, { code: "refused" });
    const missing = juicefsHolder().capture(Buffer.from(folder), `${folder}-held`, {});
    await assert.rejects(missing, { code: "unsupported", message: JUICEFS_MISSING.reason });
  } finally {
    process.env["PATH"] = before;
  }
});
