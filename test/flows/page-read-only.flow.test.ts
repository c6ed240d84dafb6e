import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import * as v from "valibot";
import type { AnySchema } from "../../src/contract/schema.ts";
import { callOf, isOfWorkspace } from "../../src/api/rights/capabilities.ts";
import { CLIENT_VERBS, DAEMON_CALLS, LIBRARY_VERBS } from "../../src/verbs/index.ts";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";
import { fetchPage, start } from "../fixtures/ui.ts";

/** `cairn ui --read-only` changes nothing, whatever verb is called with whatever option. */

/** Every entry below a folder, with its kind, mode and content. Caches, which a look may make again, are left out. */
function contentOf(folder: string): Record<string, string> {
  const all: Record<string, string> = {};
  for (const entry of fs.readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const at = path.join(entry.parentPath, entry.name);
    if (path.relative(folder, at).startsWith("cache/")) continue;
    const { mode } = fs.lstatSync(at);
    const content = entry.isFile() ? createHash("sha256").update(fs.readFileSync(at)).digest("hex") : "";
    all[path.relative(folder, at)] = `${mode} ${content}`;
  }
  return all;
}

/** The words that a schema of one word accepts. */
function choicesOf(schema: AnySchema): unknown[] {
  const { options, wrapped } = schema as { options?: unknown[]; wrapped?: AnySchema };
  return options?.filter((each) => typeof each === "string") ?? (wrapped === undefined ? [] : choicesOf(wrapped));
}

test("no verb with any option changes the control directory, the folder or another place on a read-only page", async (t) => {
  const folder = path.join(SCRATCH, "looked-at");
  const places = path.join(SCRATCH, "places");
  for (const each of [folder, places]) fs.mkdirSync(each);
  for (const word of ["one", "two", "three"]) {
    fs.writeFileSync(path.join(folder, "a.txt"), `${word}\n`);
    cairnOk(["save", folder, "-m", word]);
  }
  cairnOk(["restore", "-C", folder, "head~1"]);
  fs.writeFileSync(path.join(folder, "b.txt"), "not saved\n");
  const control = cairnOk(["status", folder]).data["workspace"] as { control_directory: string };
  const root = control.control_directory;
  // Doctor with `repair` would make the index again, and break the lock.
  const index = path.join(root, "store/index");
  fs.rmSync(path.join(index, fs.readdirSync(index)[0]!));
  const ui = await start(t, [folder, "--no-open", "--read-only"]);
  const { origin, hash } = new URL(ui.url);
  const post = async (at: string, body: object, token = ""): Promise<{ status: number; text: string }> => {
    const headers = { authorization: `Bearer ${token}`, accept: "application/x-ndjson" };
    const response = await fetchPage(`${origin}${at}`, { method: "POST", headers, body: JSON.stringify(body) });
    return { status: response.status, text: await response.text() };
  };
  const { token } = JSON.parse((await post("/session", { code: hash.slice("#code=".length) })).text) as {
    token: string;
  };

  const argument: Record<string, unknown> = {
    target: "latest",
    a: "head~1",
    b: "latest",
    path: "a.txt",
    pattern: "a*",
    ids: ["latest"],
    limit: 2,
    command: ["true"],
    to: path.join(places, "argument"),
    edit: { add: ["tag"] },
  };
  /** The first value that an option accepts, or one that it refuses. */
  const valueOf = (name: string, schema: AnySchema): unknown => {
    const found = [true, 1, { keepLast: 1 }, ["a.txt"], path.join(places, name), ...choicesOf(schema)];
    return found.find((each) => v.safeParse(schema, each).success) ?? "odd";
  };
  const before = [contentOf(root), contentOf(folder), contentOf(places)];
  let [answered, refused] = [0, 0];
  for (const name of new Set([CLIENT_VERBS, LIBRARY_VERBS, DAEMON_CALLS].flatMap((table) => Object.keys(table)))) {
    const verb = callOf(name)!;
    const base: Record<string, unknown> = isOfWorkspace(name) ? { workspace: folder } : {};
    for (const { name: each } of verb.takes) if (each in argument) base[each] = argument[each];
    const options = Object.entries(verb.options?.entries ?? {});
    const calls = [base, ...options.map(([each, schema]) => ({ ...base, options: { [each]: valueOf(each, schema) } }))];
    for (const call of calls) {
      const { status, text } = await post(`/v1/${name}`, call, token);
      assert.ok(!/"code":"internal"/.test(text), `${name} ${JSON.stringify(call)}: ${text}`);
      if (status === 200 && !text.includes('"ok":false')) answered++;
      else refused++;
    }
    assert.deepEqual([contentOf(root), contentOf(folder), contentOf(places)], before, name);
  }
  assert.ok(answered > 60 && refused > 150, `${answered} answered, ${refused} refused`);
  for (const each of [{ repair: true }, { breakLocks: true }, { repair: true, breakLocks: false }])
    assert.equal((await post("/v1/doctor", { workspace: folder, options: each }, token)).status, 403);
  for (const each of [{}, { repair: false }]) {
    const { text } = await post("/v1/doctor", { workspace: folder, options: each }, token);
    assert.match(text, /"severity":"damage"/);
  }
  assert.deepEqual([contentOf(root), contentOf(folder), contentOf(places)], before);
  assert.equal(cairnOk(["doctor", folder, "--repair"]).data["healthy"], true, "without --read-only the repair works");
  assert.notDeepEqual(contentOf(root), before[0]);
});
