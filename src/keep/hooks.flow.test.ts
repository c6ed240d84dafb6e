import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { backupScene } from "../backup/testing-far.ts";
import type { SaveResult } from "../contract/index.ts";

test("a folder that a callback of a backup saves gets none of the backup's dumps and runs", async (t) => {
  const { client, library, repository, root } = await backupScene(t, "local");
  const folder = join(root, "other");
  mkdirSync(folder);
  writeFileSync(join(folder, "letter"), "dear Ben");
  const other = await library.openOrInit(folder);
  t.after(async () => other.close());
  await client.setHooks({ beforeBackup: 'echo one > "$CAIRN_DUMPS/a"' });
  let saved: Promise<SaveResult> | undefined;
  await client.createBackup(repository, { onProgress: () => void (saved ??= other.save()) });
  const { cause, entries, hooks } = await saved!;
  assert.deepEqual([cause["hooks"], entries, hooks], [undefined, 1, undefined]);
  assert.deepEqual(
    [...(await client.show("head")).entries].some(({ path }) => path === ".cairn-dumps"),
    true,
  );
});
