import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { FindNamesOptions, FindNamesResult } from "../../contract/index.ts";
import { testFolder } from "../testing-folder.ts";

test("names are found in all points, also of what is gone", async (t) => {
  const { client, folder } = await testFolder(t, { "src/Main.ts": "1", "src/old.ts": "1", "docs/main.md": "1" });
  const first = (await client.save()).save_point_id;
  rmSync(path.join(folder, "src/old.ts"));
  writeFileSync(path.join(folder, "src/Main.ts"), "2");
  const second = (await client.save()).save_point_id;
  writeFileSync(path.join(folder, "src/old.ts"), "back");
  const third = (await client.save()).save_point_id;
  rmSync(path.join(folder, "docs"), { recursive: true });
  const last = (await client.save()).save_point_id;
  const found = async (pattern: string, options: FindNamesOptions = {}): Promise<FindNamesResult["found"]> =>
    (await client.findNames(pattern, options)).found;

  assert.deepEqual(await found("old"), [
    { path: "src/old.ts", kind: "file", newest: last, oldest: first, points: 3, in_latest: true },
  ]);
  assert.deepEqual(await found("main"), [
    { path: "docs/main.md", kind: "file", newest: third, oldest: first, points: 3, in_latest: false },
  ]);
  assert.deepEqual(
    (await found("main", { ignoreCase: true })).map((each) => [each.path, each.points]),
    [
      ["docs/main.md", 3],
      ["src/Main.ts", 4],
    ],
  );
  assert.deepEqual(
    (await found("*.ts")).map((each) => each.path),
    ["src/Main.ts", "src/old.ts"],
  );
  assert.deepEqual(
    (await found("src/*.ts")).map((each) => each.path),
    ["src/Main.ts", "src/old.ts"],
  );
  assert.equal((await client.findNames("s", { limit: 1 })).truncated, true);
  await assert.rejects(client.findNames(""), { code: "usage" });
  assert.notEqual(second, third);
});
