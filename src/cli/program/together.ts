import type { CommandDefinition } from "../command.ts";
import { type Input, usage } from "../input.ts";

/** Throws `usage` if an option of the line lacks an option or first word that it needs, or has one that it excludes. */
export function requireFitting({ name, options = [] }: CommandDefinition, input: Input): void {
  const given = options
    .filter(({ flags }) => input.has(flags))
    .map((option) => ({ ...option, own: nameOf(option.flags) }));
  const word = input.argument(0) ?? input.rest(0)[0] ?? "";
  for (const { own, needs, excludes = [], of } of given) {
    if (of !== undefined && !of.includes(word))
      throw usage(`${own} works with ${of.map((each) => `${name} ${each}`).join(" and ")} only`);
    const others = given.map((other) => other.own).filter((other) => other !== own);
    if (needs !== undefined && !others.includes(needs)) throw usage(`${own} works with ${needs} only`);
    const wrong = others.find((other) => excludes === "all others" || excludes.includes(other));
    if (wrong !== undefined) throw usage(`${own} and ${wrong} exclude each other`, "leave one of them out");
  }
}

function nameOf(flags: string): string {
  return /--[\w-]+/.exec(flags)![0];
}
