import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import { differencesOf, readFolder } from "../../test/fixtures/folder-state.ts";
import { makeFirst, makeSecond } from "../../test/fixtures/two-states.ts";
import type { TreeHolder } from "./holder.ts";

/** Claims that hold for every {@link TreeHolder}. */

export interface HolderScene {
  /** An empty folder that the holder can capture. Nothing else is in its directory. */
  root: string;
  /** The path of a name beside `root`. */
  at(name: string): string;
}

/** Registers the tests of a holder. `scene` makes a fresh directory. */
export function holderContract(holder: TreeHolder, scene: () => HolderScene | Promise<HolderScene>): void {
  test("capture and materialise keep every entry while the folder changes, and remove may be repeated", async () => {
    const { root, at } = await scene();
    makeFirst(root);
    const first = readFolder(root);
    const { degraded, torn } = await holder.capture(Buffer.from(root), at("held"), {});
    assert.deepEqual([degraded, torn], [[], []]);
    makeSecond(root);
    assert.deepEqual(differencesOf(readFolder(at("held")), first), []);
    let seen = 0;
    const onProgress = (done: number): void => void (seen = done);
    const given = await holder.materialise(at("held"), Buffer.from(at("given")), { onProgress });
    assert.deepEqual(given.degraded, []);
    assert.equal(seen, holder.atomic ? 0 : first.size - 1);
    assert.deepEqual(differencesOf(readFolder(at("given")), first), []);
    fs.writeFileSync(at("given/same/kept.txt"), "written");
    assert.deepEqual(differencesOf(readFolder(at("held")), first), []);
    for (const name of ["held", "held", "no/such/place"]) await holder.remove(at(name));
    assert.equal(fs.existsSync(at("held")), false);
    assert.equal(fs.readFileSync(at("given/same/kept.txt"), "utf8"), "written");
  });

  test("capture leaves an existing path as it is, and makes nothing without a parent or a folder", async () => {
    const { root, at } = await scene();
    fs.writeFileSync(`${root}/file`, "first");
    await holder.capture(Buffer.from(root), at("held"), {});
    fs.writeFileSync(`${root}/file`, "second");
    fs.mkdirSync(at("taken"));
    fs.writeFileSync(at("taken/file"), "kept");
    for (const [from, to, code] of [
      [root, "held", /already_exists/],
      [root, "taken", /already_exists/],
      [root, "root", /already_exists|refused/],
      // The program of JuiceFS does not say why.
      [root, "no/parent", /not_found|unsupported/],
      [at("gone"), "new", /not_found/],
    ] as const)
      await assert.rejects(holder.capture(Buffer.from(from), at(to), {}), { code }, to);
    assert.deepEqual(
      ["held/file", "taken/file"].map((name) => fs.readFileSync(at(name), "utf8")),
      ["first", "kept"],
    );
    assert.deepEqual([fs.existsSync(at("no")), fs.existsSync(at("new"))], [false, false]);
  });

  test("capture and materialise leave nothing if the caller stops them", async () => {
    const { root, at } = await scene();
    fs.writeFileSync(`${root}/waits`, Buffer.alloc(8 << 20, "to be written"));
    const before = fs.readdirSync(at(""));
    const aborted = { signal: AbortSignal.abort() };
    await assert.rejects(holder.capture(Buffer.from(root), at("held"), aborted), { code: "interrupted" });
    for (const begin of [
      async (signal: AbortSignal) => holder.capture(Buffer.from(root), at("held"), { signal }),
      async (signal: AbortSignal) => holder.materialise(root, Buffer.from(at("given")), { signal }),
    ]) {
      const stop = new AbortController();
      const running = begin(stop.signal);
      stop.abort();
      await assert.rejects(running, { code: "interrupted" });
    }
    assert.deepEqual(fs.readdirSync(at("")), before);
  });
}
