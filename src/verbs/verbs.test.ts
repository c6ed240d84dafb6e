import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { GLOBAL_OPTIONS, type Taken } from "../cli/definitions.ts";
import { COMMANDS } from "../cli/program/commands.ts";
import type { Verb } from "../contract/verb.ts";
import { ALL_TABLES, CLIENT_VERBS, DAEMON_CALLS, LIBRARY_VERBS } from "./index.ts";
import type { Tool } from "./kinds/tool.ts";

const clientVerbs = Object.entries(CLIENT_VERBS as Readonly<Record<string, Verb & { tool?: Tool }>>);

test("every verb with a tool is for agents, who may give all options of the tool", () => {
  for (const [name, { tool, agents, takes }] of clientVerbs) {
    if (tool === undefined) continue;
    const allowed = [...takes.map((each) => each.name), ...(agents ?? assert.fail(`${name} is not for agents`))];
    // A tool shortens its answer itself, and names a fork's point as the other tools do.
    const given = Object.keys(tool.takes).filter((each) => !["limit", "target"].includes(each));
    assert.deepEqual(
      given.filter((each) => !allowed.includes(each)),
      [],
      name,
    );
  }
});

test("a verb whose options open databases by path has the field opensPaths", () => {
  const opening = clientVerbs.filter(
    ([, { options, unserved }]) =>
      unserved === undefined && ["with", "throughSqlite"].some((each) => Object.hasOwn(options?.entries ?? {}, each)),
  );
  assert.deepEqual(
    opening.map(([name]) => name),
    ["planRestore", "planRewind", "redo", "restore", "rewind", "save", "undo", "restoreFromBackup"],
  );
  for (const [name, { opensPaths }] of opening) assert.equal(typeof opensPaths, "function", name);
  const { save, restore, undo } = CLIENT_VERBS;
  const asks = ({ opensPaths }: Verb, options: object): unknown =>
    typeof opensPaths === "function" ? opensPaths({ options }) : opensPaths;
  assert.equal(asks(save, { with: ["a=b"] }), true);
  assert.equal(asks(save, {}), false);
  for (const verb of [restore, undo]) {
    assert.equal(asks(verb, { throughSqlite: true }), true);
    assert.equal(asks(verb, { throughSqlite: false }), false);
  }
});

test("every call that the daemon serves names its permitted callers", () => {
  for (const [name, verb] of Object.entries({ ...LIBRARY_VERBS, ...DAEMON_CALLS } as Readonly<Record<string, Verb>>))
    if (verb.by === undefined) assert.ok(name in DAEMON_CALLS, `${name} would be for the owners of a folder`);
});

test("the command line of each verb begins with a command and is unique", () => {
  const lines = ALL_TABLES.flatMap((table) => Object.values(table)).flatMap(({ command }) =>
    command === undefined ? [] : typeof command === "string" ? [command] : Object.keys(command),
  );
  assert.equal(new Set(lines).size, lines.length);
  assert.deepEqual(
    lines.filter((line) => !Object.hasOwn(COMMANDS, line.split(" ")[0]!)),
    [],
  );
});

const SOURCE = resolve(import.meta.dirname, "..");
/** The command of a call in a hint; a part of it that is computed counts as a word. */
const CALL = /\b(?:call|line|see)\(\s*(?:"([^"]+)"|`((?:[^`$]|\$\{[^}]*\})+)`)/g;

/** What is wrong with a command of a hint; null if it exists and has the options. */
async function problemOf(line: string): Promise<string | null> {
  const [own] = line.split(" -- ");
  const words = own!.split(/[ ,]+/).filter((word) => word !== "then");
  const flags = words.filter((word) => word.startsWith("-"));
  const at = words.findIndex((word) => Object.hasOwn(COMMANDS, word));
  // `cairn -C DIR …` is any command. A verb by itself is only said to programs.
  if (at === -1)
    return words.at(-1) === "…" || ALL_TABLES.some((verbs) => Object.hasOwn(verbs, line)) ? null : "no command";
  let taken: Taken = (await COMMANDS[words[at]!]!.load()).command;
  for (const word of words.slice(at + 1)) {
    const { verbs } = taken;
    if (verbs === undefined || word.startsWith("-")) break;
    if (!Object.hasOwn(verbs, word)) return `no verb ${word}`;
    taken = (await verbs[word]!.load()).command;
  }
  const known = [...GLOBAL_OPTIONS, ...(taken.options ?? [])].flatMap((each) => each.flags.split(/[ ,]+/));
  return flags.find((flag) => !known.includes(flag)) ?? null;
}

test("every command in a hint exists and has the options that the hint names", async () => {
  const lines = readdirSync(SOURCE, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !/test|^cli\//.test(name))
    .map((name) => readFileSync(join(SOURCE, name), "utf8"))
    .filter((text) => /^import .*\b(?:call|line|see)\b.*errors\.ts";$/ms.test(text))
    .flatMap((text) => [...text.matchAll(CALL)])
    .map(([, plain, made]) => plain ?? made!.replaceAll(/\$\{[^}]*\}/g, "X"));
  assert.ok(lines.length > 120, `${lines.length}`);
  const wrong: string[] = [];
  for (const line of new Set(lines)) {
    const problem = await problemOf(line);
    if (problem !== null) wrong.push(`${line}: ${problem}`);
  }
  assert.deepEqual(wrong, []);
  assert.equal(await problemOf("doctor --repairs"), "--repairs");
  assert.equal(await problemOf("backup lists"), "no verb lists");
});

/** A hint of an error that is mere text. */
const PLAIN =
  /\bhint\b\s*(?:\??:|=|\?\?)\s*(?:[^;{}"`]*\?\?? *)?(?<!advice)["`][^\n]*\bcairn (?!daemon |serve-repository |ui\b)[a-z-]+/g;

test("no hint of an error names a command as plain text instead of a call", () => {
  const found = readdirSync(SOURCE, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !/test|^cli\/|errors\.ts/.test(name))
    .flatMap((name) =>
      [...readFileSync(join(SOURCE, name), "utf8").matchAll(PLAIN)].map(([text]) => `${name}: ${text}`),
    );
  // Hints in answers are for people.
  assert.deepEqual(
    [...new Set(found.map((text) => text.split(":")[0]!))].toSorted(),
    ["look/history.ts", "workspace/care/verify.ts"],
    found.join("\n"),
  );
});
