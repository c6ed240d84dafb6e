import assert from "node:assert/strict";
import { test } from "node:test";
import type { RunningCall } from "../../contract/service.ts";
import { CairnError } from "../../errors.ts";
import type { Caller } from "../state/peer.ts";
import { Events } from "./events.ts";
import { Records } from "./records.ts";
import { type Asked, Running, type RunningHand } from "./running.ts";

const ME: Caller = { pid: 7, uid: 4711, gid: 4711, isAgent: false, token: null, only: null };
const OTHER: Caller = { ...ME, uid: 4712 };
const AGENT: Caller = { ...ME, isAgent: true, token: "abc" };
const OPERATOR: Caller = { ...ME, uid: 0 };
const SAVE: Asked = { verb: "save", workspace: "/w", place: null, caller: ME };

function opened(): { running: Running; events: Events; told: RunningCall[] } {
  const events = new Events(Records.inMemory(), { killed: false, log: assert.fail });
  const told: RunningCall[] = [];
  events.listen(({ event }) => event.type === "call" && told.push(event.data));
  return { running: new Running(events), events, told };
}

/** Begins a call that ends as the test wants, or when its signal fires. */
function begun(running: Running, asked: Asked = SAVE) {
  const work = Promise.withResolvers<void>();
  const hand = Promise.withResolvers<RunningHand>();
  const ended = running.during(asked, undefined, async (its) => {
    its.signal.addEventListener("abort", () => work.reject(new CairnError("interrupted", "stopped by the caller")));
    hand.resolve(its);
    await work.promise;
  });
  ended.catch(() => undefined);
  return { ended, hand: hand.promise, ...work };
}

test("a call is listed from its acceptance to its end, and its steps are told", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const { running, told, events } = opened();
  const { hand, resolve, ended } = begun(running);
  const its = await hand;
  assert.deepEqual(running.list(ME), [], "it may still be refused");
  its.onAccepted();
  t.mock.timers.tick(250);
  its.onBegin();
  for (let done = 0; done <= 2; done++)
    its.onProgress({ phase: "storing", done, total: 5, bytes: 10, total_bytes: 20 });
  const [listed] = running.list(ME);
  assert.deepEqual(
    [listed!.verb, listed!.workspace, listed!.state, listed!.progress?.done, listed!.pid, listed!.scheduled],
    ["save", "/w", "running", 2, 7, false],
  );
  resolve();
  await ended;
  assert.deepEqual(running.list(ME), []);
  const states = told.map(({ state }) => state);
  assert.deepEqual(states, ["waiting", "running", "done"]);
  assert.equal(events.after(0, 10).filter(({ event }) => event.type === "call").length, 0, "it is not stored");
});

test("nobody is told of a short call, unless it fails", async () => {
  const { running, told } = opened();
  for (const end of ["resolve", "reject"] as const) {
    const call = begun(running);
    const its = await call.hand;
    its.onAccepted();
    its.onBegin();
    its.onProgress({ phase: "storing", done: 2 });
    if (end === "resolve") call.resolve();
    else call.reject(new CairnError("refused", "no"));
    await call.ended.catch(() => undefined);
  }
  assert.deepEqual(
    told.map(({ state }) => state),
    ["failed"],
  );
});

test("the end of a short call is told if somebody has seen the call in the list", async () => {
  const { running, told } = opened();
  const call = begun(running);
  const its = await call.hand;
  its.onAccepted();
  its.onBegin();
  assert.equal(running.list(OTHER).length, 0);
  assert.equal(running.list(ME).length, 1);
  call.resolve();
  await call.ended;
  assert.deepEqual(
    told.map(({ state }) => state),
    ["done"],
  );
});

test("a cancelled call ends with `interrupted`, and the answer says what stays", async () => {
  const { running } = opened();
  const { hand, ended } = begun(running, { ...SAVE, verb: "backup", repository: "/r", caller: null });
  (await hand).onAccepted();
  const { running_id: id } = running.list(OPERATOR)[0]!;
  const { state, stays } = await running.cancel(OPERATOR, id);
  assert.equal(state, "cancelled");
  assert.match(stays, /no snapshot of it.*begins it again after ten minutes/);
  await assert.rejects(ended, { code: "interrupted", message: "cancelled by user 0" });
  await assert.rejects(running.cancel(OPERATOR, id), { code: "not_found" });
});

test("a cancelled `due` keeps what it had done, and a cancelled save by itself is not begun again after a time", async () => {
  const { running } = opened();
  for (const [asked, said] of [
    [{ ...SAVE, verb: "due" }, /^What it had done by then stays: [^.]*\.$/],
    [{ ...SAVE, caller: null }, /^Nothing was changed\.$/],
  ] as const) {
    const { hand } = begun(running, asked);
    (await hand).onAccepted();
    const { stays } = await running.cancel(OPERATOR, running.list(OPERATOR)[0]!.running_id);
    assert.match(stays, said);
  }
});

test("a call that was done before it could stop says so when it is cancelled", async () => {
  const { running } = opened();
  const hand = Promise.withResolvers<RunningHand>();
  const ended = running.during(SAVE, undefined, async (its) => {
    its.onAccepted();
    hand.resolve(its);
    await new Promise((done) => its.signal.addEventListener("abort", done));
    return 1;
  });
  await hand.promise;
  const { state, stays } = await running.cancel(ME, running.list(ME)[0]!.running_id);
  assert.deepEqual([state, stays], ["done", "It had passed its commit point, and is done."]);
  assert.equal(await ended, 1);
});

test("callers see and cancel their own calls, agents those of their token, operators all", async () => {
  const { running } = opened();
  for (const caller of [ME, OTHER, AGENT, null]) (await begun(running, { ...SAVE, caller }).hand).onAccepted();
  const all = running.list(OPERATOR);
  assert.equal(all.length, 4);
  const owners = (peer: Caller): (number | string)[] => running.list(peer).map(({ uid, token }) => token ?? uid);
  assert.deepEqual(owners(OTHER), [4712]);
  assert.deepEqual(owners(AGENT), ["abc"]);
  assert.deepEqual(owners(ME), [4711, "abc"]);
  for (const { running_id: id, uid } of all)
    if (uid !== OTHER.uid) await assert.rejects(running.cancel(OTHER, id), { code: "not_found" });
});

test("a failed call is stored with the events", async () => {
  const { running, events } = opened();
  const { hand, reject, ended } = begun(running);
  (await hand).onAccepted();
  reject(new CairnError("refused", "the plan is another one by now"));
  await assert.rejects(ended, { code: "refused" });
  assert.equal(events.before({ types: ["save"] }, () => true).length, 0);
  assert.equal(events.before({ types: ["call"] }, () => true).length, 1);
  assert.equal(events.before({ limit: 1 }, ({ event }) => event.type !== "call").length, 1, "the start");
  const stored = events.after(0, 10).flatMap(({ event }) => (event.type === "call" ? [event.data.error] : []));
  assert.deepEqual(stored, [{ code: "refused", message: "the plan is another one by now" }]);
});

test("endless failures of calls are stored up to a limit", async () => {
  const { running, events } = opened();
  for (let i = 0; i < 120; i++)
    await running
      .during(SAVE, undefined, async () => Promise.reject(new CairnError("permission", "no")))
      .catch(() => undefined);
  assert.equal(events.before({ types: ["call"], limit: 1000 }, () => true).length, 100);
});
