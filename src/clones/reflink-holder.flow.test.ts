import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { after, describe, test } from "node:test";
import { differencesOf, readFolder } from "../../test/fixtures/folder-state.ts";
import { loopFileSystem, makeLoopFileSystem } from "../../test/fixtures/loop-file-system.ts";
import { makeFirst, makeSecond } from "../../test/fixtures/two-states.ts";
import { reflinkHolder } from "./reflink-holder.ts";

const MODULE = new URL("reflink-holder.ts", import.meta.url).href;
const made = makeLoopFileSystem("xfs");
const holder = reflinkHolder();

function assertEqual(is: string, wanted: ReturnType<typeof readFolder>): void {
  assert.deepEqual(differencesOf(readFolder(is), wanted), []);
}

/** A folder with many directories of all modes. */
function makeMany(root: string): void {
  for (let d = 0; d < 80; d++) {
    const folder = path.join(root, `${d % 8}`, `${d}`);
    fs.mkdirSync(folder, { recursive: true });
    for (let i = 0; i < 50; i++) fs.writeFileSync(path.join(folder, `${i}`), "x".repeat(10 + i));
    fs.chmodSync(folder, [0o755, 0o500, 0, 0o3770][d % 4]!);
  }
}

void describe("the reflink holder", { skip: "reason" in made ? made.reason : false }, () => {
  const volume = "reason" in made ? "" : made.root;
  const at = (...names: string[]): string => path.join(volume, ...names);
  after(() => {
    if (!("reason" in made)) made.close();
  });

  test("capture and materialise keep every entry while the folder changes", async () => {
    fs.mkdirSync(at("folder"));
    makeFirst(at("folder"));
    const first = readFolder(at("folder"));
    const held = await holder.capture(Buffer.from(at("folder")), at("held"), {});
    assert.deepEqual(held.degraded, []);
    assert.equal(held.result.entries, first.size - 1);
    makeSecond(at("folder"));
    assertEqual(at("held"), first);
    let seen = 0;
    const given = await holder.materialise(at("held"), Buffer.from(at("given")), {
      onProgress: (done) => (seen = done),
    });
    assert.deepEqual(given.degraded, []);
    assert.equal(seen, given.result.entries);
    assertEqual(at("given"), first);
    await holder.remove(at("held"));
    await holder.remove(at("held"));
    assertEqual(at("given"), first);
    assert.ok(!fs.existsSync(at("held")));
  });

  test("capture leaves nothing if it is stopped, and does not change an existing target", async () => {
    makeMany(at("many"));
    const abort = new AbortController();
    const capturing = holder.capture(Buffer.from(at("many")), at("stopped"), { signal: abort.signal });
    setTimeout(() => abort.abort(), 20);
    await capturing.then(
      () => holder.remove(at("stopped")),
      (error: unknown) => assert.equal((error as { code: string }).code, "interrupted"),
    );
    assert.ok(!fs.existsSync(at("stopped")));
    fs.mkdirSync(at("taken/inside"), { recursive: true });
    await assert.rejects(holder.capture(Buffer.from(at("many")), at("taken"), {}), { code: "already_exists" });
    assert.ok(fs.existsSync(at("taken/inside")));
    await assert.rejects(holder.capture(Buffer.from(at("nowhere")), at("place"), {}), { code: "not_found" });
    assert.ok(!fs.existsSync(at("place")));
  });

  test("remove deletes the leftovers of a killed capture", async () => {
    makeMany(at("large"));
    for (const after of [40, 80, 140]) {
      const script = `const { reflinkHolder } = await import(${JSON.stringify(MODULE)});
        process.stdout.write("ready");
        for (let i = 0; ; i++) await reflinkHolder().capture(Buffer.from(process.argv[1]), process.argv[2] + i, {});`;
      const child = spawn(process.execPath, ["--input-type=module", "-e", script, at("large"), at(`killed-${after}-`)]);
      await once(child.stdout, "data");
      await new Promise((resolve) => setTimeout(resolve, after));
      child.kill("SIGKILL");
      await once(child, "exit");
    }
    const left = fs.readdirSync(volume).filter((name) => name.startsWith("killed"));
    for (const name of left) await holder.remove(at(name));
    assert.deepEqual(
      fs.readdirSync(volume).filter((name) => name.startsWith("killed")),
      [],
    );
  });

  test("capture leaves nothing if the disk is full", async (t) => {
    const small = loopFileSystem(t, "xfs");
    if (small === null) return;
    const folder = path.join(small.root, "folder");
    makeMany(folder);
    // What is set aside for files that were just written is free again.
    small.remount();
    fs.mkdirSync(path.join(small.root, "fillers"));
    for (let size = 16 << 20, i = 0; size >= 65_536; i++) {
      const filler = path.join(small.root, "fillers", `${size}-${i}`);
      if (spawnSync("fallocate", ["-l", `${size}`, filler]).status !== 0) size >>= 4;
    }
    // Room for a part of it.
    const one = fs.readdirSync(path.join(small.root, "fillers")).find((name) => name.startsWith(`${1 << 20}-`));
    fs.rmSync(path.join(small.root, "fillers", one!));
    await assert.rejects(holder.capture(Buffer.from(folder), path.join(small.root, "held"), {}), { code: "no_space" });
    assert.deepEqual(fs.readdirSync(small.root).toSorted(), ["fillers", "folder"]);
  });

  test("capture refuses a target inside the folder", async () => {
    fs.mkdirSync(at("outer/inner"), { recursive: true });
    await assert.rejects(holder.capture(Buffer.from(at("outer")), at("outer/inner/held"), {}), { code: "refused" });
    assert.deepEqual(fs.readdirSync(at("outer/inner")), []);
  });

  test("remove follows no symbolic link", async () => {
    fs.mkdirSync(at("outside"));
    fs.writeFileSync(at("outside/kept"), "kept");
    fs.mkdirSync(at("with-link"));
    fs.symlinkSync("../outside", at("with-link/link"));
    await holder.remove(at("with-link"));
    fs.symlinkSync("outside", at("link"));
    await assert.rejects(holder.remove(at("link")), { code: "refused" });
    assert.equal(fs.readFileSync(at("outside/kept"), "utf8"), "kept");
  });

  test("capture refuses a file system that cannot clone", async (t) => {
    const other = loopFileSystem(t, "ext4");
    if (other === null) return;
    fs.mkdirSync(path.join(other.root, "folder"));
    await assert.rejects(
      holder.capture(Buffer.from(path.join(other.root, "folder")), path.join(other.root, "held"), {}),
      {
        code: "unsupported",
      },
    );
    assert.ok(!fs.existsSync(path.join(other.root, "held")));
  });
});
