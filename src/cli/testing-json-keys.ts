import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import * as v from "valibot";
import { COMMAND_DATA } from "./program/command-data.ts";

/**
 * Asserts that `data` has the members that the contract promises for the command of `line`, and no others. docs/json.md
 * pins the contract: `npm run docs` adds keys to that page and refuses to remove any. Test only.
 */
export function assertPromised(line: string, data: unknown): void {
  const words = line.split(" ");
  const promised = Object.entries(COMMAND_DATA).filter(([begin]) =>
    begin
      .split(" ")
      .every(
        (word, i) => words[i] === word || words.slice(2).some((each) => each.startsWith(word)) || /[A-Z]/.test(word),
      ),
  );
  const isSame = promised.some(([, schema]) => {
    const result = v.safeParse(schema, data);
    return result.success && isDeepStrictEqual(result.output, data);
  });
  assert.ok(isSame, `${line} prints other members than docs/json.md has: ${JSON.stringify(data)}`);
}

/** The words of an example behind `cairn`, up to a pipe, a redirection or the end. */
export function wordsOf(example: string): string[] {
  const [, typed = ""] = /cairn ((?:"[^"]*"|'[^']*'|[^|&>)])*)/.exec(example) ?? [];
  const words = typed.trim().match(/"[^"]*"|'[^']*'|\S+/g) ?? [];
  return words.filter((word) => word !== "--json").map((word) => word.replaceAll(/^["']|["']$/g, ""));
}
