import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { asOrdinaryUser } from "../../../test/fixtures/loop-file-system.ts";

const SKIP =
  process.platform === "linux" && process.getuid?.() === 0 ? false : "needs root to become another user, on Linux";

test(
  "convert fails with a readable message if it cannot check which files other processes have open",
  { skip: SKIP },
  (t) => {
    // Where no process of that user has anything open.
    const folder = mkdtempSync(join(tmpdir(), "cairn-converted-"));
    t.after(() => rmSync(folder, { recursive: true }));
    chmodSync(folder, 0o755);
    const imports = { checks: new URL("replace-folder.ts", import.meta.url).href };
    const said = asOrdinaryUser(
      imports,
      `try { checks.requireNoHolders(Buffer.from(${JSON.stringify(folder)}), undefined); }
     catch ({ code, message, hint }) { return [code, message, hint].join("|"); }`,
    );
    assert.match(
      String(said),
      /^refused\|.*Cairn cannot find out if a process has files of the folder open: (?:.*; )?the open files of other users' processes are not visible.*\|.*--allow holders/,
    );
    assert.doesNotMatch(String(said), /unreadable-processes/);
  },
);
