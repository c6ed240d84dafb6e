import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { ByteWriter } from "../../formats/bytes.ts";
import { encodeHeaderEntry } from "../../formats/restic/pack-header.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { LiveSet } from "./live.ts";

test("LiveSet.mark tells of each unreadable tree, also of those that `problems` has no room for", async () => {
  const ids = Array.from({ length: 10_020 }, (_, at) => Buffer.alloc(32, `tree ${at} `));
  const header = new ByteWriter();
  for (const id of ids) encodeHeaderEntry(header, { id, type: "tree", length: 100, uncompressedLength: 0 });
  const index = new BlobIndex();
  index.addPackHeader(Buffer.alloc(32, 1), header.copy());
  const live = new LiveSet(index);
  const error = new CairnError("damaged", "unreadable");
  const told = new Set<string>();
  await live.mark(
    ids,
    () => {
      throw error;
    },
    { onDamagedTree: (id) => void told.add(id) },
  );
  assert.deepEqual([...told].toSorted(), ids.map((id) => id.toString("hex")).toSorted());
  assert.equal(live.problems.length, 10_000);
});
