import assert from "node:assert/strict";
import { test } from "node:test";
import {
  advice,
  adviceOf,
  CairnError,
  errnoOf,
  call,
  either,
  type Hint,
  line,
  option,
  reworded,
  see,
  toCairnError,
  word,
  worded,
} from "./errors.ts";
import { errorOf, tellError } from "./contract/error-record.ts";

test("toCairnError maps a system error to a code, with a hint for a full disk", () => {
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  const told = toCairnError(full, "writing a pack");
  assert.deepEqual([told.code, told.message], ["no_space", `writing a pack: ${full.message}`]);
  assert.match(told.hint ?? "", /^free some space/);
  assert.equal(told.cause, full);
  const missing = toCairnError(Object.assign(new Error("ENOENT"), { code: "ENOENT" }));
  assert.deepEqual([missing.code, missing.hint], ["not_found", undefined]);
  const long = toCairnError(Object.assign(new Error("ENAMETOOLONG: name too long"), { code: "ENAMETOOLONG" }));
  assert.deepEqual([long.code, long.retryable], ["unsupported", false]);
  assert.equal(toCairnError(new TypeError("x is not a function")).code, "internal");
  const memory = toCairnError(new RangeError("Array buffer allocation failed"));
  assert.deepEqual([memory.code, memory.retryable], ["io", true]);
  assert.match(memory.hint ?? "", /more memory/);
  const kernel = new RangeError("WebAssembly.Instance(): Out of memory: Cannot allocate Wasm memory for new instance");
  assert.deepEqual([toCairnError(kernel).code, toCairnError(kernel).hint], ["io", memory.hint]);
  assert.equal(toCairnError(new RangeError("Invalid array buffer length")).code, "internal");
  const lost = toCairnError(Object.assign(new Error("Cannot find module 'koffi'"), { code: "MODULE_NOT_FOUND" }));
  assert.deepEqual([lost.code, lost.retryable], ["unsupported", false]);
  const denied = Object.assign(new Error("fsync API is disabled"), { code: "ERR_ACCESS_DENIED" });
  assert.match(toCairnError(denied).hint ?? "", /without `--permission`/);
  assert.equal(toCairnError(denied).code, "unsupported");
  assert.equal(toCairnError(told), told);
});

test("toCairnError names the errors that Node does not name", () => {
  const of = (errno: number): Error => {
    const words = `Unknown system error ${errno}`;
    return Object.assign(new Error(`${words}: ${words}, stat '/a'`), { code: words, errno, syscall: "stat" });
  };
  const stale = toCairnError(of(-116), "look");
  assert.deepEqual([stale.code, stale.message], ["io", "look: ESTALE: stale file handle, stat '/a'"]);
  assert.match(stale.hint ?? "", /mount the file system again/);
  assert.equal(errnoOf(of(-116)), "ESTALE");
  const full = toCairnError(of(-122));
  assert.deepEqual([full.code, full.exitStatus], ["no_space", 8]);
  assert.equal(toCairnError(of(-9999)).code, "io");
});

test("toCairnError cuts a path of thousands of characters in the message", () => {
  const path = `/begin/${"x".repeat(3000)}/end`;
  const error = Object.assign(new Error(`ENAMETOOLONG: name too long, rename '${path}' -> '${path}'`), {
    code: "ENAMETOOLONG",
  });
  const { message } = toCairnError(error, "move");
  assert.ok(message.length < 800, message);
  assert.match(message, /^move: ENAMETOOLONG: name too long, rename '\/begin\/x+…x+\/end' -> '\/begin\/x+…x+\/end'$/);
});

test("reworded keeps the fields of an error that are not given", () => {
  const first = new CairnError("busy", "locked by 7", { hint: "wait", details: { pid: 7 } });
  const other = reworded(first, { message: "the store is locked by 7" });
  assert.deepEqual(
    [other.code, other.message, other.hint, other.details, other.cause],
    ["busy", "the store is locked by 7", "wait", { pid: 7 }, first],
  );
  const cause = new Error("why");
  const hinted = reworded(first, { hint: "go", cause });
  assert.deepEqual([hinted.message, hinted.hint, hinted.cause], ["locked by 7", "go", cause]);
});

test("toCairnError reports the first failure if a cleanup failed after it", () => {
  const first = Object.assign(new Error("ENOTCONN: socket is not connected, read"), { code: "ENOTCONN" });
  const both = new SuppressedError(new Error("close failed"), first, "An error was suppressed during disposal");
  const told = toCairnError(both, "read a file");
  assert.equal(told.code, toCairnError(first).code);
  assert.match(told.message, /^read a file: ENOTCONN/);
  assert.match(told.hint ?? "", /mount the file system again/);
});

test("a hint names the command for people, and the same call for programs", () => {
  const repair = call("doctor --repair", "doctor", { repair: true });
  const said: readonly (readonly [Hint, string, string])[] = [
    [advice`run ${repair}`, "run `cairn doctor --repair`", "run `doctor({ repair: true })`"],
    [
      advice`to make this folder itself the workspace, run: ${line("init '/a b'", "openOrInit", "/a b")}`,
      "to make this folder itself the workspace, run: cairn init '/a b'",
      'to make this folder itself the workspace, run: `openOrInit("/a b")`',
    ],
    [
      advice`choose another folder, or override with ${option({ allow: ["home"] })}`,
      "choose another folder, or override with --allow home",
      'choose another folder, or override with `allow: ["home"]`',
    ],
    [
      advice`${call("backup repair packs", "repair", { what: "packs" })} first: it saves`,
      "`cairn backup repair packs` first: it saves",
      '`repair({ what: "packs" })` first: it saves',
    ],
    [see("history"), "see `cairn history`", "see `history()`"],
    [option("throughSqlite"), "--through-sqlite", "`throughSqlite`"],
    [option({ save: false }), "--no-save", "`save: false`"],
    [option("controlDirectory"), "--control-dir", "`controlDirectory`"],
    [call("why PATH", "why", word("path"), { limit: word("limit") }), "`cairn why PATH`", "`why(path, { limit })`"],
    [
      advice`the next ${either("command", "call")}; ${advice`in ${2}`}`,
      "the next command; in 2",
      "the next call; in 2",
    ],
  ];
  for (const [hint, typed, called] of said) {
    assert.equal(worded(hint), typed);
    assert.equal(
      worded(hint, (part) => part.called),
      called,
    );
    assert.equal(new CairnError("usage", "no", { hint }).hint, typed);
  }
});

test("a hint keeps its calls in copies of the error, and across threads and sockets", () => {
  const hint = advice`run ${call("doctor --repair", "doctor", { repair: true })}`;
  const error = reworded(new CairnError("damaged", "lost", { hint }), { message: "all lost" });
  assert.equal(error.hint, "run `cairn doctor --repair`");
  assert.deepEqual(adviceOf(error), hint);
  assert.deepEqual(adviceOf(new CairnError("damaged", "lost", { hint: structuredClone(hint) })), hint);
  const arrived = errorOf(JSON.parse(JSON.stringify(tellError(error))) as ReturnType<typeof tellError>);
  assert.deepEqual([arrived.hint, adviceOf(arrived)], [error.hint, hint]);
  const plain = new CairnError("io", "no", { hint: "wait" });
  assert.deepEqual([adviceOf(plain), "advice" in tellError(plain)], ["wait", false]);
});

test("the compiler refuses a hint that names a verb or an option that does not exist", () => {
  // @ts-expect-error there is no such verb
  call("doctor", "docter");
  // @ts-expect-error nor is it a verb without a command of another name
  see("workspaces");
  // @ts-expect-error the verb has no such option
  call("doctor --repair", "doctor", { repairs: true });
  // @ts-expect-error the option takes no such value
  call("backup repair packs", "repair", { what: "pack" });
  // @ts-expect-error no verb has such an option
  option("overwritten");
  // @ts-expect-error no verb has such an option
  option({ overwritten: true });
});
