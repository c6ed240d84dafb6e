import assert from "node:assert/strict";
import { test } from "node:test";
import { COMMANDS } from "../cli/program/commands.ts";
import type { Verb } from "../contract/verb.ts";
import { ALL_TABLES, CLIENT_VERBS, DAEMON_CALLS, LIBRARY_VERBS } from "./index.ts";
import type { Tool } from "./kinds/tool.ts";

const clientVerbs = Object.entries(CLIENT_VERBS as Readonly<Record<string, Verb & { tool?: Tool }>>);

test("an agent may give every option of a tool, and every verb that is a tool is for agents", () => {
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

test("a verb whose options open databases in the folder by their paths says so", () => {
  const opening = clientVerbs.filter(
    ([, { options, unserved }]) =>
      unserved === undefined && ["with", "throughSqlite"].some((each) => Object.hasOwn(options?.entries ?? {}, each)),
  );
  assert.deepEqual(
    opening.map(([name]) => name),
    ["planRestore", "restore", "save", "undo"],
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

test("every call that the daemon serves says who may make it", () => {
  for (const [name, verb] of Object.entries({ ...LIBRARY_VERBS, ...DAEMON_CALLS } as Readonly<Record<string, Verb>>))
    if (verb.by === undefined) assert.ok(name in DAEMON_CALLS, `${name} would be for the owners of a folder`);
});

test("the line of each verb's command begins with a command, and no two verbs have one line", () => {
  const lines = ALL_TABLES.flatMap((table) => Object.values(table)).flatMap(({ command }) =>
    command === undefined ? [] : typeof command === "string" ? [command] : Object.keys(command),
  );
  assert.equal(new Set(lines).size, lines.length);
  assert.deepEqual(
    lines.filter((line) => !Object.hasOwn(COMMANDS, line.split(" ")[0]!)),
    [],
  );
});
