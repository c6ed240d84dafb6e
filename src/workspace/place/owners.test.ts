import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { controlPaths } from "./control-layout.ts";
import { requireNotOthers, unlessNotOwn } from "./owners.ts";

test("unlessNotOwn returns the error unchanged if the control directory does not exist", (context) => {
  const directory = mkdtempSync(join(tmpdir(), "cairn-owner-"));
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  const control = controlPaths(join(directory, "gone"));
  const error = new CairnError("permission", `open ${control.file}: permission denied`);
  assert.equal(unlessNotOwn(control, error), error);
  requireNotOthers(control);
});
