import assert from "node:assert/strict";
import { test } from "node:test";
import type { AnySchema, Entries, Notes } from "../contract/schema.ts";
import { ALL_TABLES } from "../verbs/index.ts";
import type { CommandDefinition } from "./command.ts";
import { kebab } from "./input.ts";
import { longName, VerbOptions } from "./options.ts";
import { COMMANDS } from "./program/commands.ts";

async function allCommands(): Promise<CommandDefinition[]> {
  const commands = await Promise.all(Object.values(COMMANDS).map(async ({ load }) => (await load()).command));
  const verbs = commands.flatMap(({ verbs = {} }) => Object.values(verbs));
  return [...commands, ...(await Promise.all(verbs.map(async ({ load }) => (await load()).command)))];
}

/** Returns the options of a verb, and the members of each object that is an argument of it. */
function membersOf({ takes, options }: (typeof ALL_TABLES)[number][string]): Entries[] {
  const given = takes.map(({ schema }) => (schema as AnySchema & Notes & { entries?: Entries }).entries ?? {});
  return options === null ? given : [...given, options.entries];
}

test("no command repeats an option that its verb defines", async () => {
  const verbs = ALL_TABLES.flatMap((table) => Object.values(table));
  const linesOf = ({ command = {} }: (typeof verbs)[number]): string[] =>
    typeof command === "string" ? [command] : Object.keys(command);
  let compared = 0;
  const wrong: string[] = [];
  for (const { name, options = [] } of await allCommands()) {
    const own = verbs.filter((verb) => linesOf(verb).some((line) => `${line} `.startsWith(`${name} `)));
    const members = own.flatMap(membersOf);
    const flags = members.flatMap((entries) => new VerbOptions(entries).definitions.map((option) => option.flags));
    // The member `plan` is `--apply` in a command: `--plan` shows a plan.
    const keys = members.flatMap((entries) => Object.keys(entries)).filter((key) => key !== "plan");
    const names = new Set([...flags.map(longName), ...keys.map(kebab)]);
    // One option of `backup restore`, and one of `show`, sets two members.
    names.delete("prove");
    names.delete("sort");
    compared += names.size;
    for (const option of options)
      if (!("schema" in option) && names.has(longName(option.flags))) wrong.push(`${name} ${option.flags}`);
  }
  assert.ok(compared > 100, `only ${compared} members were compared`);
  assert.deepEqual(wrong, []);
});
