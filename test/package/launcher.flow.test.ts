import assert from "node:assert/strict";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import type { TestContext } from "node:test";
import { VERSION } from "../../src/formats/program.ts";
import { Clone, type Outcome, machinePath, registryAnswers } from "./clone.ts";
import { variant } from "../fixtures/long.ts";

// One clone, used in order: what the first test installs, the later ones find.
const online = registryAnswers();
let clone: Clone;
before(() => (clone = new Clone()));
after(() => clone[Symbol.dispose]());

function needsRegistry(t: TestContext): boolean {
  if (!online) t.skip("the npm registry cannot be reached");
  return online;
}

function assertVersion(outcome: Outcome): void {
  assert.equal(outcome.status, 0, outcome.stderr);
  assert.equal(outcome.stdout.trim(), VERSION);
}

function stages(): string[] {
  return readdirSync(path.join(clone.folder, ".runtime")).filter((name) => /^(?:stage|old|build)-/.test(name));
}

/** A folder with the usual small programs but neither node nor npm. */
function pathWithoutNode(): string {
  const folder = path.join(clone.scratch, "bin-without-node");
  mkdirSync(folder, { recursive: true });
  for (const part of machinePath()
    .split(":")
    .filter((name) => existsSync(name))) {
    for (const name of readdirSync(part)) {
      const link = path.join(folder, name);
      if (!/^(?:node|npm|npx|nodejs)/.test(name) && !existsSync(link)) symlinkSync(path.join(part, name), link);
    }
  }
  return folder;
}

test("the launcher says what to install if neither Node nor npm is there", () => {
  const outcome = clone.run(clone.launcher, ["--version"], { env: { PATH: pathWithoutNode() } });
  assert.equal(outcome.status, 1);
  assert.match(outcome.stderr, /npm is needed .* install Node\.js with npm/);
});

test("the launcher names the network if npm fetches nothing, and leaves no files", () => {
  const folder = pathWithoutNode();
  // As npm does it with an optional package that it cannot fetch.
  writeFileSync(path.join(folder, "npm"), "#!/bin/sh\nmkdir -p node_modules\n", { mode: 0o755 });
  const outcome = clone.run(clone.launcher, ["--version"], { env: { PATH: folder } });
  rmSync(path.join(folder, "npm"));
  assert.equal(outcome.status, 1);
  assert.match(outcome.stderr, /could not be fetched\. Check the network or the proxy/);
  assert.ok(!existsSync(path.join(clone.folder, ".runtime/bin/node")));
});

test("the launcher, if killed in its first run, leaves no incomplete node_modules", async (t) => {
  if (!needsRegistry(t)) return;
  for (const delay of [500, 3000]) {
    const run = clone.start(clone.launcher, ["--version"]);
    await new Promise((resolve) => setTimeout(resolve, delay));
    try {
      process.kill(-run.pid, "SIGKILL");
    } catch {
      // It was done already.
    }
    await run.outcome;
    const modules = path.join(clone.folder, "node_modules");
    if (existsSync(modules)) assert.ok(existsSync(path.join(modules, ".package-lock.json")));
  }
  // The next test goes on from what is left, with an empty cache again.
  rmSync(path.join(clone.scratch, "npm-cache"), { recursive: true, force: true });
});

test("two first runs at the same time install once, and both work after earlier kills with an empty npm cache", async (t) => {
  if (!needsRegistry(t)) return;
  const runs = [clone.start(clone.launcher, ["--version"]), clone.start(clone.launcher, ["--version"])];
  const outcomes = await Promise.all(runs.map((run) => run.outcome));
  for (const outcome of outcomes) assertVersion(outcome);
  const told = outcomes.map((outcome) => outcome.stderr).join("");
  assert.equal(told.match(/bringing the dependencies/g)?.length, 1, told);
  assert.deepEqual(stages(), []);
  assert.deepEqual(
    readdirSync(path.join(clone.scratch, "home")).filter((name) => name !== ".npm"),
    [],
    "nothing lands in the home",
  );
});

test("a later run needs no network and prints nothing else, even if called through a link", (t) => {
  if (!needsRegistry(t)) return;
  const link = path.join(clone.scratch, "link-to-cairn");
  symlinkSync(path.join("a clone with  blanks", "cairn"), link);
  const offline = { npm_config_registry: "http://127.0.0.1:1", npm_config_cache: path.join(clone.scratch, "no-cache") };
  const outcome = clone.run(link, ["--version"], { env: offline, cwd: "/" });
  assertVersion(outcome);
  assert.equal(outcome.stderr, "");
});

test("the launcher builds the bundle again if a source file is newer", (t) => {
  if (!needsRegistry(t)) return;
  const file = path.join(clone.folder, "src/formats/program.ts");
  const source = readFileSync(file, "utf8");
  writeFileSync(file, source.replace(VERSION, "9.9.9-test"));
  assert.equal(clone.run(clone.launcher, ["--version"]).stdout.trim(), "9.9.9-test");
  writeFileSync(file, source);
  assertVersion(clone.run(clone.launcher, ["--version"]));
});

test("the launcher builds the bundle again if a source file in the deepest folder is newer", variant, (t) => {
  if (!needsRegistry(t)) return;
  const sources = readdirSync(path.join(clone.folder, "src"), { recursive: true, encoding: "utf8" });
  const deepest = sources
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
    .reduce((one, other) => (other.split("/").length > one.split("/").length ? other : one));
  const builtAt = (): bigint => statSync(path.join(clone.folder, ".runtime/built"), { bigint: true }).mtimeNs;
  const before = builtAt();
  assertVersion(clone.run(clone.launcher, ["--version"]));
  assert.equal(builtAt(), before);
  const file = path.join(clone.folder, "src", deepest);
  writeFileSync(file, readFileSync(file));
  assertVersion(clone.run(clone.launcher, ["--version"]));
  assert.ok(builtAt() > before, deepest);
});

test("the launcher installs nothing if the lockfile was only touched", variant, (t) => {
  if (!needsRegistry(t)) return;
  const file = path.join(clone.folder, "package-lock.json");
  writeFileSync(file, readFileSync(file));
  const outcome = clone.run(clone.launcher, ["--version"]);
  assertVersion(outcome);
  assert.equal(outcome.stderr, "");
});

test("npm scripts run with Node 24 if the machine's Node is older", (t) => {
  if (!needsRegistry(t)) return;
  const outcome = clone.run("npm", ["run", "--silent", "ok", "--", "no-such-step"], { cwd: clone.folder });
  assert.match(outcome.stdout, /no such step/);
});

test("another user can run the command from a clone that they may not write to", (t) => {
  if (!needsRegistry(t)) return;
  if (process.getuid?.() !== 0) return t.skip("needs root");
  const asNobody = ["--reuid=65534", "--regid=65534", "--clear-groups", clone.launcher, "--version"];
  assertVersion(clone.run("setpriv", asNobody));
  // A source that is newer than the bundle is run as it is.
  const file = path.join(clone.folder, "src/formats/program.ts");
  writeFileSync(file, readFileSync(file));
  assertVersion(clone.run("setpriv", asNobody));
  renameSync(path.join(clone.folder, "node_modules"), path.join(clone.scratch, "modules"));
  const outcome = clone.run("setpriv", asNobody);
  renameSync(path.join(clone.scratch, "modules"), path.join(clone.folder, "node_modules"));
  assert.equal(outcome.status, 1);
  assert.match(outcome.stderr, /may not write to '.*a clone with {2}blanks'\. Run '.*' once as its owner/);
});

test("an ordinary user can do the first run in their own clone", variant, (t) => {
  if (!needsRegistry(t)) return;
  if (process.getuid?.() !== 0) return t.skip("needs root");
  const own = path.join(clone.scratch, "own clone");
  cpSync(clone.folder, own, {
    recursive: true,
    filter: (file) => !/^(?:node_modules|\.runtime|dist)$/.test(path.relative(clone.folder, file)),
  });
  assert.equal(
    clone.run("chown", [
      "-R",
      "65534:65534",
      own,
      path.join(clone.scratch, "npm-cache"),
      path.join(clone.scratch, "home"),
    ]).status,
    0,
  );
  assertVersion(
    clone.run("setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups", path.join(own, "cairn"), "--version"]),
  );
});

test("the command names the Node version it needs if it is started with an older one", (t) => {
  if (!needsRegistry(t)) return;
  const old = clone.run("node", ["--version"]).stdout.trim();
  if (Number.parseInt(old.slice(1), 10) >= 24) return t.skip("the machine's own Node is new enough");
  const outcome = clone.run("node", [path.join(clone.folder, "dist/cli.js"), "--version"]);
  assert.equal(outcome.status, 2);
  assert.match(outcome.stderr, /Node 24 or newer is needed, this is/);
  const told = clone.run("node", [path.join(clone.folder, "dist/cli.js"), "save", "--json"]);
  const { ok, error } = JSON.parse(told.stdout) as { ok: boolean; error: { code: string; message: string } };
  assert.deepEqual([told.status, ok, error.code], [2, false, "unsupported"]);
  assert.match(error.message, /^Node 24 or newer is needed, this is/);
});
