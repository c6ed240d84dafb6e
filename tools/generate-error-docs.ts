import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { ERROR_TABLE, type ErrorRow } from "../src/errors.ts";

/** Writes docs/errors.md from the table in src/errors.ts; `--check` only compares. */

const TARGET = path.resolve(import.meta.dirname, "../docs/errors.md");

const EXIT_MEANINGS: readonly (readonly [number, string])[] = [
  [0, "done"],
  [1, "internal, or the operating system failed"],
  [2, "usage"],
  [3, "not found"],
  [4, "conflict or stale"],
  [5, "busy"],
  [6, "damage found"],
  [7, "refused for safety"],
  [8, "no space"],
  [9, "permission"],
  [10, "partly done; what was left out is listed"],
  [130, "interrupted"],
];

/** The whole page, one anchor per code. */
export function errorPage(table: Readonly<Record<string, ErrorRow>>): string {
  const rows = Object.entries(table);
  const exits = EXIT_MEANINGS.map(([exit, meaning]) => {
    const codes = rows.filter(([, row]) => row.exit === exit).map(([code]) => `[${code}](#${code})`);
    return `| ${exit} | ${meaning} | ${codes.join(", ")} |`;
  });
  const sections = rows.map(([code, row]) => {
    const retry = row.retryable ? "Trying again later may succeed." : "Trying again unchanged fails again.";
    return `### ${code}\n\nRaised when: ${row.when}.\n\nExit status ${row.exit}, HTTP status ${row.http}. ${retry}\n`;
  });
  return [
    "# Errors",
    "",
    "Generated from `src/errors.ts` by `npm run docs`; `npm run ok` fails when the two differ.",
    "",
    "Every failure has a code, a message (what was tried, on which path, wanted and found), often a hint (what to do), and says",
    "whether trying again may help. With `--json` all of it is in `error` of the printed object, and the exit status is the same.",
    "",
    "| exit status | meaning | codes |",
    "| --- | --- | --- |",
    ...exits,
    "",
    "`ok` is true for 0 and 10.",
    "",
    "## Codes",
    "",
    sections.join("\n"),
  ].join("\n");
}

if (import.meta.main) {
  const wanted = errorPage(ERROR_TABLE);
  if (!process.argv.includes("--check")) {
    writeFileSync(TARGET, wanted);
  } else if (readFileSync(TARGET, "utf8") !== wanted) {
    console.log("docs/errors.md is not what src/errors.ts says: run `npm run docs`");
    process.exitCode = 1;
  }
}
