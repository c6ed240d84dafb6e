import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { flushFileSystem } from "../../fs/flush.ts";
import { nativeAvailable } from "../../native.ts";
import { scan } from "./scan.ts";

const unable = nativeAvailable() ? false : "without native calls the system's memory is read";

for (const [what, size] of [
  ["small", 20_000],
  ["large", 3 << 20],
] as const) {
  test(
    `a ${what} file is read from the disk, not from memory, where that is asked for`,
    { skip: unable },
    async (t) => {
      const disk = loopFileSystem(t, "ext4");
      if (disk === null) return;
      const folder = path.join(disk.root, "folder");
      fs.mkdirSync(folder);
      const content = randomBytes(size);
      fs.writeFileSync(path.join(folder, "file"), content);
      await flushFileSystem(folder);
      const look = async (fromDisk: boolean): Promise<string> => {
        const { state } = await scan({
          root: Buffer.from(folder),
          cache: null,
          excludes: [],
          rules: { excludes: [], files: [] },
          chunkerPolynomial: "3da3358b4dc173",
          fromDisk,
        });
        return Buffer.from(state).toString("hex");
      };
      const before = await look(true);
      assert.equal(await look(false), before);
      // The disk changes under the file system, which does not know.
      const image = fs.openSync(disk.image, "r+");
      const at = fs.readFileSync(disk.image).indexOf(content.subarray(8192, 8192 + 64));
      fs.writeSync(image, Buffer.from([content[8192]! ^ 1]), 0, 1, at);
      fs.closeSync(image);
      assert.equal(await look(false), before);
      assert.notEqual(await look(true), before);
    },
  );
}
