import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { after, describe, test } from "node:test";
import { loopFileSystem, makeLoopFileSystem } from "../../test/fixtures/loop-file-system.ts";
import { holderContract } from "./holder.contract.ts";
import { reflinkHolder } from "./reflink-holder.ts";

const MODULE = new URL("reflink-holder.ts", import.meta.url).href;
const made = makeLoopFileSystem("xfs");
const holder = reflinkHolder();

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

  let scenes = 0;
  holderContract(holder, () => {
    const own = at(`scene-${scenes++}`);
    fs.mkdirSync(path.join(own, "root"), { recursive: true });
    return { root: path.join(own, "root"), at: (name) => path.join(own, name) };
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
