import assert from "node:assert/strict";
import { test } from "node:test";
import { advice, CairnError, call, type Hint, line, option, word } from "../../errors.ts";
import { answerTo } from "./answers.ts";

test("answerTo words a hint as requests, and leaves out a hint that names no request", () => {
  const messageOf = (hint: Hint): unknown =>
    JSON.parse(JSON.stringify(answerTo(new CairnError("usage", "no", { hint })))).body.error.message;
  assert.equal(messageOf("wait"), "no; wait");
  assert.equal(
    messageOf(advice`to replace it: ${option({ onConflict: "overwrite" })}`),
    "no; to replace it: on_conflict: overwrite",
  );
  const backup = line("bundle backup FILE", "backupContext", word("store"), word("file"));
  assert.equal(messageOf(advice`to pack all: ${backup}`), "no; to pack all: POST /api/v1/pack/backup");
  assert.equal(messageOf(advice`see ${call("doctor")}`), "no");
  assert.equal(messageOf(advice`to replace it: ${option("overwrite")}`), "no");
});
