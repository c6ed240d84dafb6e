import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { hintForPrograms } from "./call-hints.ts";

const SOURCE = resolve(import.meta.dirname, "..");
const LITERAL = /"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`/g;
/** A hint, or what becomes a part of one. */
const HINT = new RegExp(
  `(?:hint|instead|HINT\\w*|look|first|WORDS)\\s*(?:\\??:|=|\\?\\?)\\s*(?:[^;{}\`"]|${LITERAL.source})*`,
  "g",
);
/** Hints about other programs, which stay as they are. */
const OTHERS =
  /rustic config --set|age-keygen|age -d|`--external|`--permission`|mount -t|property set -ts|clone -p|chattr|qemu-img|^put one of these files back|ln -s|ulimit|mkdir -p|htpasswd/;

function hintsOfSource(): string[] {
  const files = readdirSync(SOURCE, { recursive: true, encoding: "utf8" }).filter(
    (name) => name.endsWith(".ts") && !/test|^cli\/|^api\/|call-hints/.test(name),
  );
  return files.flatMap((name) =>
    [...readFileSync(join(SOURCE, name), "utf8").matchAll(HINT)].flatMap(([found]) =>
      [...found.matchAll(LITERAL)].map(([literal]) =>
        literal
          .slice(1, -1)
          .replaceAll(/\$\{[^}]*\}/g, "X")
          .replaceAll("\\`", "`"),
      ),
    ),
  );
}

test("every hint of the source speaks of calls to a program", () => {
  const hints = hintsOfSource();
  assert.ok(hints.filter((hint) => hint.includes("cairn ")).length > 70);
  const left = hints
    .map(hintForPrograms)
    .filter((hint) => !OTHERS.test(hint) && (/\bcairn |``/.test(hint) || /(?:^|[\s`(])--?[a-zA-Z]/.test(hint)));
  assert.deepEqual(left, []);
});

test("a hint names the call that does what its command does", () => {
  const said = {
    "run `cairn doctor --repair`": "run `doctor({ repair: true })`",
    "to make this folder itself the workspace, run: cairn init '/a b'":
      "to make this folder itself the workspace, run: `openOrAdopt('/a b')`",
    "choose another folder, or override with --allow home": 'choose another folder, or override with `allow: ["home"]`',
    "`cairn backup repair packs` first: it saves": '`repair({ what: "packs" })` first: it saves',
    "see `cairn history`": "see `history()`",
  };
  for (const [hint, call] of Object.entries(said)) assert.equal(hintForPrograms(hint), call);
});
