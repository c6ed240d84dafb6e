import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { createInterface } from "node:readline/promises";
import { fileURLToPath } from "node:url";
import type { Envelope } from "../envelope.ts";

const ENTRY = fileURLToPath(new URL("../testing-entry.ts", import.meta.url));
const LAUNCHER = fileURLToPath(new URL("../../../cairn", import.meta.url));
const MAIN = fileURLToPath(new URL("./entry.ts", import.meta.url));

async function collect(stream: NodeJS.ReadableStream): Promise<string> {
  let text = "";
  for await (const piece of stream) text += String(piece);
  return text;
}

test("cairn --version prints the version", () => {
  const ran = spawnSync(process.execPath, [MAIN, "--version"], { encoding: "utf8" });
  assert.match(ran.stdout, /^\d+\.\d+\.\d+\n$/);
  assert.equal(ran.status, 0);
});

for (const [signal, exit] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
  ["SIGHUP", 129],
] as const) {
  test(`${signal} stops the command with exit ${exit} and an envelope`, async () => {
    const child = spawn(process.execPath, [ENTRY, "save", "--json"], { env: { ...process.env, FAKE_SAVE: "wait" } });
    const output = collect(child.stdout);
    await once(child.stderr, "data");
    child.kill(signal);
    const [status] = (await once(child, "close")) as [number];
    const envelope = JSON.parse(await output) as Envelope;
    assert.deepEqual(
      [status, envelope.ok, envelope.error?.code, envelope.command],
      [exit, false, "interrupted", "save"],
    );
  });
}

test("SIGUSR1 prints the progress and opens no debugger", async (t) => {
  // As the launcher starts it: a flag of Node may keep the signal away.
  const [, flags = ""] = /^exec "\$node" (.*) "\$entry"/m.exec(readFileSync(LAUNCHER, "utf8"))!;
  const child = spawn(process.execPath, [...flags.split(" "), ENTRY, "save"], {
    env: { ...process.env, FAKE_SAVE: "wait" },
  });
  t.after(() => child.kill("SIGKILL"));
  const lines = createInterface(child.stderr)[Symbol.asyncIterator]();
  assert.equal((await lines.next()).value, "waiting");
  child.kill("SIGUSR1");
  // The save reports progress soon after its first line.
  assert.match((await lines.next()).value!, /^(?:no progress has been reported yet|scanning 1)$/);
  child.kill("SIGINT");
  assert.deepEqual(await once(child, "exit"), [130, null]);
});

test("a slow stop is explained on stderr, and a second signal ends the process", async () => {
  const child = spawn(process.execPath, [ENTRY, "save"], { env: { ...process.env, FAKE_SAVE: "hold" } });
  const lines = createInterface(child.stderr)[Symbol.asyncIterator]();
  assert.equal((await lines.next()).value, "waiting");
  child.kill("SIGINT");
  assert.match((await lines.next()).value!, /^cairn: stopping safely: .* Ctrl-C again to end at once$/);
  child.kill("SIGINT");
  assert.deepEqual(await once(child, "exit"), [130, null]);
});

test("the command exits 0 if the reader of its output has closed the pipe", async () => {
  const child = spawn("/bin/sh", ["-c", `"$0" "$1" history; echo "status $?" >&2`, process.execPath, ENTRY], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.stdout.destroy();
  assert.equal(await collect(child.stderr), "status 0\n");
});

test("the command exits 0 if stdout is closed", () => {
  const ran = spawnSync("/bin/sh", ["-c", `"$0" "$1" save >&-`, process.execPath, ENTRY], { encoding: "utf8" });
  assert.deepEqual([ran.status, ran.stderr], [0, ""]);
});

test(
  "the command exits 8 if its result cannot be written",
  { skip: existsSync("/dev/full") ? false : "no /dev/full" },
  () => {
    for (const line of ["history", "save --json"]) {
      const script = `"$0" "$1" ${line} >/dev/full`;
      const ran = spawnSync("/bin/sh", ["-c", script, process.execPath, ENTRY], { encoding: "utf8" });
      assert.equal(ran.status, 8, line);
      assert.match(ran.stderr, /^cairn: the output could not be written: .*ENOSPC/);
    }
  },
);

interface Scene {
  root: string;
  cairn: (
    words: readonly string[],
    more?: { from?: string; env?: Record<string, string> },
  ) => { status: number | null; said: string };
}

/** A folder with a workspace `kept` in it. `from`: a shell script that goes somewhere first, as the launcher's does. */
function scene(t: TestContext): Scene {
  const root = realpathSync(mkdtempSync(join(tmpdir(), "cairn-process-")));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const cairn: Scene["cairn"] = (words, { from = ":", env } = {}) => {
    const ran = spawnSync("/bin/sh", ["-c", `${from}; exec "$@"`, "sh", process.execPath, MAIN, ...words], {
      cwd: root,
      encoding: "utf8",
      env: { ...process.env, XDG_STATE_HOME: join(root, "state"), ...env },
    });
    return { status: ran.status, said: ran.stdout + ran.stderr };
  };
  mkdirSync(join(root, "kept"));
  writeFileSync(join(root, "kept/a"), "one");
  assert.equal(cairn(["save", "kept"]).status, 0);
  return { root, cairn };
}

test("in a removed current folder relative paths are refused and absolute paths work", (t) => {
  const { root, cairn } = scene(t);
  const kept = join(root, "kept");
  const gone = { from: `mkdir gone && cd gone && rmdir ../gone && unset PWD` };
  for (const words of [
    // From the root, what was kept.
    ["release", kept.slice(1)],
    ["release", "../kept"],
    ["-C", "../kept", "status"],
    ["-C", kept, "restore", "head", "--to", "out"],
    ["backup", "list", "-r", "repository"],
    ["relocate", kept, "out"],
  ]) {
    const { status, said } = cairn(words, gone);
    assert.equal(status, 3, said);
    assert.match(said, /is a relative path, and the current folder no longer exists/);
  }
  for (const [words, wanted] of [
    [["save", kept], 0],
    [["-C", kept, "verify", "head"], 0],
    [["-C", kept, "restore", "head", "--to", join(root, "out")], 0],
  ] as const)
    assert.equal(cairn(words, gone).status, wanted, words.join(" "));
  assert.deepEqual(readdirSync(root).toSorted(), ["kept", "out", "state"]);
});

test(
  "in a removed current folder the error names the folder, or its former workspace is used",
  { skip: existsSync("/proc/self/cwd") ? false : "only Linux knows where it was" },
  (t) => {
    const { root, cairn } = scene(t);
    const outside = cairn(["save"], { from: "mkdir gone && cd gone && rmdir ../gone && unset PWD" });
    assert.deepEqual([outside.status, outside.said.includes(`${root}/gone is not there`)], [3, true], outside.said);
    const inside = cairn(["status"], { from: "mkdir kept/gone && cd kept/gone && rmdir ../gone && unset PWD" });
    assert.deepEqual([inside.status, inside.said.includes(`${root}/kept`)], [0, true], inside.said);
  },
);

test("a relative HOME or XDG_STATE_HOME is ignored", (t) => {
  const { root, cairn } = scene(t);
  mkdirSync(join(root, "here"));
  const state = join(root, "state");
  for (const env of [
    { XDG_STATE_HOME: "state", HOME: root },
    { XDG_STATE_HOME: "", HOME: root },
  ]) {
    assert.equal(cairn(["save", join(root, "kept")], { from: "cd here", env }).status, 0);
    assert.deepEqual(readdirSync(join(root, "here")), []);
  }
  assert.ok(readdirSync(join(root, ".local/state/cairn/workspaces")).length === 1 && existsSync(state));
});
