import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";

const NONE = { CAIRN_NO_NATIVE: "1" };
const WHY = /would not have the exact times of their files, which copy records/u;

void test("clones are passed over where times cannot be exact: when an engine is chosen, by a save, by doctor", (t) => {
  const volume = loopFileSystem(t, "xfs");
  if (volume === null) return;
  const folder = path.join(volume.root, "work");
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "file"), "content");
  const asked = cairn(["init", "--engine", "reflink-copy", folder], { env: NONE });
  assert.equal(asked.error?.code, "unsupported", asked.stdout);
  assert.match(asked.error.message, WHY);

  cairnOk(["init", "--engine", "reflink-copy", folder]);
  const save = (
    env: Record<string, string>,
  ): { effective_engine: string; degraded: { what: string; reason: string }[] } =>
    cairnOk(["save"], { cwd: folder, env }).data["save_point"] as ReturnType<typeof save>;

  const without = save(NONE);
  assert.equal(without.effective_engine, "copy");
  assert.deepEqual(
    without.degraded.map(({ what }) => what),
    ["reflink-copy", "extended attributes, access lists and holes"],
  );
  assert.match(without.degraded[0]!.reason, WHY);
  const findings = cairn(["doctor"], { cwd: folder, env: NONE }).data["findings"] as { kind: string; detail: string }[];
  assert.match(findings.find(({ kind }) => kind === "engine")!.detail, WHY);

  // What macOS has too is enough.
  const portable = save({ CAIRN_NO_NATIVE: "linux" });
  assert.equal(portable.effective_engine, "reflink-copy");
  assert.deepEqual(
    portable.degraded.map(({ what }) => what),
    ["extended attributes, access lists and holes"],
  );
  assert.deepEqual(save({}).degraded, []);
});
