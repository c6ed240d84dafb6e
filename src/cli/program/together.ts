import type { CommandDefinition } from "../command.ts";
import { type Input, usage } from "../input.ts";

/**
 * Throws `usage` if an option of the line lacks an option or first word that it needs, or has an option or argument that
 * it excludes, and for an argument that the first word needs or does not take.
 */
export function requireFitting({ name, arguments: taken = [], options = [] }: CommandDefinition, input: Input): void {
  const word = input.argument(0) ?? input.rest(0)[0] ?? "";
  const isGiven = (at: number): boolean => input.argument(at) !== undefined || input.rest(at).length > 0;
  for (const [at, { name: argument, of }] of taken.entries()) {
    if (of === undefined || (of.includes(word) ? isGiven(at) || argument.includes("...") : !isGiven(at))) continue;
    throw usage(`${name} ${word} ${isGiven(at) ? "takes no" : "needs"} ${shown(argument)}`);
  }
  const given = options
    .filter(({ flags }) => input.has(flags))
    .map((option) => ({ ...option, own: nameOf(option.flags) }));
  const args = taken.flatMap(({ name: argument }, at) => (isGiven(at) ? [argument] : []));
  for (const { own, needs, excludes = [], of } of given) {
    if (of !== undefined && !of.includes(word))
      throw usage(`${own} works with ${of.map((each) => `${name} ${each}`).join(" and ")} only`);
    const others = given.map((other) => other.own).filter((other) => other !== own);
    if (needs !== undefined && !others.includes(needs)) throw usage(`${own} works with ${needs} only`);
    const wrong =
      excludes === "all others" ? others[0] : [...others, ...args].find((other) => excludes.includes(other));
    if (wrong !== undefined) throw usage(`${own} and ${shown(wrong)} exclude each other`, "leave one of them out");
  }
}

function nameOf(flags: string): string {
  return /--[\w-]+/.exec(flags)![0];
}

/** Returns an argument as help texts write it, for example `SNAPSHOT` for `[snapshot...]`. An option stays as it is. */
function shown(name: string): string {
  const [, argument] = /^[<[]([\w-]+)/.exec(name) ?? [];
  return argument === undefined ? name : argument.toUpperCase();
}
