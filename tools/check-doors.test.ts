import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { checkDoors } from "./check-doors.ts";

const FILES = {
  "fs/a.ts": "",
  "fs/b.ts": 'import { a } from "./a.ts";\n',
  "fs/linux/c.ts": "",
  "fs/linux/deep/d.ts": "",
  "look/x.ts": 'import type { a } from "../fs/a.ts";\nimport { c } from "../fs/linux/c.ts";\n',
  "index.ts": 'const x = await import("./look/x.ts");\n',
};

/** The errors of these rooms, if the README.md of fs has `doors`. */
function found(t: TestContext, doors: string): string[] {
  const source = mkdtempSync(path.join(tmpdir(), "cairn-doors-"));
  t.after(() => rmSync(source, { recursive: true }));
  const readmes = { "fs/README.md": `# fs\n\n${doors}\n`, "look/README.md": "# look\n\nDoor: `x.ts`.\n" };
  for (const [file, text] of Object.entries({ ...FILES, ...readmes })) {
    mkdirSync(path.dirname(path.join(source, file)), { recursive: true });
    writeFileSync(path.join(source, file), text);
  }
  return checkDoors(source).map(({ file, message }) => `${file}: ${message}`);
}

test("other rooms import files, folders and own files that a README.md names as doors", (t) => {
  assert.deepEqual(found(t, "Doors: `a.ts` (the first),\n`linux/c.ts`, never `index.ts`."), []);
  assert.deepEqual(found(t, "Doors: `*.ts`, `linux/`."), []);
});

test("an import of a file that is no door is an error, types counted", (t) => {
  const message = (file: string): string =>
    `fs/README.md: ${file} is no door, and look/x.ts imports it: name it under "Doors:", or import a door`;
  assert.deepEqual(found(t, "Doors: `linux/`."), [message("fs/a.ts")]);
  assert.deepEqual(found(t, "Doors: `*.ts`.\n\nNo doors: `linux/`."), [message("fs/linux/c.ts")]);
  assert.deepEqual(found(t, "It has `a.ts`."), [message("fs/a.ts"), message("fs/linux/c.ts")]);
});

test("a door that no other room uses is an error", (t) => {
  assert.deepEqual(found(t, "Doors: `a.ts`, `b.ts`, `linux/`, `linux/deep/`."), [
    "fs/README.md: no other room uses the door b.ts",
    "fs/README.md: no other room uses the door linux/deep/",
  ]);
});
