import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { CairnError } from "../../errors.ts";
import { checkSpace } from "./guards.ts";
import { existingAncestor, hasRoom, requireRoom, roomAt } from "./room.ts";

test("a save and a restore leave the same share of a small file system to others", (t) => {
  const disk = loopFileSystem(t, "ext4", { size: 24 << 20 });
  if (disk === null) return;
  const place = join(disk.root, "not/yet");
  const { freeBytes, reserveBytes } = roomAt(place);
  assert.ok(reserveBytes > 0 && reserveBytes < 1 << 20, `${reserveBytes}`);
  const most = freeBytes - reserveBytes;
  checkSpace(place, most);
  requireRoom(place, most, { hint: "" });
  assert.deepEqual([hasRoom(place, most), hasRoom(place, most + 1)], [true, false]);
  for (const check of [checkSpace, (at: string, bytes: number) => requireRoom(at, bytes, { hint: "" })])
    assert.throws(
      () => check(place, most + 1),
      (error) =>
        error instanceof CairnError &&
        error.details?.["needed_bytes"] === most + 1 &&
        / free; .* on it$/.test(error.message),
    );
});

test("the nearest folder that is there is found above raw names and relative ones", () => {
  const odd = Buffer.concat([Buffer.from("/proc/self/none/"), Buffer.of(0xff), Buffer.from("/deep")]);
  assert.equal(existingAncestor(odd).toString(), "/proc/self");
  assert.equal(existingAncestor("none-here/deep").toString(), ".");
  assert.equal(existingAncestor("/").toString(), "/");
});
