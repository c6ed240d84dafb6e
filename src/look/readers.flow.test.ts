import assert from "node:assert/strict";
import { test } from "node:test";
import { PointStore } from "../workspace/store/point-store.ts";
import { findWorkspace } from "../workspace/place/find-workspace.ts";
import { Workspace } from "../workspace/open/workspace.ts";
import type { WithBackups } from "./sources/operands.ts";
import { diff } from "./diff.ts";
import { history } from "./history.ts";
import { read } from "./read.ts";
import { show } from "./show.ts";
import { testFolder } from "../keep/testing-folder.ts";

test("diff, show, read and history work while other saves merge the store's packs", async (t) => {
  const { client, folder, write } = await testFolder(t, { "dir/a": "first" });
  const { save_point_id: first } = await client.save();
  write("dir/a", "second");
  const { save_point_id: second } = await client.save();
  const readers = Array.from(
    { length: 4 },
    () =>
      new Workspace(findWorkspace(folder)!, {
        engine: (found, options) => new PointStore({ ...options, control: found.control.root }),
        recoveries: [],
      }),
  );
  for (const reader of readers) await (reader.engine as PointStore).store();
  for (let i = 0; i < 40; i++) {
    write("other", `${i}`);
    await client.save();
  }
  const [differs, lists, reads, finds] = readers;
  assert.deepEqual(
    (await diff({ workspace: differs!, backups: noBackups }, first, second, {})).entries.map(({ path }) => path),
    ["dir/a"],
  );
  assert.deepEqual(
    (await show(lists!, first, "dir", {})).entries.map(({ path }) => path),
    ["dir/a"],
  );
  const pieces: Uint8Array[] = [];
  for await (const piece of read({ workspace: reads!, backups: noBackups }, first, "dir/a", {})) pieces.push(piece);
  assert.equal(Buffer.concat(pieces).toString(), "first");
  assert.equal((await history(finds!, 0, { path: "dir/a" })).save_points.length, 2);
  for (const reader of readers) await reader.close();
});

const noBackups: WithBackups = async () => assert.fail("no repository is opened");
