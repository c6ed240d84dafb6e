import assert from "node:assert/strict";
import fs from "node:fs";
import { checkedSnapshots, PASSWORD, twoBackups, withRepository } from "./cut-repository.ts";
import { cutPower } from "./power-cuts.ts";

/** Commands that change the passwords of a repository; the power is cut at any time. */

cutPower(
  "a power cut during backup key add leaves the password, and a new one that opens or is not there",
  async (live) => {
    const options = await twoBackups(live);
    fs.writeFileSync(live.at("new-password"), "another\n");
    return {
      args: ["backup", "key", "add", "--new-password-file", live.at("new-password"), ...options],
      look: async () => {
        assert.equal(await checkedSnapshots(live), 2);
        return withRepository(live, async () => true, "another").catch((error: { code?: string }) => error.code);
      },
    };
  },
);

cutPower("a power cut during backup key passwd leaves the old password or the new one", async (live) => {
  const options = await twoBackups(live);
  fs.writeFileSync(live.at("new-password"), "another\n");
  const opens = (password: string): Promise<boolean> =>
    withRepository(live, async () => true, password).catch(() => false);
  return {
    args: ["backup", "key", "passwd", "--new-password-file", live.at("new-password"), ...options],
    // Both open it if the old key was not removed yet.
    look: async () => {
      const [old, changed] = [await opens(PASSWORD), await opens("another")];
      assert.ok(old || changed, "a password opens the repository");
      return changed ? "new" : "old";
    },
  };
});
