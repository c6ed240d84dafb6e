import assert from "node:assert/strict";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { backupScene } from "../backup/testing-far.ts";
import type { SaveResult } from "../contract/index.ts";
import type { ScheduledRun } from "../formats/records/schedule.ts";
import type { BackupRow } from "./kept-runs.ts";
import { backupTasks, type Folder } from "./tasks.ts";

test("a scheduled restore check fails if rows name missing files or a probe could not run, as the command exits 10", async (t) => {
  const { client, library, options, folder, root } = await backupScene(t, "local");
  const database = new DatabaseSync(join(folder, "mail.db"));
  database.exec("CREATE TABLE t (path); INSERT INTO t VALUES ('gone'), ('here')");
  database.close();
  mkdirSync(join(folder, "att"));
  writeFileSync(join(folder, "att/here"), "");
  const asked = { with: ["mail.db=att"], rows: ["select path from t"] };
  const tool = join(root, "tool");
  writeFileSync(tool, "#!/bin/sh\necho yes\n", { mode: 0o700 });
  const saved = await client.save(asked);
  const row = {
    workspace: null,
    repository: "r",
    password_file: null,
    restore_check_every_ms: 1,
    probe: [tool],
  } as unknown as BackupRow;
  const served: Folder = { path: folder, id: client.workspace.id };
  const tasks = backupTasks([{ ...row, verify_every_ms: null, prune_every_ms: null }], () => [served], {
    openRepository: async () => library.openRepository(options),
    client: async () => client,
    save: async () => ({ ...saved, left_out: [] }) as SaveResult,
    warn: () => undefined,
    now: Date.now,
  });
  const run = async (kind: string): Promise<unknown> =>
    tasks.find((each) => each.kind === kind)!.run({ signal: new AbortController().signal, before: {} as ScheduledRun });
  const rows = /1 row of mail\.db names a missing or different file/;
  await assert.rejects(run("backup"), { code: "conflict", message: rows });
  await assert.rejects(run("restore-check"), { code: "conflict", message: rows });
  rmSync(tool);
  await assert.rejects(run("restore-check"), { message: /different file; the probe \S+ was not run/ });
  // Without queries and with its program, the check passes.
  writeFileSync(tool, "#!/bin/sh\necho yes\n", { mode: 0o700 });
  saved.save_point_id = (await client.save()).save_point_id;
  await run("backup");
  await run("restore-check");
});
