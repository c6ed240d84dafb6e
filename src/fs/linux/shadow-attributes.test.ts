import assert from "node:assert/strict";
import { test } from "node:test";
import { isShadow, withoutShadows } from "./shadow-attributes.ts";

function kept(...names: string[]): string[] {
  const list = Buffer.from(names.map((name) => `${name}\0`).join(""), "latin1");
  const length = withoutShadows(list.length, list);
  return list.toString("latin1", 0, length).split("\0").slice(0, -1);
}

test("withoutShadows removes SGI_ACL attributes from a list at every position", () => {
  const shadows = ["trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT"];
  assert.deepEqual(kept(shadows[0]!, "user.a", shadows[1]!, "user.b"), ["user.a", "user.b"]);
  assert.deepEqual(kept("user.a", ...shadows), ["user.a"]);
  assert.deepEqual(kept(...shadows), []);
  assert.ok(shadows.every((name) => isShadow(Buffer.from(name))));
});

test("withoutShadows keeps attributes whose names only resemble SGI_ACL attributes", () => {
  const names = ["user.trusted.SGI_ACL_FILE", "trusted.SGI_ACL_", "trusted.other"];
  assert.deepEqual(kept(...names), names);
  assert.ok(!names.some((name) => isShadow(Buffer.from(name))));
});

test("withoutShadows returns an error number or an empty list unchanged", () => {
  assert.deepEqual([withoutShadows(-95, Buffer.alloc(0)), withoutShadows(0, Buffer.alloc(0))], [-95, 0]);
});
