import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { checkLayers } from "./check-layers.ts";

function tree(t: TestContext, files: Readonly<Record<string, string>>): string {
  const source = mkdtempSync(path.join(os.tmpdir(), "layers-"));
  t.after(() => rmSync(source, { recursive: true }));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(source, name)), { recursive: true });
    writeFileSync(path.join(source, name), text);
  }
  return source;
}

const ROOMS = {
  room: [
    { folders: ["low"], reason: "low knows nothing" },
    { folders: ["left", "right"], reason: "two that do not know each other" },
    { folders: ["."], reason: "the door" },
  ],
};
const messages = (source: string): string[] =>
  checkLayers(source, ROOMS).map(({ file, message }) => `${file}: ${message}`);
const SOUND = {
  "room/low/a.ts": "export const a = 1;\n",
  "room/left/b.ts": 'import { a } from "../low/a.ts";\nexport const b = a;\n',
  "room/right/c.ts": 'import type { B } from "../left/b.ts";\nexport const c = 1;\n',
  "room/door.ts": 'import { b } from "./left/b.ts";\nimport { c } from "./right/c.ts";\nexport const d = b + c;\n',
};

test("values from lower layers and types from any layer are no finding", (t) => {
  assert.deepEqual(messages(tree(t, SOUND)), []);
});

test("a value imported from a higher layer or the same row is a finding, even by a dynamic import", (t) => {
  for (const [file, text] of [
    ["room/low/a.ts", 'import { b } from "../left/b.ts";\nexport const a = b;\n'],
    ["room/right/c.ts", 'import { b } from "../left/b.ts";\nexport const c = b;\n'],
    ["room/left/b.ts", 'export const b = await import("../door.ts");\n'],
  ] as const) {
    const found = messages(tree(t, { ...SOUND, [file]: text }));
    assert.equal(found.length, 1, found.join("\n"));
    assert.match(found[0]!, new RegExp(`^${file}: may not import`));
  }
});

test("a folder without a row, a row without files, and a room with folders but no rows are findings", (t) => {
  const source = tree(t, { ...SOUND, "room/new/e.ts": "export const e = 1;\n", "hall/f/g.ts": "", "hall/h.ts": "" });
  rmSync(path.join(source, "room/right"), { recursive: true });
  writeFileSync(path.join(source, "room/door.ts"), "");
  assert.deepEqual(
    messages(source)
      .map((each) => each.split(":")[0])
      .toSorted(),
    ["hall/.", "hall/f", "room/new", "room/right"],
  );
});
