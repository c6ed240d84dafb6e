import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Caller } from "./peer.ts";
import { NotAdmitted, Tokens } from "./tokens.ts";

const ANN: Caller = { pid: 1, uid: 1000, gid: 1000, isAgent: false, token: null, only: null };
const WORKSPACE = { id: "0a".repeat(16), path: "/work" };

function tokensIn(t: TestContext): Tokens {
  const folder = mkdtempSync(join(tmpdir(), "cairn-tokens-"));
  t.after(() => rmSync(folder, { recursive: true }));
  return new Tokens(folder);
}

const none: ReadonlySet<number> = new Set();

test("a token names its maker and its workspaces, and a wrong secret is not admitted", (t) => {
  const tokens = tokensIn(t);
  const { token, token_id: id } = tokens.create(ANN, {}, [WORKSPACE as never]);
  const { caller } = tokens.admit(`Bearer ${token}`, none);
  assert.deepEqual([caller.uid, caller.isAgent, caller.token, [...caller.only!]], [1000, true, id, [WORKSPACE.id]]);
  const wrong = token.slice(0, -1) + (token.endsWith("0") ? "1" : "0");
  for (const header of [undefined, "Bearer x", `Bearer ${wrong}`])
    assert.throws(() => tokens.admit(header, none), NotAdmitted);
});

test("a token is not admitted after its time", (t) => {
  const tokens = tokensIn(t);
  const { token } = tokens.create(ANN, { expires: "1h" }, [WORKSPACE as never]);
  tokens.admit(`Bearer ${token}`, none);
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() + 3_600_001 });
  assert.throws(() => tokens.admit(`Bearer ${token}`, none), NotAdmitted);
});

test("the calls of a token end when it is revoked, and another user cannot revoke it", (t) => {
  const tokens = tokensIn(t);
  const { token, token_id: id } = tokens.create(ANN, {}, [WORKSPACE as never]);
  const { revoked } = tokens.admit(`Bearer ${token}`, none);
  assert.throws(() => tokens.revoke({ ...ANN, uid: 1001 }, id), { code: "not_found" });
  assert.equal(revoked.aborted, false);
  tokens.revoke(ANN, id);
  assert.equal(revoked.aborted, true);
  assert.throws(() => tokens.admit(`Bearer ${token}`, none), NotAdmitted);
});
