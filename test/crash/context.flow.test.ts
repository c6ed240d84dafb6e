import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { ContextStore } from "../../src/context/store.ts";
import { checkConsistency } from "../../src/context/consistency.ts";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { chosenPasses, killAt, passesOf } from "./rounds.ts";

/** Changes of a context store that are killed at each step: what was there, or all that comes, and an index that says so. */

const docs = path.join(SCRATCH, "docs");
fs.mkdirSync(path.join(docs, "deep"), { recursive: true });
for (const name of ["a.md", "deep/b.md", "deep/c.md", ".abstract.md"])
  fs.writeFileSync(path.join(docs, name), `new ${name}\n`);

let count = 0;

/** A store with something in the way. */
function newStore(): string {
  const store = path.join(SCRATCH, `store-${count++}`);
  const old = `${store}-old`;
  fs.mkdirSync(path.join(old, "deep"), { recursive: true });
  for (const name of ["a.md", "old.md", "deep/b.md"]) fs.writeFileSync(path.join(old, name), `old ${name}\n`);
  cairnOk(["context", "init", store]);
  cairnOk(["context", "add", "viking://resources/docs", old, "-C", store]);
  cairnOk(["context", "add", "viking://user/u/memories/tea.md", path.join(old, "a.md"), "-C", store]);
  return store;
}

function filesOf(store: string): Record<string, string> {
  const files: Record<string, string> = {};
  for (const name of fs.readdirSync(store, { recursive: true, encoding: "utf8" }).toSorted()) {
    if (name.startsWith(".context")) continue;
    const at = path.join(store, name);
    files[name] = fs.statSync(at).isFile() ? fs.readFileSync(at, "utf8") : "directory";
  }
  return files;
}

/** What the command `find` gives, of all files that say "new" or "old". */
function foundIn(store: string): string[] {
  const { data } = cairnOk(["context", "find", "new old", "--limit", "50", "-C", store]);
  return (data as { hits: { uri: string; level: number }[] }).hits
    .map(({ uri, level }) => `${uri} ${level}`)
    .toSorted();
}

/** Kills a command at chosen steps; the next command finds all of the old state or of the new one, and nothing is left over. */
async function killed(line: (store: string) => string[]): Promise<void> {
  const whole = newStore();
  const old = filesOf(whole);
  const found = { old: foundIn(whole), new: [] as string[] };
  const names = passesOf([...line(whole), "-C", whole]);
  const now = filesOf(whole);
  assert.notDeepEqual(old, now);
  found.new = foundIn(whole);
  const outcomes = new Set<string>();
  for (const pass of chosenPasses(names)) {
    const store = newStore();
    const where = killAt([...line(store), "-C", store], pass);
    const hits = foundIn(store);
    await using open = await ContextStore.open(store);
    const files = filesOf(store);
    const outcome = JSON.stringify(files) === JSON.stringify(old) ? "old" : "new";
    if (outcome === "new") assert.deepEqual(files, now, `killed at ${where}`);
    assert.deepEqual(hits, found[outcome], `find after a kill at ${where}`);
    outcomes.add(outcome);
    const report = checkConsistency(open, "");
    assert.equal(report.ok, true, `killed at ${where}`);
    // Whoever changes it next takes away what was staged.
    cairnOk(["context", "rm", "viking://user/u/memories/tea.md", "-C", store]);
    const left = fs.readdirSync(path.join(store, ".context")).filter((name) => name.startsWith("change"));
    assert.deepEqual(left, [], `killed at ${where}`);
  }
  assert.deepEqual([...outcomes].toSorted(), ["new", "old"], names.join(" "));
}

test("context add with --overwrite, if killed at any step, takes effect completely or not at all", async () => {
  await killed(() => ["context", "add", "viking://resources/docs", docs, "--overwrite"]);
});

test("context rm, if killed at any step, takes effect completely or not at all", async () => {
  await killed(() => ["context", "rm", "viking://resources/docs"]);
});

test("bundle import and bundle restore, if killed at any step, take effect completely or not at all", async () => {
  const from = newStore();
  cairnOk(["context", "add", "viking://resources/docs", docs, "--overwrite", "-C", from]);
  const [bundle, backup] = [path.join(SCRATCH, "docs.ovpack"), path.join(SCRATCH, "all.ovpack")];
  cairnOk(["bundle", "export", "viking://resources/docs", bundle, "--vectors", "include", "-C", from]);
  cairnOk(["bundle", "backup", backup, "-C", from]);
  await killed(() => ["bundle", "import", bundle, "viking://resources", "--on-conflict", "overwrite"]);
  await killed(() => ["bundle", "restore", backup, "--on-conflict", "overwrite"]);
  await killed(() => ["bundle", "restore", backup, "--on-conflict", "overwrite", "--exact"]);
});

test("bundle export, if killed at any step, leaves no bundle or a complete one", () => {
  const store = newStore();
  const to = (name: string): string => path.join(SCRATCH, name);
  const line = (file: string): string[] => ["bundle", "export", "viking://resources/docs", file, "-C", store];
  const names = passesOf(line(to("traced.ovpack")));
  for (const pass of chosenPasses(names)) {
    const file = to(`killed-${pass}.ovpack`);
    killAt(line(file), pass);
    if (fs.existsSync(file)) cairnOk(["bundle", "verify", file]);
    else assert.equal(cairn(line(file)).status, 0);
  }
});
