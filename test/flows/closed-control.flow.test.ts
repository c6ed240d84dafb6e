import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, describe, test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { installForOrdinaryUser, type OrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { newFolder } from "../fixtures/work.ts";

/** A self-contained workspace whose control directory this user may not enter is not begun anew. */

describe("a self-contained workspace of another user", { skip: whyNoOrdinaryUser() ?? false }, () => {
  let user: OrdinaryUser;
  after(() => user?.remove());

  test("commands refuse a closed self-contained workspace of another user and begin no new one", () => {
    user = installForOrdinaryUser();
    const place = newFolder("closed");
    fs.chmodSync(place, 0o755);
    for (let at = path.dirname(place); at !== "/"; at = path.dirname(at)) fs.chmodSync(at, fs.statSync(at).mode | 0o11);
    const whole = path.join(place, "whole");
    cairnOk(["init", whole, "--self-contained"]);
    fs.chmodSync(whole, 0o777);
    fs.writeFileSync(path.join(whole, "main/a"), "a\n");
    cairnOk(["save", "-C", whole]);
    for (const at of [whole, path.join(whole, "main")])
      for (const command of [["status"], ["history"], ["save"], ["restore", "latest"]]) {
        const refused = cairn([...command, "-C", at], user.optionsIn("/"));
        assert.deepEqual([refused.status, refused.error?.code], [9, "permission"], `${command.join(" ")} ${at}`);
        assert.match(refused.error!.message, /\.cairn, which you may not enter; it belongs to the user 0$/);
        assert.match(refused.error!.hint!, /sudo -u '#0' cairn/);
      }
    assert.deepEqual(fs.readdirSync(path.join(user.place, "state")), []);
  });
});
