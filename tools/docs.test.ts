import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { parse } from "../src/cli/program/program.ts";
import { HINT_CASES } from "../test/hints/cases.ts";

const ROOT = path.resolve(import.meta.dirname, "..");
const PAGES = globSync(["*.md", "docs/**/*.md"], { cwd: ROOT });

test("every file that the docs name or link to exists", () => {
  const missing: string[] = [];
  for (const page of PAGES) {
    const text = readFileSync(path.join(ROOT, page), "utf8");
    for (const [, named = ""] of text.matchAll(/`((?:src|test|tools|docs)\/[\w./-]+)`/g)) {
      if (!existsSync(path.join(ROOT, named))) missing.push(`${page}: ${named}`);
    }
    for (const [, link = ""] of text.matchAll(/\]\(([^)#:\s]+)(?:#[^)]*)?\)/g)) {
      if (!existsSync(path.resolve(ROOT, path.dirname(page), link))) missing.push(`${page}: ${link}`);
    }
  }
  assert.deepEqual(missing, []);
});

test("no page names a line number of a source file", () => {
  for (const page of PAGES) assert.doesNotMatch(readFileSync(path.join(ROOT, page), "utf8"), /\.ts:\d+/, page);
});

test("the glossary has at most 60 words, and no word twice", () => {
  const rows = readFileSync(path.join(ROOT, "docs/glossary.md"), "utf8").matchAll(/^\| (?!word |-)([^|]+) \|/gm);
  const words = [...rows].flatMap(([, words = ""]) => [words.trim()]);
  assert.ok(words.length > 0 && words.length <= 60, `${words.length} words`);
  assert.equal(new Set(words).size, words.length);
});

test("docs/decisions.md has at most 50 decisions of at most five lines", () => {
  const entries = readFileSync(path.join(ROOT, "docs/decisions.md"), "utf8").split(/^### /m).slice(1);
  assert.ok(entries.length > 0 && entries.length <= 50, `${entries.length} entries`);
  for (const entry of entries) {
    const [heading, ...lines] = entry.split(/^## /m)[0]?.trim().split("\n") ?? [];
    assert.ok(lines.length <= 5, heading);
  }
});

test("the README has at most 700 words, and the commands for a first save and the tests", () => {
  const readme = readFileSync(path.join(ROOT, "README.md"), "utf8");
  const shown = readme.replaceAll(/\]\([^)]*\)|<[^>]*>|!\[[^\]]*/g, " ");
  const words = shown.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word));
  assert.ok(words.length <= 700, `${words.length} words`);
  for (const command of ["./cairn save FOLDER", "npm test"]) assert.match(readme, new RegExp(`^${command}\\b`, "m"));
});

/** The words of a line as a shell has them, up to a comment, a pipe or the next command. */
function wordsOf(line: string): string[] {
  const words = line.match(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g) ?? [];
  const end = words.findIndex((word) => /^(?:[#|&;>\\]|--.*…)/.test(word));
  return (end === -1 ? words : words.slice(0, end)).map((word) =>
    word.replaceAll(/['"]/g, "").replaceAll(/[[\]…]/g, ""),
  );
}

/** What a page shows of the command, in its blocks and in its text. */
function commandsIn(text: string): string[] {
  const blocks = [...text.matchAll(/^```(?:sh|console)\n([^]*?)^```/gm)].flatMap(([, block = ""]) =>
    block.replaceAll("\\\n", " ").split("\n"),
  );
  const spans = [...text.replaceAll(/^```[^]*?^```/gm, "").matchAll(/`([^`]+)`/g)].flatMap(([, span = ""]) => [span]);
  return [...blocks, ...spans].flatMap((line) => {
    const [, command] = /^(?:\$ )?(?:[\w ]+ \\?\| )?(?:\.\/)?cairn ((?!COMMAND)[a-z-].*)$/.exec(line.trim()) ?? [];
    return command === undefined ? [] : [command.replaceAll("\\|", "|")];
  });
}

test("every command on the pages has arguments and options that the parser accepts", async () => {
  const wrong: string[] = [];
  let count = 0;
  // Commands that docs/errors.md shows because they fail so.
  const failing = new Set(HINT_CASES.filter(({ code }) => code === "usage").map(({ fails }) => fails));
  for (const page of PAGES) {
    for (const command of commandsIn(readFileSync(path.join(ROOT, page), "utf8"))) {
      count++;
      if (page === "docs/errors.md" && failing.has(`cairn ${command}`)) continue;
      try {
        await parse(wordsOf(command));
      } catch (error) {
        // A page may name a command by its words alone.
        if (!/missing/.test((error as Error).message))
          wrong.push(`${page}: cairn ${command}: ${(error as Error).message}`);
      }
    }
  }
  assert.ok(count > 150, `${count} commands`);
  assert.deepEqual(wrong, []);
});
