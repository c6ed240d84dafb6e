import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, describe, test } from "node:test";
import { differencesOf, readFolder } from "../../test/fixtures/folder-state.ts";
import { JUICEFS_KINDS, makeJuicefs } from "../../test/fixtures/juicefs.ts";
import { makeFirst, makeSecond } from "../../test/fixtures/two-states.ts";
import { juicefsHolder } from "./juicefs-holder.ts";

for (const kind of JUICEFS_KINDS) {
  const made = makeJuicefs(kind);
  void describe(`the JuiceFS holder (${kind})`, { skip: "reason" in made ? made.reason : false }, () => {
    const volume = "reason" in made ? "" : made.root;
    const program = "reason" in made ? "" : path.join(made.programs, "juicefs");
    const holder = juicefsHolder({ program });
    const at = (...names: string[]): string => path.join(volume, ...names);
    after(() => {
      if (!("reason" in made)) made.close();
    });

    test("capture and materialise keep every entry while the folder changes", async () => {
      fs.mkdirSync(at("folder"));
      makeFirst(at("folder"));
      const first = readFolder(at("folder"));
      const held = await holder.capture(Buffer.from(at("folder")), at("held"), {});
      assert.deepEqual(held, { degraded: [], apart: [], torn: [] });
      makeSecond(at("folder"));
      assert.deepEqual(differencesOf(readFolder(at("held")), first), []);
      let seen = 0;
      await holder.materialise(at("held"), Buffer.from(at("given")), { onProgress: (done) => (seen = done) });
      assert.equal(seen, first.size - 1);
      assert.deepEqual(differencesOf(readFolder(at("given")), first), []);
      await holder.remove(at("held"));
      await holder.remove(at("held"));
      assert.ok(!fs.existsSync(at("held")));
    });
  });
}
