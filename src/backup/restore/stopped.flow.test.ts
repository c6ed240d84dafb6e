import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { HANG_MS } from "../../../test/fixtures/eventually.ts";
import { PointStore } from "../../workspace/store/point-store.ts";
import type { CairnError } from "../../errors.ts";
import type { StorageFactory } from "../../repository/storage/location.ts";
import { RetryingStorage } from "../../repository/storage/retrying.ts";
import { openS3Storage } from "../../repository/storage/s3/s3.ts";
import { errorReply, TestingS3Server, type SeenRequest } from "../../repository/storage/s3/testing-s3-server.ts";
import type { BackupRepository, CairnLibrary, RepositoryOptions } from "../../contract/index.ts";
import { Library } from "../../verbs/open-library.ts";
import { openAgePassword } from "../age-password.ts";
import { makeRepository } from "../testing-repository.ts";

/** A caller that stops while a request that decides is done and not yet answered. */

const KEY = { accessKeyId: "AKIDTEST", secretAccessKey: "very/secret+key" };
const PASSWORD = "correct horse";

/** No answer, however long one waits. */
const SILENCE = new Promise(() => undefined);
/** For what is never answered. */
const SHORT_GRACE_MS = 300;

interface Scene {
  readonly server: TestingS3Server;
  readonly folder: string;
  readonly library: CairnLibrary;
  readonly storages: StorageFactory;
  /** Opened with a signal that fires when a request like this one is done, which is answered later, or never. */
  stoppedAt(is: (request: SeenRequest) => boolean, isAnswered?: boolean): Promise<Stopped>;
  /** With another password than the usual one, if given. */
  open(password?: string): Promise<BackupRepository>;
}

interface Stopped {
  readonly options: RepositoryOptions;
  readonly signal: AbortSignal;
}

/** `graceMs`: how long what decides is waited for, by default as long as it takes. */
async function scene(context: TestContext, graceMs = 10 * HANG_MS): Promise<Scene> {
  const folder = mkdtempSync(join(tmpdir(), "cairn-stopped-"));
  const server = await TestingS3Server.start(KEY);
  const opened: BackupRepository[] = [];
  context.after(async () => {
    for (const each of opened) await each.close();
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const storages: StorageFactory = async (location, options = {}) => {
    const storage = await openS3Storage(location.slice("s3:".length), options);
    return new RetryingStorage(storage, { graceMs, firstDelayMs: 1 });
  };
  const library = new Library(
    { engine: (found, options) => new PointStore({ control: found.control.root, ...options }), recoveries: [] },
    storages,
  ) as unknown as CairnLibrary;
  const env = {
    AWS_ACCESS_KEY_ID: KEY.accessKeyId,
    AWS_SECRET_ACCESS_KEY: KEY.secretAccessKey,
    XDG_CACHE_HOME: join(folder, "cache"),
    HOME: folder,
  };
  const options: RepositoryOptions = { repository: `s3:${server.address}/r`, password: PASSWORD, env };
  return {
    server,
    folder,
    library,
    storages,
    open: async (password = PASSWORD) => {
      const repository = await library.openRepository({ ...options, password });
      opened.push(repository);
      return repository;
    },
    stoppedAt: async (is, isAnswered = true) => {
      const stop = new AbortController();
      server.hold = async (request) => {
        if (stop.signal.aborted || !is(request)) return;
        stop.abort();
        await (isAnswered ? sleep(300) : SILENCE);
      };
      return { options, signal: stop.signal };
    },
  };
}

function of(method: string, kind: string): (request: SeenRequest) => boolean {
  return (request) => request.method === method && request.path.startsWith(`/bucket/r/${kind}`);
}

async function* bytes(): AsyncGenerator<Uint8Array> {
  yield Buffer.from("content");
}

/** A repository that is there, and opened with the signal of `stoppedAt`. */
async function inRepository(
  at: Scene,
  stopped: Promise<Stopped>,
  work: (repository: BackupRepository, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const { options, signal } = await stopped;
  const repository = await at.library.openRepository({ ...options, signal });
  try {
    await work(repository, signal);
  } finally {
    await repository.close();
  }
}

async function made(at: Scene): Promise<void> {
  const { options } = await at.stoppedAt(() => false);
  await makeRepository({ ...options, password: PASSWORD }, at.storages);
}

test("initRepository succeeds if the caller stops after the config was written but before the answer", async (t) => {
  const at = await scene(t);
  const { options, signal } = await at.stoppedAt(of("PUT", "config"));
  await (await at.library.initRepository({ ...options, signal })).close();
  assert.ok(signal.aborted);
  assert.equal((await (await at.open()).keys()).keys.length, 1);
});

test("addKey succeeds if the caller stops after the key was written but before the answer", async (t) => {
  const at = await scene(t);
  await made(at);
  await inRepository(at, at.stoppedAt(of("PUT", "keys")), async (repository, signal) => {
    assert.equal((await repository.addKey("second", { signal })).keys.length, 2);
    assert.ok(signal.aborted);
  });
  assert.equal((await (await at.open("second")).keys()).keys.length, 2);
});

for (const [what, method] of [
  ["the new key", "PUT"],
  ["the old key's removal", "DELETE"],
] as const) {
  test(`changePassword succeeds if the caller stops before the answer to ${what}`, async (t) => {
    const at = await scene(t);
    await made(at);
    await inRepository(at, at.stoppedAt(of(method, "keys")), async (repository, signal) => {
      assert.equal((await repository.changePassword("second", { signal })).keys.length, 1);
      assert.ok(signal.aborted);
    });
    await assert.rejects(at.open(), { code: "wrong_password" });
    await at.open("second");
  });
}

test("changePassword keeps the new password if it is unknown whether the old key was removed", async (t) => {
  const at = await scene(t, SHORT_GRACE_MS);
  await made(at);
  await inRepository(at, at.stoppedAt(of("DELETE", "keys"), false), async (repository, signal) => {
    await assert.rejects(repository.changePassword("second", { signal }), (error: CairnError) => {
      assert.equal(error.code, "interrupted");
      assert.match(
        error.message,
        /the new password opens the repository; it is not known whether the old one still does/,
      );
      return true;
    });
  });
  await at.open("second");
});

test("createFromStream and forget report their work although the caller stopped before the last answer", async (t) => {
  const at = await scene(t);
  await made(at);
  const ids: string[] = [];
  await inRepository(at, at.stoppedAt(of("PUT", "snapshots")), async (repository, signal) => {
    ids.push((await repository.createFromStream(bytes(), { signal })).snapshot!.snapshot_id);
    assert.ok(signal.aborted);
  });
  const repository = await at.open();
  ids.push((await repository.createFromStream(bytes())).snapshot!.snapshot_id);
  await inRepository(at, at.stoppedAt(of("DELETE", `snapshots/${ids[0]}`)), async (stopped, signal) => {
    await assert.rejects(stopped.forget({ snapshots: ids, signal }), (error: CairnError) => {
      assert.equal(error.code, "interrupted");
      assert.match(error.message, /^1 snapshot removed before this error: /);
      return true;
    });
  });
  assert.deepEqual(
    (await repository.list()).snapshots.map((snapshot) => snapshot.snapshot_id),
    [ids[1]],
  );
  await inRepository(at, at.stoppedAt(of("DELETE", `snapshots/${ids[1]}`)), async (stopped, signal) => {
    assert.deepEqual((await stopped.forget({ snapshots: [ids[1]!], signal })).removed, [ids[1]]);
    assert.ok(signal.aborted);
  });
  assert.equal([...at.server.objects.keys()].filter((key) => /snapshots|locks/.test(key)).length, 0);
});

test("copyTo reports how many snapshots it copied before it was stopped, and the next call copies the rest", async (t) => {
  const at = await scene(t);
  await made(at);
  const source = await at.open();
  for (let i = 0; i < 3; i++) await source.createFromStream(bytes());
  const { options, signal } = await at.stoppedAt(({ method, path }) => method === "PUT" && /r2\/snapshots/.test(path));
  const target = await at.library.initRepository({ ...options, repository: `${options.repository}2`, signal });
  t.after(async () => target.close());
  await assert.rejects(source.copyTo(target, { signal }), {
    code: "interrupted",
    message: "stopped by the caller; 1 snapshot copied",
  });
  const { copied, present } = await source.copyTo(target);
  assert.deepEqual([copied.length, present], [2, 1]);
});

for (const isAnswered of [true, false]) {
  const when = isAnswered ? "before the answer" : "and the answer never comes";
  test(`addAgeKey keeps the password file if the caller stops ${when}`, async (t) => {
    const at = await scene(t, isAnswered ? undefined : SHORT_GRACE_MS);
    await made(at);
    const identity = await generateX25519Identity();
    const [file, identities] = [join(at.folder, "password.age"), join(at.folder, "identity")];
    writeFileSync(identities, `${identity}\n`);
    const stopped = at.stoppedAt(of("PUT", "keys"), isAnswered);
    await inRepository(at, stopped, async (repository, signal) => {
      const adding = repository.addAgeKey({ recipients: [await identityToRecipient(identity)], file, signal });
      if (isAnswered) assert.equal((await adding).keys.length, 2);
      else
        await assert.rejects(adding, (error: CairnError) => {
          assert.equal(error.code, "interrupted");
          assert.match(error.message, /it is not known whether the key was added, so .*password\.age was kept/);
          assert.match(error.hint!, /cairn backup list --password-file \S*password\.age --age-identity/);
          return true;
        });
      assert.ok(signal.aborted);
    });
    assert.ok(existsSync(file));
    const password = await openAgePassword(readFileSync(file), { file, identity: identities });
    await at.open(Buffer.from(password).toString("utf8"));
  });
}

test("addAgeKey removes its password file if the storage refused the key", async (t) => {
  const at = await scene(t);
  await made(at);
  const file = join(at.folder, "password.age");
  const recipients = [await identityToRecipient(await generateX25519Identity())];
  const repository = await at.open();
  at.server.faults.push((request, answer) => {
    if (!of("PUT", "keys")(request)) return false;
    answer.writeHead(403).end();
    return true;
  });
  await assert.rejects(repository.addAgeKey({ recipients, file }), { code: "permission" });
  assert.equal(existsSync(file), false);
});

test("createFromStream that is stopped before its snapshot is written ends at once and leaves no lock", async (t) => {
  const at = await scene(t);
  await made(at);
  await inRepository(at, at.stoppedAt(of("PUT", "data"), false), async (repository, signal) => {
    await assert.rejects(repository.createFromStream(bytes(), { signal }), { code: "interrupted" });
  });
  assert.equal((await (await at.open()).list()).snapshots.length, 0);
  assert.equal([...at.server.objects.keys()].filter((key) => key.includes("/locks/")).length, 0);
});

/** Never answers requests like this one, and says when one has come. */
function silentAt(at: Scene, is: (request: SeenRequest) => boolean): Promise<void> {
  const come = Promise.withResolvers<void>();
  at.server.hold = async (request) => {
    if (!is(request)) return;
    come.resolve();
    await SILENCE;
  };
  return come.promise;
}

function listOf(kind: string): (request: SeenRequest) => boolean {
  return ({ method, query }) => method === "GET" && query.get("prefix") === `r/${kind}/`;
}

/** Stops a call that nothing else would end for minutes. */
async function endsOnceStopped(stop: AbortController, failing: Promise<unknown>): Promise<void> {
  const begun = performance.now();
  stop.abort();
  await assert.rejects(failing, { code: "interrupted" });
  const took = performance.now() - begun;
  assert.ok(took < HANG_MS, `${took} ms`);
}

function locksIn(at: Scene): string[] {
  return [...at.server.objects.keys()].filter((key) => key.includes("/locks/"));
}

test("a call ends only by its own signal, not by the signal of another call or of openRepository", async (t) => {
  const at = await scene(t);
  await made(at);
  const { options } = await at.stoppedAt(() => false);
  const repository = await at.library.openRepository({ ...options, signal: new AbortController().signal });
  t.after(async () => repository.close());
  const come = silentAt(at, listOf("index"));
  const [stop, other] = [new AbortController(), new AbortController()];
  const verifying = repository.verify({ signal: stop.signal });
  verifying.catch(() => undefined);
  await come;
  const going = Array.from({ length: 5 }, async () => repository.keys({ signal: other.signal }));
  await endsOnceStopped(stop, verifying);
  for (const each of going) assert.equal((await each).keys.length, 1);
  assert.deepEqual(locksIn(at), []);
  at.server.hold = () => undefined;
  assert.deepEqual((await repository.verify()).problems, []);
});

test("a stopped call ends after its grace period although its lock cannot be removed", async (t) => {
  const at = await scene(t, SHORT_GRACE_MS);
  await made(at);
  const repository = await at.open();
  let isSilent = false;
  const come = silentAt(at, (request) => (isSilent ||= listOf("index")(request)));
  const stop = new AbortController();
  const warnings: string[] = [];
  const verifying = repository.verify({ signal: stop.signal, onWarning: (message) => void warnings.push(message) });
  verifying.catch(() => undefined);
  await come;
  await endsOnceStopped(stop, verifying);
  assert.match(warnings.join(), /lock could not be removed/);
});

test("a call that is stopped just after its lock was placed only removes the lock", async (t) => {
  const at = await scene(t);
  await made(at);
  const repository = await at.open();
  const stop = new AbortController();
  const asked: string[] = [];
  at.server.hold = (request) => {
    if (stop.signal.aborted) asked.push(`${request.method} ${request.query.get("prefix") ?? ""}`);
    if (!of("PUT", "locks")(request)) return;
    setTimeout(() => stop.abort(), 50);
  };
  await assert.rejects(repository.verify({ signal: stop.signal }), { code: "interrupted" });
  assert.deepEqual(asked, ["HEAD ", "DELETE "]);
  assert.deepEqual(locksIn(at), []);
});

test("a stopped call removes its lock although the first attempt fails", async (t) => {
  const at = await scene(t);
  await made(at);
  const repository = await at.open();
  const stop = new AbortController();
  at.server.hold = (request) => {
    if (of("PUT", "locks")(request)) setTimeout(() => stop.abort(), 50);
  };
  at.server.fail("DELETE", errorReply(503, "SlowDown", "reduce your request rate"), 2);
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  await assert.rejects(repository.verify({ signal: stop.signal, onWarning }), { code: "interrupted" });
  assert.deepEqual(locksIn(at), []);
  assert.ok(!warnings.some((message) => message.includes("lock could not be removed")), warnings.join());
});

test("the signal of a call ends its pause before a retry", async (t) => {
  const at = await scene(t);
  await made(at);
  const repository = await at.open();
  at.server.faults.push((request, answer) => {
    if (!listOf("snapshots")(request)) return false;
    answer.writeHead(503, { "retry-after": "600" }).end();
    return true;
  });
  const stop = new AbortController();
  const told = Promise.withResolvers<string>();
  const listing = repository.list({ signal: stop.signal, onWarning: told.resolve });
  listing.catch(() => undefined);
  assert.match(await told.promise, /^cannot list snapshots at .*; trying again in \d+ s$/);
  await endsOnceStopped(stop, listing);
});

test("createBackup of a workspace ends by its own signal", async (t) => {
  const at = await scene(t);
  await made(at);
  const repository = await at.open();
  const client = await at.library.init(join(at.folder, "work"), { selfContained: true });
  t.after(async () => client.close());
  writeFileSync(join(client.workspacePath(), "file"), "content");
  await client.save();
  const come = silentAt(at, of("PUT", "data"));
  const stop = new AbortController();
  const backup = client.createBackup(repository, { signal: stop.signal });
  backup.catch(() => undefined);
  await come;
  await endsOnceStopped(stop, backup);
  assert.deepEqual(locksIn(at), []);
  at.server.hold = () => undefined;
  assert.ok((await client.createBackup(await at.open())).snapshot !== null);
});

test("the signal given to openRepository ends no later call", async (t) => {
  const at = await scene(t, SHORT_GRACE_MS);
  await made(at);
  const { options } = await at.stoppedAt(() => false);
  const opening = new AbortController();
  const repository = await at.library.openRepository({ ...options, signal: opening.signal });
  t.after(async () => repository.close());
  opening.abort();
  // Longer than anybody waits for a call that was stopped.
  at.server.hold = async (request) => {
    if (of("PUT", "snapshots")(request)) await sleep(1500);
  };
  let refusals = 1;
  at.server.faults.push((request, answer) => {
    if (!of("PUT", "data")(request) || refusals-- <= 0) return false;
    answer.writeHead(503).end();
    return true;
  });
  assert.ok((await repository.createFromStream(bytes())).snapshot !== null);
});

test("the signal given to openRepository ends the opening", async (t) => {
  const at = await scene(t);
  await made(at);
  const { options } = await at.stoppedAt(() => false);
  const come = silentAt(at, of("GET", "keys"));
  const stop = new AbortController();
  const opening = at.library.openRepository({ ...options, signal: stop.signal });
  opening.catch(() => undefined);
  await come;
  await endsOnceStopped(stop, opening);
});

test("closing a repository ends its running call without a warning and without a further request", async (t) => {
  const at = await scene(t);
  await made(at);
  const repository = await at.open();
  const come = silentAt(at, listOf("snapshots"));
  const warnings: string[] = [];
  const listing = repository.list({ onWarning: (message) => void warnings.push(message) });
  listing.catch(() => undefined);
  await come;
  await repository.close();
  await assert.rejects(listing, { code: "interrupted", message: "the repository was closed" });
  const { length } = at.server.seen;
  await sleep(200);
  assert.deepEqual([at.server.seen.length - length, warnings, locksIn(at)], [0, [], []]);
});

test("a call that waits for the removal of a dead lock succeeds although the removing call is stopped", async (t) => {
  const at = await scene(t);
  await made(at);
  const repository = await at.open();
  // A lock that could not be taken away is nobody's.
  at.server.faults.push((request, answer) => {
    if (!of("DELETE", "locks")(request)) return false;
    answer.writeHead(400).end();
    return true;
  });
  await repository.verify();
  assert.equal(locksIn(at).length, 1);
  at.server.faults.pop();
  const [asked, failing] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let refusals = 1;
  at.server.faults.push((request, answer) => {
    if (!of("DELETE", "locks")(request) || refusals-- <= 0) return false;
    asked.resolve();
    void failing.promise.then(() => answer.writeHead(503).end());
    return true;
  });
  const stop = new AbortController();
  const first = repository.verify({ signal: stop.signal });
  first.catch(() => undefined);
  await asked.promise;
  const second = repository.verify();
  await sleep(100);
  stop.abort();
  failing.resolve();
  await assert.rejects(first, { code: "interrupted" });
  assert.deepEqual((await second).problems, []);
  assert.deepEqual(locksIn(at), []);
});

test("a call whose signal is already aborted sends no request", async (t) => {
  const at = await scene(t);
  const { options } = await at.stoppedAt(() => false);
  const stop = new AbortController();
  const { signal } = stop;
  // Stopped while the password is asked for.
  const password = async (): Promise<string> => {
    stop.abort();
    return PASSWORD;
  };
  await assert.rejects(at.library.initRepository({ ...options, password, signal }), { code: "interrupted" });
  assert.equal(at.server.seen.length, 0);
  await made(at);
  const repository = await at.open();
  const { length } = at.server.seen;
  await assert.rejects(at.library.openRepository({ ...options, signal }), { code: "interrupted" });
  for (const call of [
    repository.keys({ signal }),
    repository.stats({ signal }),
    repository.cat("config", undefined, { signal }),
  ])
    await assert.rejects(call, { code: "interrupted" });
  assert.equal(at.server.seen.length, length);
});
