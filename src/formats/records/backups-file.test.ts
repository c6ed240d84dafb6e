import assert from "node:assert/strict";
import { test } from "node:test";
import type { SavePointId } from "../../ids.ts";
import { decodeBackups, encodeBackups } from "./backups-file.ts";
import { everyCutIsDamage, everyFlipIsDamageOrDecodes } from "../hostile.contract.ts";

const NOTE = {
  repository_id: "a".repeat(64),
  location: "/srv/backups",
  snapshot_id: "b".repeat(64),
  save_point_id: "c".repeat(32) as SavePointId,
  at: "2026-11-20T09:15:19.123Z",
};

test("decodeBackups returns the encoded notes, and refuses truncated bytes as damaged", () => {
  const bytes = encodeBackups({ backups: [NOTE] });
  assert.deepEqual(decodeBackups(bytes).backups, [NOTE]);
  everyCutIsDamage(decodeBackups, bytes, { optionalTail: 1 });
  everyFlipIsDamageOrDecodes(decodeBackups, bytes);
});
