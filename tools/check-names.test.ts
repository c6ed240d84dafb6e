import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { checkNames } from "./check-names.ts";

const SOURCES = {
  "src/errors.ts": "export class CairnError {}\n",
  "src/fs/lock.ts": "export async function acquire(): void {\n  release();\n}\n",
  "src/fs/linux/flush.ts": "export class Flusher {\n  async #wait(): void {}\n  get done(): boolean {}\n}\n",
  "web/src/app/route.tsx": "export const route = 1;\n",
};

/** Findings about pages beside a small source. */
function found(t: TestContext, pages: Record<string, string>): string[] {
  const root = mkdtempSync(path.join(tmpdir(), "cairn-names-"));
  t.after(() => rmSync(root, { recursive: true }));
  for (const [file, text] of Object.entries({ ...SOURCES, ...pages })) {
    mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    writeFileSync(path.join(root, file), text);
  }
  return checkNames(root).map(({ severity, file, message }) => {
    assert.equal(severity, "error");
    return `${path.posix.join("src", file)}: ${message}`;
  });
}

test("a README may name files of its folder, of a folder that the README names, and paths from the root", (t) => {
  const pages = {
    "src/fs/README.md": "# fs\n\n- `lock.ts`, `src/errors.ts`, `errors.ts`\n- `linux/` has `flush.ts`\n",
    "src/fs/linux/README.md": "Beside `../lock.ts`, and not `*.test.ts` or `run x.ts`.\n",
    "web/README.md": "`app/route.tsx` and `src/app/route.tsx`\n",
    "CONTRIBUTING.md": "`src/fs/lock.ts`\n",
  };
  assert.deepEqual(found(t, pages), []);
});

test("a README that names a file without its folder is an error", (t) => {
  const missing = (name: string): string =>
    `there is no \`${name}\` beside the page or in a folder that is named with it`;
  assert.deepEqual(found(t, { "src/fs/README.md": "- `linux/`\n- `flush.ts`: a door\n" }), [
    `src/fs/README.md: ${missing("flush.ts")}`,
  ]);
  assert.deepEqual(found(t, { "web/README.md": "`route.tsx`\n" }), [`web/README.md: ${missing("route.tsx")}`]);
  assert.deepEqual(found(t, { "CONTRIBUTING.md": "1. `src/fs/`\n2. `lock.ts`\n" }), [
    `CONTRIBUTING.md: ${missing("lock.ts")}`,
  ]);
});

test("a function belongs to the file named after it, or else to the last file named before it", (t) => {
  const row = (text: string): string[] =>
    found(t, { "docs/reading-the-source.md": `| q | a |\n| --- | --- |\n${text}\n` });
  assert.deepEqual(
    row("| q | `acquire()` in `src/fs/lock.ts`; `flush.ts` in `src/fs/linux/` has `Flusher.#wait()` |"),
    [],
  );
  assert.deepEqual(row("| q | `Flusher` and `done()` in `src/fs/linux/flush.ts` |"), []);
  assert.deepEqual(row("| q | `release()` in `src/fs/lock.ts` |"), [
    "docs/reading-the-source.md: `release()` is not in src/fs/lock.ts",
  ]);
  assert.deepEqual(row("| q | `src/fs/linux/flush.ts`, then `src/fs/lock.ts` with `Flusher.#wait()` |"), [
    "docs/reading-the-source.md: `Flusher.#wait()` is not in src/fs/lock.ts",
  ]);
  assert.deepEqual(row("| q | the class `Flush` in `src/fs/linux/flush.ts` |"), [
    "docs/reading-the-source.md: `Flush` is not in src/fs/linux/flush.ts",
  ]);
});

test("a function without a file is an error if no source file has it", (t) => {
  assert.deepEqual(found(t, { "docs/reading-the-source.md": "Then `acquire()` locks, and `gone()` ends.\n" }), [
    "docs/reading-the-source.md: `gone()` is in no file of src/",
  ]);
});
