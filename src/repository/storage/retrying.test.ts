import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { CountingStorage } from "./testing-counting.ts";
import { FaultyStorage } from "./testing-faulty.ts";
import { MemoryStorage } from "./testing-memory.ts";
import { CallStorage } from "./call-storage.ts";
import { RetryingStorage, type RetryOptions } from "./retrying.ts";
import { storageContract } from "./storage.contract.ts";
import { mayBeDone, type RetryEvent, type Storage } from "./storage.ts";

const NAME = "ab".repeat(32);
const BYTES = Buffer.from("0123456789");

function coded(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === code;
}

/** A retrying storage whose pauses only move a clock, for one caller. */
function patient(
  options: RetryOptions = {},
  signal?: AbortSignal,
): {
  memory: MemoryStorage;
  faulty: FaultyStorage;
  counting: CountingStorage;
  storage: Storage;
  events: RetryEvent[];
  pauses: number[];
} {
  let clock = 0;
  const memory = new MemoryStorage();
  const faulty = new FaultyStorage(memory);
  const counting = new CountingStorage(faulty);
  const events: RetryEvent[] = [];
  const pauses: number[] = [];
  const retrying = new RetryingStorage(counting, {
    now: () => clock,
    sleep: async (ms) => {
      pauses.push(ms);
      clock += ms;
    },
    random: () => 1,
    ...options,
  });
  const storage = new CallStorage(retrying, { signal, onRetry: (event) => events.push(event) });
  return { memory, faulty, counting, storage, events, pauses };
}

storageContract("retrying", () => new RetryingStorage(new MemoryStorage()));

test("retrying storage repeats a call after a temporary failure, with pauses that double", async () => {
  const { faulty, counting, storage, events, pauses } = patient();
  faulty.arm({ operation: "save", fault: "fail", times: 3 });
  await storage.save("data", NAME, BYTES);
  assert.equal(counting.count("save"), 4);
  assert.deepEqual(pauses, [500, 1000, 2000]);
  assert.deepEqual(
    events.map((event) => [event.operation, event.kind, event.attempt, event.error.code]),
    [1, 2, 3].map((attempt) => ["save", "data", attempt, "io"]),
  );
  for (const operation of ["load", "list", "exists", "sync", "remove"] as const)
    faulty.arm({ operation, fault: "fail" });
  assert.deepEqual(Buffer.from(await storage.load("data", NAME)), BYTES);
  assert.equal((await storage.list("data")).length, 1);
  assert.equal(await storage.exists("data", NAME), true);
  await storage.sync(["data"]);
  await storage.remove("data", NAME);
  assert.equal(events.length, 8);
});

test("retrying storage reports the same problem of several calls once to each caller", async () => {
  const refused = new Error("connect ECONNREFUSED 127.0.0.1:9");
  const failing = (doing: string, cause: Error) => async (): Promise<never> => {
    throw new CairnError("io", `${doing}: ${cause.message}`, { cause });
  };
  const away = Object.assign(Object.create(new MemoryStorage()) as Storage, {
    load: failing("cannot read", refused),
    list: failing("cannot list", refused),
    exists: failing("cannot look", new Error("socket hang up")),
  });
  const told: string[] = [];
  const storage = new RetryingStorage(away, {
    firstAttempts: 2,
    firstDelayMs: 200,
  });
  const one = new CallStorage(storage, { onRetry: ({ error }) => told.push(error.message) });
  const others: string[] = [];
  const other = new CallStorage(storage, { onRetry: ({ error }) => others.push(error.message) });
  const calls = [
    one.load("config", "config"),
    one.list("keys"),
    one.exists("config", "config"),
    other.list("keys"),
    storage.list("keys"),
  ];
  await Promise.all(calls.map(async (call) => assert.rejects(call, coded("io"))));
  assert.deepEqual(told, [`cannot read: ${refused.message}`, "cannot look: socket hang up"]);
  assert.deepEqual(others, [`cannot list: ${refused.message}`]);
});

test("retrying storage shortens each pause by a random part of up to a half", async () => {
  const draws = [0, 0.5];
  const { faulty, storage, pauses } = patient({ random: () => draws.shift()! });
  faulty.arm({ operation: "list", fault: "fail", times: 2 });
  await storage.list("index");
  assert.deepEqual(pauses, [250, 750]);
});

test("retrying storage throws a permanent error at once", async () => {
  const { faulty, counting, storage, pauses } = patient();
  faulty.arm({ operation: "save", fault: "no_space", times: 5 });
  await assert.rejects(storage.save("data", NAME, BYTES), coded("no_space"));
  await assert.rejects(storage.load("data", NAME), coded("not_found"));
  await assert.rejects(storage.remove("data", NAME), coded("not_found"));
  assert.equal(counting.count("save") + counting.count("load") + counting.count("remove"), 3);
  assert.deepEqual(pauses, []);
});

test("retrying storage gives up after its attempts or its time, and the error names attempts and time", async () => {
  const few = patient({ attempts: 3 });
  few.faulty.arm({ operation: "load", fault: "fail", times: 100 });
  await assert.rejects(few.storage.load("data", NAME), (error: CairnError) => {
    assert.match(error.message, /given up after 3 attempts in 2 s/);
    assert.match(error.hint!, /whether the server is up/);
    return true;
  });
  assert.equal(few.counting.count("load"), 3);
  const short = patient({ totalMs: 4000, attempts: 100, firstAttempts: 100 });
  short.faulty.arm({ operation: "load", fault: "fail", times: 100 });
  await assert.rejects(short.storage.load("data", NAME), coded("io"));
  assert.deepEqual(short.pauses, [500, 1000, 2000]);
});

test("retrying storage makes more attempts once the storage has answered, also if it answered not_found", async () => {
  const { faulty, counting, storage } = patient();
  faulty.arm({ operation: "list", fault: "fail", times: 100 });
  await assert.rejects(storage.list("data"), coded("io"));
  assert.equal(counting.count("list"), 4);
  await assert.rejects(storage.load("data", NAME), coded("not_found"));
  await assert.rejects(storage.list("data"), coded("io"));
  assert.equal(counting.count("list"), 14);
});

test("after a failed call a retrying storage makes fewer attempts until the storage answers", async () => {
  const { faulty, counting, storage } = patient();
  await storage.list("index");
  faulty.arm({ operation: "save", fault: "fail", times: 10 });
  await assert.rejects(storage.save("data", NAME, BYTES), /given up after 10 attempts/);
  faulty.arm({ operation: "remove", fault: "fail", times: 4 });
  await assert.rejects(storage.remove("locks", NAME), /given up after 4 attempts/);
  await storage.list("index");
  faulty.arm({ operation: "load", fault: "fail", times: 9 });
  await assert.rejects(storage.load("data", NAME), coded("not_found"));
  assert.equal(counting.count("load"), 10);
});

test("retrying storage waits for the retry-after time of the storage", async () => {
  const memory = new MemoryStorage();
  const pauses: number[] = [];
  let asked = 0;
  const busy = Object.assign(Object.create(memory) as Storage, {
    list: async () => {
      if (asked++ === 0) throw new CairnError("busy", "slow down", { details: { retryAfterMs: 7000 } });
      return [];
    },
  });
  const storage = new RetryingStorage(busy, { sleep: async (ms) => void pauses.push(ms), random: () => 0 });
  assert.deepEqual(await storage.list("data"), []);
  assert.deepEqual(pauses, [7000]);
});

test("retrying storage throws io if three loads return different wrong bytes", async () => {
  const bytes = Buffer.from("as it was written");
  const name = createHash("sha256").update(bytes).digest("hex");
  const [one, two, three] = ["as it Was", "as It was", "As it was"].map((text) => Buffer.from(text));
  const told: string[] = [];
  const loadAs = async (...comes: (Buffer | undefined)[]): Promise<Uint8Array> => {
    const inner = Object.assign(new MemoryStorage(), { load: async () => comes.shift()! });
    return new RetryingStorage(inner).load("index", name, undefined, { onWrong: (message) => void told.push(message) });
  };
  await assert.rejects(loadAs(one, two, three), {
    code: "io",
    message: /arrived with different wrong bytes each of 3 times/,
  });
  assert.deepEqual(told, []);
  assert.equal(await loadAs(one, two, bytes), bytes);
  assert.match(told.pop()!, /right ones when it was read again/);
  assert.equal(await loadAs(one, two, one), one);
  assert.match(told.pop()!, /is damaged there/);
});

test("retrying storage succeeds if the storage has done the work of a call that failed", async () => {
  const { faulty, storage, memory } = patient();
  faulty.arm({ operation: "save", fault: "late_success" });
  await storage.save("config", "config", BYTES);
  faulty.arm({ operation: "save", fault: "late_success" });
  await storage.save("data", NAME, BYTES);
  assert.deepEqual(Buffer.from(await memory.load("data", NAME)), BYTES);
  faulty.arm({ operation: "remove", fault: "late_success" });
  await storage.remove("data", NAME);
  assert.equal(await memory.exists("data", NAME), false);
});

test("retrying storage throws already_exists if the storage has another config", async () => {
  const { faulty, storage, memory } = patient();
  // As long as our own: configs of two hosts differ in their random id only.
  const other = Buffer.from(BYTES).reverse();
  await memory.save("config", "config", other);
  await assert.rejects(storage.save("config", "config", BYTES), coded("already_exists"));
  faulty.arm({ operation: "save", fault: "fail" });
  await assert.rejects(storage.save("config", "config", BYTES), coded("already_exists"));
  assert.deepEqual(Buffer.from(await memory.load("config", "config")), other);
});

test("saveFile of retrying storage succeeds if the storage has stored the file although the call failed", async () => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-retrying-"));
  try {
    const { faulty, storage, memory } = patient();
    const temporary = join(folder, "pack");
    writeFileSync(temporary, BYTES);
    faulty.arm({ operation: "saveFile", fault: "late_success" });
    await storage.saveFile("data", NAME, temporary);
    assert.deepEqual(Buffer.from(await memory.load("data", NAME)), BYTES);
    assert.equal(existsSync(temporary), false);
    faulty.arm({ operation: "saveFile", fault: "fail" });
    await assert.rejects(storage.saveFile("data", "cd".repeat(32), temporary), coded("not_found"));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("an abort ends the pause of a retrying storage", async () => {
  const stop = new AbortController();
  const faulty = new FaultyStorage(new MemoryStorage(), [{ operation: "load", fault: "fail", times: 100 }]);
  const counting = new CountingStorage(faulty);
  const patience = { firstDelayMs: 3_600_000, maxDelayMs: 3_600_000, totalMs: Infinity };
  const call = { signal: stop.signal, onRetry: () => void setImmediate(() => stop.abort()) };
  const storage = new CallStorage(new RetryingStorage(counting, patience), call);
  await assert.rejects(storage.load("data", NAME), coded("interrupted"));
  assert.equal(counting.count("load"), 1);
  await assert.rejects(storage.load("data", NAME), coded("interrupted"));
  assert.equal(counting.count("load"), 2);
  faulty.disarm();
  await storage.save("locks", NAME, BYTES);
  await storage.remove("locks", NAME);
});

test("after an abort, retrying storage repeats only removals of locks, within the grace period", async () => {
  const stop = new AbortController();
  const { memory, faulty, counting, storage, pauses } = patient({}, stop.signal);
  const asked = (): number[] => [counting.count("remove", "locks"), counting.count("remove", "keys")];
  for (const kind of ["locks", "keys"] as const) await memory.save(kind, NAME, BYTES);
  await storage.list("locks");
  stop.abort();
  faulty.arm({ operation: "remove", fault: "fail", times: 2 });
  await storage.remove("locks", NAME);
  assert.deepEqual(
    [asked(), pauses],
    [
      [3, 0],
      [500, 1000],
    ],
  );
  faulty.arm({ operation: "remove", fault: "fail", times: 100 });
  await assert.rejects(storage.remove("keys", NAME), coded("interrupted"));
  assert.deepEqual(asked(), [3, 1]);
  await assert.rejects(storage.remove("locks", NAME), coded("interrupted"));
  assert.deepEqual(
    [asked(), pauses.slice(2)],
    [
      [8, 1],
      [500, 1000, 2000, 4000],
    ],
  );
});

test("retrying storage removes a lock even if the caller aborts between two attempts", async () => {
  const stop = new AbortController();
  const { memory, faulty, storage } = patient({ sleep: async () => stop.abort() }, stop.signal);
  await memory.save("locks", NAME, BYTES);
  faulty.arm({ operation: "remove", fault: "fail", times: 2 });
  await storage.remove("locks", NAME);
  assert.deepEqual(await memory.list("locks"), []);
});

test("an abort ends reads and pack transfers of retrying storage at once, and lets commits finish", async () => {
  const stop = new AbortController();
  const gate = Promise.withResolvers<void>();
  const slow = new MemoryStorage();
  const save = slow.save.bind(slow);
  slow.save = async (...args) => {
    await gate.promise;
    return save(...args);
  };
  slow.load = () => new Promise(() => undefined);
  const storage = new CallStorage(new RetryingStorage(slow), { signal: stop.signal });
  const cut = [storage.load("index", NAME), storage.save("data", NAME, BYTES)];
  const kept = storage.save("snapshots", NAME, BYTES);
  stop.abort();
  for (const each of cut) await assert.rejects(each, coded("interrupted"));
  gate.resolve();
  await kept;
  await storage.save("data", "cd".repeat(32), BYTES);
});

test("the error of a commit that had no answer before an abort says that its result is unknown", async () => {
  const stop = new AbortController();
  const silent = new MemoryStorage();
  silent.save = () => new Promise(() => undefined);
  const storage = new CallStorage(new RetryingStorage(silent, { graceMs: 50 }), { signal: stop.signal });
  const unknown = (error: CairnError): boolean => {
    assert.equal(error.code, "interrupted");
    assert.match(error.message, /it is not known whether key abababab was written to /);
    assert.match(error.hint!, /cairn backup key list/);
    assert.ok(mayBeDone(error));
    return true;
  };
  const saved = storage.save("keys", NAME, BYTES);
  stop.abort();
  await assert.rejects(saved, unknown);
  await assert.rejects(storage.save("keys", NAME, BYTES), unknown);

  const again = new AbortController();
  const { storage: failing, faulty } = patient({ sleep: async () => again.abort() }, again.signal);
  faulty.arm({ operation: "save", fault: "late_success" });
  await assert.rejects(failing.save("keys", NAME, BYTES), unknown);
});

test("an abort ends only its caller's calls to retrying storage", async () => {
  const stop = new AbortController();
  const gate = Promise.withResolvers<void>();
  const slow = new MemoryStorage();
  slow.list = async () => {
    await gate.promise;
    return [];
  };
  const storage = new RetryingStorage(slow);
  const [mine, other] = [
    new CallStorage(storage, { signal: stop.signal }),
    new CallStorage(storage, { signal: new AbortController().signal }),
  ];
  const [stopped, going, nobodys] = [mine.list("data"), other.list("data"), storage.list("data")];
  stop.abort();
  await assert.rejects(stopped, coded("interrupted"));
  gate.resolve();
  assert.deepEqual([await going, await nobodys], [[], []]);
});

test("closing a retrying storage ends its running calls, and refuses new calls except commits", async () => {
  let asked = 0;
  const away = Object.assign<Storage, Partial<Storage>>(new MemoryStorage(), {
    list: async (): Promise<never> => {
      asked++;
      throw new CairnError("io", "connection refused");
    },
    load: () => new Promise(() => undefined),
    close: async () => undefined,
  });
  const told: string[] = [];
  const retrying = new RetryingStorage(away, { firstDelayMs: 3_600_000, maxDelayMs: 3_600_000, totalMs: Infinity });
  const storage = new CallStorage(retrying, { onRetry: ({ error }) => told.push(error.message) });
  const under = [storage.list("data"), storage.load("data", NAME)];
  await new Promise((resolve) => setImmediate(resolve));
  await retrying.close!();
  for (const each of [...under, storage.list("data")])
    await assert.rejects(each, { code: "interrupted", message: "the repository was closed" });
  assert.deepEqual([asked, told], [1, ["connection refused"]]);
  await storage.save("locks", NAME, BYTES);
  await storage.remove("locks", NAME);
});
