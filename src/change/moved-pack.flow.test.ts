import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openLibrary } from "../compose.ts";
import { nothing } from "../contract/schema.ts";
import { CairnError } from "../errors.ts";
import { workspaceVerb } from "../verbs/kinds/define.ts";

test("a reading verb is tried again if a pack is missing, but a writing verb is not", async (t) => {
  const scratch = mkdtempSync(join(tmpdir(), "cairn-moved-"));
  t.after(() => rmSync(scratch, { recursive: true, force: true }));
  const library = await openLibrary();
  await using client = await library.openOrInit(scratch, { controlDirectory: `${scratch}-control` });
  t.after(() => rmSync(`${scratch}-control`, { recursive: true, force: true }));
  const { perform } = client as unknown as { perform(verb: unknown, given: unknown[]): Promise<unknown> };
  const callsOf = async (looks: { looks?: true }): Promise<number> => {
    let calls = 0;
    const verb = workspaceVerb({
      about: "",
      output: nothing(),
      ...looks,
      run: () => {
        if (++calls === 1) throw new CairnError("damaged", "a pack is missing", { details: { missing_pack: "a" } });
      },
    });
    await perform.call(client, verb, [{}]).catch((error: unknown) => {
      assert.equal((error as CairnError).code, "damaged");
    });
    return calls;
  };
  assert.deepEqual([await callsOf({ looks: true }), await callsOf({})], [2, 1]);
});
