import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { filesOf, newRepository, noRestic, restic, type TestRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";

const MIB = 1024 * 1024;

function sizesOf(place: TestRepository): number[] {
  return filesOf(place, "data").map((name) => fs.statSync(path.join(place.location, "data", name)).size);
}

/** Bytes of all packs; restic has read every one of them. */
function checkedSize(place: TestRepository): number {
  restic(place, "check", "--read-data");
  return sizesOf(place).reduce((sum, size) => sum + size, 0);
}

/** A folder that can be compressed well, by a high level better than by a low one. */
function textFolder(name: string): string {
  const folder = newFolder(name);
  for (let file = 0; file < 40; file++) {
    const lines = Array.from(
      { length: 2000 },
      (_, i) => `line ${(i * 7919 + file * 104729) % 3571} of ${(i * i) % 977}`,
    );
    fs.writeFileSync(path.join(folder, `text-${file}`), lines.join("\n"));
  }
  return folder;
}

test(
  "backup create compresses points and streams as --compression says, and restic reads the packs",
  { skip: noRestic },
  async () => {
    const folder = textFolder("compressed");
    const stream = ["--", "sh", "-c", "cat text-*"];
    const size = async (how: string, words: readonly string[], env: Record<string, string> = {}): Promise<number> => {
      const place = await newRepository(`compressed-${how}`);
      const style = how in { env: 1, auto: 1 } ? [] : ["--compression", how];
      const verb = words === stream ? "stream" : "create";
      cairnOk(["backup", verb, ...place.options, ...style, ...words], { cwd: folder, env });
      return checkedSize(place);
    };
    const saved: number[] = [];
    for (const words of [[], ["--no-save"], stream]) {
      const [auto, fastest] = [await size("auto", words), await size("fastest", words)];
      const [off, better, max] = [await size("off", words), await size("better", words), await size("max", words)];
      const sizes = `${words[0] ?? ""}: off ${off}, auto ${auto}, better ${better}, max ${max}`;
      assert.ok(off > 2 * auto && auto > better && better > max, sizes);
      assert.ok(Math.abs(fastest - auto) < auto / 50, sizes);
      saved.push(max);
    }
    const byVariable = await size("env", [], { RESTIC_COMPRESSION: "max" });
    assert.ok(Math.abs(byVariable - saved[0]!) < byVariable / 50, `${byVariable}, ${saved[0]}`);
  },
);

test(
  "backup create and copy write packs of the size that CAIRN_PACK_SIZE says, and restic reads them",
  { skip: noRestic },
  async () => {
    const folder = newFolder("sized");
    for (let file = 0; file < 26; file++) fs.writeFileSync(path.join(folder, `random-${file}`), randomBytes(MIB));
    const large = (place: TestRepository): number => sizesOf(place).filter((size) => size > 5.5 * MIB).length;
    const create = async (
      name: string,
      words: readonly string[],
      env: Record<string, string> = {},
    ): Promise<TestRepository> => {
      const place = await newRepository(name);
      cairnOk(["backup", "create", ...place.options, ...words], { cwd: folder, env });
      restic(place, "check", "--read-data");
      return place;
    };
    const usual = await create("usual", []);
    assert.ok(large(usual) > 0);
    // As it is saved, by threads, and by another compression.
    const small = { CAIRN_PACK_SIZE: "4" };
    for (const words of [[], ["--no-save"], ["--compression", "off"]])
      assert.equal(large(await create("small", words, small)), 0, words.join(" "));
    // Each thread fills a pack of its own.
    const wide = await create("wide", ["--jobs", "1"], { CAIRN_PACK_SIZE: "128" });
    assert.ok(Math.max(...sizesOf(wide)) > 24 * MIB);
    const target = await newRepository("copied");
    const to = ["--to", target.location, "--to-password-file", target.passwordFile];
    cairnOk(["backup", "copy", ...usual.options, ...to], { env: small });
    restic(target, "check", "--read-data");
    assert.equal(large(target), 0);
  },
);

test("backup create refuses a compression or pack size that restic does not accept", async () => {
  const line = ["backup", "create", "-r", path.join(SCRATCH, "nowhere")];
  assert.equal(cairn([...line, "--compression", "9"]).error?.code, "usage");
  for (const size of ["2", "129", "16MiB"]) {
    const refused = cairn(line, { env: { RESTIC_PACK_SIZE: size } }).error;
    assert.deepEqual(
      [refused?.code, /RESTIC_PACK_SIZE must be 4 to 128/.test(refused?.message ?? "")],
      ["usage", true],
    );
  }
});
