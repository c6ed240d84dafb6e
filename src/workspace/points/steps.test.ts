import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "../../crypto/hash.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import { decodeSteps, encodeSteps, type Step } from "./steps.ts";

const old = {
  inode: "12",
  mode: 0o100644,
  size: 3,
  mtimeSec: -1,
  mtimeNs: 5,
  ctimeSec: 1,
  ctimeNs: 6,
  links: 1,
};
const metadata = {
  type: "file",
  mode: 0o4755,
  uid: 1,
  gid: 2,
  mtimeSec: 1,
  mtimeNs: 2,
  xattrs: [{ name: "dXNlci5h", value: "" }],
  dropXattrs: ["dXNlci5i"],
} as const;
const at = Buffer.from("dir/a\xff", "latin1");
const STEPS: Record<Step["op"], object> = {
  remove: { old, kept: 3 },
  rmdir: { old },
  mkdir: {},
  put: { staged: 0, inode: "7", old },
  write: { staged: 1, inode: "8", old, oldSha256: "ab".repeat(32), sha256: "cd".repeat(32), metadata },
  meta: { old, metadata },
  dirmeta: { metadata },
};

function fileOf(step: object): Uint8Array {
  const whole = Buffer.concat([...encodeSteps({ steps: [], leftOut: [] })]).toString();
  const lines = `${whole.slice(0, whole.indexOf("\n") + 1)}${JSON.stringify(step)}\n`;
  const end = { op: "end", sha256: Buffer.from(sha256(Buffer.from(lines))).toString("hex") };
  return Buffer.from(`${lines}${JSON.stringify(end)}\n`);
}

test("decodeSteps returns the steps that encodeSteps wrote", () => {
  const steps = Object.entries(STEPS).map(([op, rest]) => ({ op, path: at, ...rest }) as Step);
  const leftOut = [{ path: Buffer.alloc(0), reason: "mounted", detail: "why" } as const];
  const read = decodeSteps(Buffer.concat([...encodeSteps({ steps, leftOut })]));
  assert.deepEqual(
    Array.from(read.steps, (step) => ({ ...step, path: Buffer.from(step.path) })),
    steps,
  );
  assert.deepEqual(read.leftOut, leftOut);
});

test("decodeSteps throws damaged for an invalid step, even if the checksum is right", () => {
  const path = at.toString("base64");
  for (const [op, rest] of Object.entries(STEPS)) {
    assert.equal(decodeSteps(fileOf({ op, path, ...rest })).steps.length, 1);
    for (const wrong of ["/etc/shadow", "../a", "a/../b", "a//b", "a\0b", ...(op === "dirmeta" ? [] : [""])])
      assert.throws(
        () => decodeSteps(fileOf({ op, ...rest, path: Buffer.from(wrong).toString("base64") })),
        hasCode("damaged"),
        `${op} ${wrong}`,
      );
  }
  const wrong: Record<string, object>[] = [
    { staged: { op: "put", path, inode: "7", old, staged: "/../../shadow" } },
    { digest: { op: "write", path, ...STEPS.write, sha256: "../" } },
    { kept: { op: "remove", path, old, kept: -1 } },
    { inode: { op: "put", path, staged: 0, inode: "7/..", old } },
    { old: { op: "meta", path, metadata, old: null } },
    { time: { op: "rmdir", path, old: { ...old, ctimeNs: 1e9 } } },
    { mode: { op: "meta", path, old, metadata: { ...metadata, mode: 0o104755 } } },
    { owner: { op: "dirmeta", path, metadata: { ...metadata, uid: -1 } } },
    { type: { op: "dirmeta", path, metadata: { ...metadata, type: "door" } } },
    { xattrs: { op: "meta", path, old, metadata: { ...metadata, xattrs: [{ name: 1, value: "" }] } } },
    { op: { op: "exec", path } },
    { inherited: { op: "constructor", path } },
  ];
  for (const each of wrong)
    for (const [what, step] of Object.entries(each))
      assert.throws(() => decodeSteps(fileOf(step)), hasCode("damaged"), what);
});
