import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

const SKIP =
  process.platform === "linux" && process.getuid?.() === 0 ? false : "needs root to become another user, on Linux";

test("a conversion is refused in words for people when other users' processes cannot be asked", { skip: SKIP }, () => {
  const module = new URL("convert-checks.ts", import.meta.url).pathname;
  const script = `process.setgid(65534); process.setuid(65534);
import(${JSON.stringify(module)}).then(({ requireNoHolders }) => requireNoHolders(Buffer.from("/tmp"), undefined))
  .catch(({ code, message, hint }) => console.log([code, message, hint].join("|")));`;
  const child = spawnSync(process.execPath, ["-e", script], { encoding: "utf8" });
  assert.match(
    child.stdout,
    /^refused\|.*cannot be known: (?:.*; )?processes of other users do not show what they have open.*\|.*--allow holders/,
    child.stderr,
  );
  assert.doesNotMatch(child.stdout, /unreadable-processes/);
});
