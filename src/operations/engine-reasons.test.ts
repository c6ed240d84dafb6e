import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { hasCode, testFolder } from "./testing-folder.ts";

test("status asks anew what works when the folder lies on another file system than the one that was asked", async (t) => {
  const { client } = await testFolder(t, { file: "x" });
  const file = path.join(client.controlDirectory, "cache/engines-main.json");
  const told = JSON.parse(fs.readFileSync(file, "utf8"));
  assert.equal(told.file_systems.length, 2);
  const old = { engine: "copy", chosen: true, reason: "as it was there" };
  fs.writeFileSync(file, JSON.stringify({ ...told, reasons: [old] }));
  assert.deepEqual((await client.status()).engine_reasons, [old]);
  fs.writeFileSync(file, JSON.stringify({ ...told, reasons: [old], file_systems: ["another", told.file_systems[1]] }));
  assert.deepEqual((await client.status()).engine_reasons, told.reasons);
  assert.deepEqual(JSON.parse(fs.readFileSync(file, "utf8")), told);
});

test("whether an engine works at a path that is not there is not asked of the file system", async (t) => {
  const { library, root } = await testFolder(t);
  await assert.rejects(library.validateEngine(path.join(root, "absent"), "reflink-copy"), hasCode("not_found"));
});
