import assert from "node:assert/strict";
import { test } from "node:test";
import { advice, CairnError, call, type Hint, see } from "../errors.ts";
import type { Context } from "./context.ts";
import { hintHere } from "./hint-here.ts";
import { Input } from "./input.ts";

async function hintOf(hint: Hint, place: string[], options: Record<string, string> = {}): Promise<string | undefined> {
  const context = { placeWords: () => place } as unknown as Context;
  const error = await hintHere(new CairnError("not_found", "no", { hint }), context, new Input([], options));
  return error.hint;
}

test("the commands of a hint name the folder and the repository that the failed command named", async () => {
  const place = ["-C", "/a/my docs"];
  assert.equal(await hintOf(see("history"), place), "see `cairn -C '/a/my docs' history`");
  assert.equal(await hintOf(see("history"), []), "see `cairn history`");
  assert.equal(await hintOf(see("workspaces", "listWorkspaces"), place), "see `cairn workspaces`");
  const release = call("release '/b'", "release");
  assert.equal(await hintOf(release, place), "`cairn release '/b'`");
  const list = advice`${call("backup list", "list")} lists, ${call("history")} too`;
  assert.equal(
    await hintOf(list, ["-C", "/a"], { repo: "/r$&", passwordFile: "pw" }),
    "`cairn backup list -r '/r$&' --password-file pw` lists, `cairn -C /a history` too",
  );
  assert.equal(await hintOf(list, ["-C", "/a"]), "`cairn -C /a backup list` lists, `cairn -C /a history` too");
});

test("a hint does not repeat the password in a repository's address", async () => {
  const repo = "rest:https://ann:secret@host/";
  assert.equal(await hintOf(see("backup list", "list"), [], { repo }), "see `cairn backup list`");
});

test("a folder whose name cannot be made absolute leaves the hint as it is", async () => {
  const context = {
    placeWords: () => {
      throw new Error("the current folder is gone");
    },
  } as unknown as Context;
  const error = new CairnError("not_found", "no", { hint: see("history") });
  assert.equal(await hintHere(error, context, new Input([], {})), error);
});
