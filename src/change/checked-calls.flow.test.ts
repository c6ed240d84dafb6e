import assert from "node:assert/strict";
import { readFileSync, readdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { CairnError } from "../errors.ts";
import { Points } from "../workspace/points/points.ts";
import { backupScene, opened } from "../backup/testing-far.ts";
import type { BackupRepository, CairnLibrary, CallOptions, Client } from "../contract/index.ts";
import { lockRegistry } from "../workspace/place/registry.ts";
import * as v from "valibot";
import { makeCalls } from "../contract/checked-calls.ts";
import { CLIENT_VERBS, LIBRARY_VERBS, REPOSITORY_VERBS } from "../verbs/index.ts";
import type { Verb } from "../contract/verb.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

type Calls<T> = Record<string, (of: T) => unknown>;
/** Arguments as a program without types may give them. */
// oxlint-disable-next-line typescript/no-explicit-any
type Loose = any;

const LIBRARY: Calls<Loose> = {
  "open: argument 1": (library) => library.open(),
  "open: argument 1 must be a path": (library) => library.open("a\0b"),
  "open: argument 2": (library) => library.open("/", null),
  "openOrInit: argument 2.engineType": (library) =>
    library.openOrInit("/nowhere", { selfContained: true, engineType: "zfs" }),
  "validateEngine: argument 2": (library) => library.validateEngine("/", "zfs"),
  "relocate: argument 2": (library) => library.relocate("/a"),
  "openRepository: argument 1 needs the member password": (library) => library.openRepository({ repository: "/r" }),
  "openRepository: argument 1.limits.uploadRate": (library) =>
    library.openRepository({ repository: "/r", password: "x", limits: { uploadRate: "1" } }),
};

const CLIENT: Calls<Loose> = {
  "restore: argument 1.target": (client) => client.restore({ target: 5 }),
  "restore: argument 1 needs the member target": (client) => client.restore({}),
  "restore: argument 1 must be an object": (client) => client.restore(),
  "restore: argument 1.paths": (client) => client.restore({ target: "head", paths: "a" }),
  "planRestore: argument 1.paths[1]": (client) => client.planRestore({ target: "head", paths: ["a", 7] }),
  "save: argument 1.tags": (client) => client.save({ tags: "abc" }),
  "save: argument 1.exclude": (client) => client.save({ exclude: "x" }),
  "save: argument 1.signal": (client) => client.save({ signal: {} }),
  "save: argument 1.message": (client) => client.save({ message: "m".repeat(1_100_000) }),
  "setEngine: argument 1": (client) => client.setEngine("zfs"),
  "run: argument 1": (client) => client.run("ls"),
  "verify: argument 2.deep": (client) => client.verify("head", { deep: "yes" }),
  "diff: argument 2": (client) => client.diff("head", 7),
  "read: argument 2": (client) => client.read("head", 7).next(),
  "workspacePath: argument 1": (client) => client.workspacePath(7),
  "sealWhenIdle: argument 1.idleMs": (client) => client.sealWhenIdle({ idleMs: "1" }),
  'setPolicy: argument 1.retention has no member "keepLost"': (client) =>
    client.setPolicy({ retention: { keepLost: 1 } }),
  'setPolicy: argument 1 has no member "quota"': (client) => client.setPolicy({ quota: 1 }),
  'previewCleanup: argument 1.retention.keepUndo has no member "counts"': (client) =>
    client.previewCleanup({ retention: { keepUndo: { counts: 1 } } }),
  'save: argument 1 has no member "mesage"; did you mean message?': (client) => client.save({ mesage: "m" }),
  'save: argument 1 has no member "engine"': (client) => client.save({ engine: "copy" }),
  'history: argument 3 has no member "Path"; did you mean path?': (client) => client.history("main", 1, { Path: "a" }),
  'tag: argument 2 has no member "added"': (client) => client.tag("head", { added: ["x"] }),
  "createBackup: argument 1": (client) => client.createBackup("/repository"),
};

const REPOSITORY: Calls<Loose> = {
  'verify: argument 1.subset has no member "off"; did you mean of?': (repository) =>
    repository.verify({ subset: { part: 1, off: 2 } }),
  "restore: argument 2": (repository) => repository.restore("latest"),
  "diff: argument 3.toSubfolder": (repository) => repository.diff("latest", "latest", { toSubfolder: 7 }),
  "restore: argument 3.subfolder": (repository) => repository.restore("latest", "/back", { subfolder: 7 }),
  "list: argument 1.tags[0]": (repository) => repository.list({ tags: ["a"] }),
  "createFromStream: argument 1": (repository) => repository.createFromStream("text"),
  'forget: argument 1.retention has no member "keepUndo"': (repository) =>
    repository.forget({ retention: { keepUndo: {} } }),
  "verify: argument 1.subset needs the member of": (repository) => repository.verify({ subset: { part: 1 } }),
};

async function assertUsage<T>(of: T, calls: Calls<T>): Promise<void> {
  for (const [said, call] of Object.entries(calls))
    await assert.rejects(
      async () => call(of),
      (error) => {
        assert.ok(error instanceof CairnError, `${said}: ${String(error)}`);
        assert.deepEqual([error.code, error.message.slice(0, said.length)], ["usage", said]);
        assert.ok(error.message.length < 300);
        return true;
      },
    );
}

test("an invalid argument is a usage error that names the argument", async (t) => {
  const { root, library, client } = await testFolder(t, { a: "one" });
  await assertUsage<CairnLibrary>(library, LIBRARY);
  await assertUsage<Client>(client, CLIENT);
  const options = { repository: join(root, "repository"), password: "x" };
  const repository: BackupRepository = await library.initRepository(options);
  await assertUsage(repository, REPOSITORY);
  await repository.close();
  assert.equal(await client.hasSavePoints(), false);
  assert.deepEqual((await client.policy()).retention, null);
});

/** Lists that choose, which came out empty. */
const NONE: Record<string, [(client: Client) => unknown] | [null, (repository: BackupRepository) => unknown]> = {
  "restore: argument 1.paths": [(client) => client.restore({ target: "head", paths: [] })],
  "planRestore: argument 1.paths": [(client) => client.planRestore({ target: "head", paths: [] })],
  "diff: argument 3.paths": [(client) => client.diff("head", null, { paths: [] })],
  "previewCleanup: argument 1.only": [(client) => client.previewCleanup({ only: [] })],
  "list: argument 1.snapshots": [null, (repository) => repository.list({ snapshots: [] })],
  "verify: argument 1.snapshots": [null, (repository) => repository.verify({ snapshots: [] })],
  "restore: argument 3.paths": [null, (repository) => repository.restore("latest", "/nowhere", { paths: [] })],
  "restore: argument 3.include": [null, (repository) => repository.restore("latest", "/nowhere", { include: [] })],
  "forget: argument 1.snapshots": [
    null,
    (repository) => repository.forget({ snapshots: [], retention: { keepLast: 1 } }),
  ],
  "rewrite: argument 1.snapshots": [null, (repository) => repository.rewrite({ snapshots: [], exclude: ["a"] })],
  "repair: argument 1.packs": [null, (repository) => repository.repair({ what: "packs", packs: [] })],
  "repairSnapshots: argument 1.snapshots": [null, (repository) => repository.repairSnapshots({ snapshots: [] })],
  "copyTo: argument 2.snapshots": [null, (repository) => repository.copyTo(repository, { snapshots: [] })],
};

test("calls refuse an empty list of paths, points or names instead of taking everything", async (t) => {
  const { root, library, client, folder, write } = await testFolder(t, { a: "one" });
  await client.save();
  write("a", "two");
  await client.setPolicy({ retention: { keepLast: 1 } });
  await using repository = await library.initRepository({ repository: join(root, "repository"), password: "x" });
  for (const [said, [ofClient, ofRepository]] of Object.entries(NONE)) {
    const message = `${said} is an empty list; leave it out to mean everything`;
    const called = async (): Promise<unknown> => (ofClient === null ? ofRepository(repository) : ofClient(client));
    await assert.rejects(called, { code: "usage", message });
  }
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "two");
});

test("an option that is undefined has its default value", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  await client.save({ message: undefined, tags: undefined, other: undefined } as Loose);
  await client.history(undefined, undefined, { path: undefined } as Loose);
  assert.equal((await client.diff("head", null)).entries.length, 0);
});

test("calls and streams throw an unexpected error as a CairnError with the code internal", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  await client.save();
  t.mock.method(Points.prototype, "latest", () => {
    throw new TypeError("no such thing");
  });
  t.mock.method(Points.prototype, "byId", () => {
    throw new TypeError("no such thing");
  });
  const internal = { name: "CairnError", code: "internal" };
  await assert.rejects(client.latestSavePoint(), internal);
  await assert.rejects(client.read("head", "a")[Symbol.asyncIterator]().next(), internal);
});

/** Callbacks that fail in each of the two ways, and what the process was warned of. */
function failing(t: TestContext): {
  callbacks: Required<Pick<CallOptions, "onProgress" | "onWarning">>;
  said: string[];
} {
  const said: string[] = [];
  const heard = (warning: Error): void => {
    if (warning.name === "CairnWarning") said.push(warning.message.split(",")[0]!);
  };
  process.on("warning", heard);
  t.after(() => process.off("warning", heard));
  const callbacks = {
    onProgress: () => {
      throw new TypeError("progress");
    },
    onWarning: async () => Promise.reject(new TypeError("warning")),
  };
  return { callbacks, said };
}

test("save and restore succeed if their callbacks throw, and the process warns once of each callback", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  writeFileSync(join(client.controlDirectory, "policy.json"), "{");
  const { callbacks, said } = failing(t);
  const point = await client.save(callbacks);
  assert.equal(point.sequence, 1);
  write("a", "two");
  const restored = await client.restore({ target: "head", ...callbacks });
  assert.equal(restored.restored_to, point.save_point_id);
  const stopped = client.save({ ...callbacks, signal: AbortSignal.abort() });
  await assert.rejects(stopped, { code: "interrupted" });
  assert.deepEqual([...new Set(said)], said);
  assert.ok(said.includes("onProgress of restore failed"), said.join("; "));
  assert.ok(said.includes("onWarning of save failed"), said.join("; "));
});

test("run runs the command and saves its changes if onCommand throws", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  const { said } = failing(t);
  const onCommand = (): void => {
    throw new TypeError("command");
  };
  const ran = await client.run(["true"], { onCommand });
  assert.deepEqual([ran.exit_code, ran.after_error, ran.after?.sequence], [0, null, 2]);
  assert.deepEqual(said, ["onCommand of run failed"]);
});

test("a backup succeeds and its locks are removed if onWarning throws", async (t) => {
  const { client, repository, place } = await backupScene(t, "faulty");
  const { callbacks, said } = failing(t);
  await client.save();
  const fault = { operation: "remove", kind: "locks", fault: "fail" } as const;
  opened.faulty!.arm(fault);
  const { snapshot } = await client.createBackup(repository, callbacks);
  assert.ok(snapshot);
  // The one that stayed goes first.
  opened.faulty!.arm({ ...fault, after: 1 });
  opened.faulty!.arm({ operation: "save", kind: "keys", fault: "fail" });
  await assert.rejects(repository.addKey("another", callbacks), /^CairnError: save of keys failed/);
  assert.ok(said.includes("onWarning of createBackup failed"), said.join("; "));
  await repository.find("a.txt", callbacks);
  assert.ok(said.includes("onWarning of addKey failed"), said.join("; "));
  assert.deepEqual(readdirSync(join(place, "locks")), []);
});

test("a callback is called with its options object as this", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  const told = new Set<unknown>();
  const callbacks = {
    onProgress() {
      told.add(this);
    },
  };
  await client.save({ message: "mine" });
  write("a", "two");
  const restoring = { target: "head", ...callbacks };
  await client.restore(restoring);
  assert.deepEqual([...told], [restoring]);
});

/** One of these fits each argument that a call cannot do without. */
const SAMPLES: readonly unknown[] = [
  "copy",
  {},
  [],
  ["/nowhere"],
  { target: "head" },
  { paths: ["nowhere"] },
  { repository: "/nowhere", password: "x" },
  { recipients: [], file: "/nowhere" },
  { to: "/nowhere" },
  { what: "index" },
  { exclude: ["a"] },
  (async function* nothing() {})(),
];

/** Calls every verb of a table with a signal that has fired; names of those that take none. */
async function assertStopped(of: unknown, verbs: Readonly<Record<string, Verb>>): Promise<string[]> {
  const methods = of as Record<string, (...given: unknown[]) => unknown>;
  const without: string[] = [];
  for (const [name, { takes, options, how }] of Object.entries(verbs)) {
    const sample = (schema: v.GenericSchema): unknown => SAMPLES.find((each) => v.is(schema, each));
    const given = takes.map(({ schema }) => sample(schema));
    if (options?.entries["signal"] === undefined) without.push(name);
    else given.push({ ...(sample(options as unknown as v.GenericSchema) as object), signal: AbortSignal.abort() });
    if (how === "at once") continue;
    const called = async (): Promise<unknown> => {
      const answer = methods[name]!(...given);
      return how === "stream" ? (answer as AsyncIterableIterator<unknown>).next() : answer;
    };
    await assert.rejects(called, { code: "interrupted", message: "stopped by the caller" }, name);
  }
  return without;
}

test("every call with an aborted signal is interrupted before it changes anything", async (t) => {
  const { root, library, client } = await testFolder(t, { a: "one" });
  const repository = await library.initRepository({ repository: join(root, "repository"), password: "x" });
  const everything = (): string[] => readdirSync(root, { recursive: true, encoding: "utf8" }).toSorted();
  const before = everything();
  assert.deepEqual(await assertStopped(library, LIBRARY_VERBS), []);
  assert.deepEqual(await assertStopped(client, CLIENT_VERBS), ["workspacePath", "sealWhenIdle"]);
  assert.deepEqual(await assertStopped(repository, REPOSITORY_VERBS), []);
  assert.deepEqual(everything(), before);
  await repository.close();
});

test("a repository that fails to open causes no unhandled rejection if the call that was given it never began", async (t) => {
  const { library, client } = await testFolder(t, { a: "one" });
  const unheard: unknown[] = [];
  const heard = (reason: unknown): void => void unheard.push(reason);
  process.on("unhandledRejection", heard);
  t.after(() => process.off("unhandledRejection", heard));
  const signal = AbortSignal.abort();
  const promised = library.openRepository({ repository: "/nowhere", password: "x", signal });
  await assert.rejects(client.createBackup(promised, { signal }), hasCode("interrupted"));
  await assert.rejects(
    client.createBackup(library.openRepository({ repository: "/nowhere", password: "x" }), 7 as never),
    hasCode("usage"),
  );
  await new Promise(setImmediate);
  await assert.rejects(promised, hasCode("interrupted"));
  assert.deepEqual(unheard, []);
});

test("an aborted call fails with the signal's reason, also while it waits for another process", async (t) => {
  const { client, root, library } = await testFolder(t, { a: "one" });
  const reason = new Error("the user closed the tab");
  await assert.rejects(client.save({ signal: AbortSignal.abort(reason) }), { code: "interrupted", cause: reason });
  await using repository = await library.initRepository({ repository: join(root, "repository"), password: "x" });
  const controller = new AbortController();
  async function* endless(): AsyncGenerator<Uint8Array> {
    for (;;) {
      yield Buffer.from("more");
      controller.abort(reason);
    }
  }
  const streamed = repository.createFromStream(endless(), { signal: controller.signal });
  await assert.rejects(streamed, { code: "interrupted", cause: reason });
  using _lock = await lockRegistry();
  const waiting = new AbortController();
  setImmediate(() => waiting.abort(reason));
  await assert.rejects(library.forget("/nowhere", { signal: waiting.signal }), { code: "interrupted", cause: reason });
});

test("a closed client or repository refuses every call, but a run that has begun still saves", async (t) => {
  const { client, root, library } = await testFolder(t, { a: "one" });
  const repository = await library.initRepository({ repository: join(root, "repository"), password: "x" });
  const running = client.run(["sleep", "0.3"]);
  await client.close();
  await client.close();
  await repository.close();
  assert.equal((await running).after?.sequence, 2);
  const closed = (of: Loose, verbs: Readonly<Record<string, Verb>>): Calls<unknown> =>
    Object.fromEntries(
      Object.entries(verbs).map(([name, { how }]) => [
        `${name}: the object was closed; open it again`,
        () => (how === "stream" ? of[name]().next() : of[name]()),
      ]),
    );
  await assertUsage(client, closed(client, CLIENT_VERBS));
  await assertUsage(repository, closed(repository, REPOSITORY_VERBS));
  const other = await library.open(client.workspace.path);
  await assert.rejects(other.createBackup(repository), { code: "usage", message: /opened and not closed$/ });
});

test("verify throws the damage that it found if throwOnDamage is set", async (t) => {
  const { client, root, library } = await testFolder(t, { a: "one" });
  await client.save();
  await using repository = await library.initRepository({ repository: join(root, "repository"), password: "x" });
  await client.createBackup(repository);
  const asked = { throwOnDamage: true };
  assert.deepEqual((await client.verify("head", asked)).problems, []);
  assert.deepEqual((await repository.verify(asked)).problems, []);
  for (const place of [join(root, "repository"), (await client.store()).repository])
    for (const name of readdirSync(join(place, "data"), { recursive: true, encoding: "utf8" }))
      if (name.length > 60) truncateSync(join(place, "data", name), 20);
  const calls = {
    verify: async (options: object) => client.verify("head", options),
    verifyAll: async (options: object) => client.verifyAll(options),
    "verify of a repository": async (options: object) => repository.verify(options),
  };
  for (const [name, call] of Object.entries(calls)) {
    const { problems } = await call({});
    assert.ok(problems.length > 0, name);
    await assert.rejects(call(asked), (error: Loose) => {
      assert.deepEqual([error.code, error.details.problems.length], ["damaged", problems.length], name);
      assert.match(error.message, /^\d+ problems? found; /);
      return true;
    });
  }
});

test("an abort stops forget while it waits for another process, and the folder stays registered", async (t) => {
  const { library, folder } = await testFolder(t);
  const controller = new AbortController();
  using lock = await lockRegistry();
  const forgotten = library.forget(folder, { signal: controller.signal });
  setImmediate(() => controller.abort());
  await assert.rejects(forgotten, hasCode("interrupted"));
  await assert.rejects(library.forget(folder, { lockTimeoutMs: 0 }), hasCode("busy"));
  lock.release();
  assert.equal((await library.listWorkspaces()).length, 1);
});

test("a verb whose file cannot be loaded fails in the way of its kind", async () => {
  class Calls {
    declare promised: () => Promise<unknown>;
    declare streamed: () => AsyncGenerator;
    declare told: () => unknown;
    perform(verb: Verb): unknown {
      return verb;
    }
  }
  const table = Object.defineProperties(
    {},
    Object.fromEntries(
      ["promised", "streamed", "told"].map((name) => {
        const get = (): never => {
          throw Object.assign(new Error("gone"), { code: "ERR_MODULE_NOT_FOUND" });
        };
        return [name, { enumerable: true, get }];
      }),
    ),
  ) as Readonly<Record<string, Verb>>;
  makeCalls(Calls, table, { streamed: "stream", told: "at once" });
  const calls = new Calls();
  await assert.rejects(calls.promised(), hasCode("unsupported"));
  await assert.rejects(calls.streamed().next(), hasCode("unsupported"));
  assert.throws(() => calls.told(), hasCode("unsupported"));
});
