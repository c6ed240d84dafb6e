import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { testFolder } from "../keep/testing-folder.ts";

const ENTRY = new URL("../cli/program/entry.ts", import.meta.url).pathname;

for (const words of [["pin"], ["tag", "kept"], ["verify"]]) {
  const [verb] = words as [string];
  test(`save removes the temporary files of a killed ${verb}`, async (t) => {
    const { client, folder, write } = await testFolder(t, { a: "one" });
    const { save_point_id: id } = await client.save();
    const unfinished = (): string[] =>
      readdirSync(client.controlDirectory, { recursive: true, encoding: "utf8" }).filter((name) =>
        name.includes(".cairn-tmp-"),
      );
    let left = 0;
    for (let pass = 1, isKilled = true; isKilled; pass++) {
      const env = { ...process.env, CAIRN_FAILPOINT: `durable-staged:${pass}` };
      const args = [ENTRY, verb, id, ...words.slice(1), "-C", folder];
      const { signal, status, stderr } = spawnSync(process.execPath, args, { env, encoding: "utf8" });
      isKilled = signal === "SIGKILL";
      if (!isKilled) assert.equal(status, 0, stderr);
      left += unfinished().length;
      write("a", `two ${pass}`);
      await client.save();
      assert.deepEqual(unfinished(), [], `${verb} killed at write ${pass}`);
    }
    assert.ok(left > 0, "something was left");
  });
}
