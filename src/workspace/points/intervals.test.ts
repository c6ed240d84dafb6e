import assert from "node:assert/strict";
import { test } from "node:test";
import type { SavePointId } from "../../ids.ts";
import type { StoredEvent } from "./agent-record.ts";
import { Calls, type ChangedEntry, intervalsOf, momentsOf, type Owner, type SavedPoint } from "./intervals.ts";

/** Histories of agents and a person on a busy machine. A hook's process starts late, and most saves are made after their hooks returned. */

const HAND_OVER = 1.3;
const BEGIN = Date.parse("2026-01-01T00:00:00Z");
const iso = (seconds: number): string => new Date(BEGIN + Math.round(seconds * 1000)).toISOString();

type Random = () => number;

/** Mulberry32. */
function randomOf(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

interface Told extends Partial<StoredEvent> {
  event: string;
  /** the agent; null: a person saves */
  who: string | null;
  /** seconds: the hook's process starts, and its save takes so long */
  t: number;
  lag: number;
}

interface Edit {
  t: number;
  who: string;
  path: string;
  removes: boolean;
}

class History {
  readonly events: Told[] = [];
  readonly edits: Edit[] = [];
  /** true times in which a call ran, and in which its end had no hook yet */
  readonly runs: { who: string; from: number; to: number; hooked: number }[] = [];
  readonly #random: Random;
  #calls = 0;
  /** the run of a call whose end is never told, by the agent's next event */
  #lost: History["runs"][number] | null = null;

  constructor(seed: number, agents: readonly string[]) {
    this.#random = randomOf(seed);
    for (const who of agents) this.#agent(who);
    const end = Math.max(...this.events.map(({ t }) => t)) + 30;
    for (let t = this.#between(1, 30); t < end; t += this.#between(1, 45)) {
      this.#edit(t, "P", this.#random() < 0.7 ? "p" : "g");
      if (this.#random() < 0.2) this.events.push({ event: "save", who: null, t: t + 0.5, lag: 0.3 });
    }
    this.events.sort((a, b) => a.t - b.t);
    this.edits.sort((a, b) => a.t - b.t);
  }

  #between(from: number, to: number): number {
    return from + this.#random() * (to - from);
  }

  #edit(t: number, who: string, of: string): void {
    const number = Math.floor(this.#random() * 40);
    this.edits.push({ t, who, path: `${of}${number % 8}/${number}`, removes: this.#random() < 0.15 });
  }

  /** Adds an event, and returns when its hook has returned. */
  #tell(event: string, who: string, t: number, more: Partial<StoredEvent> = {}): number {
    const lag = this.#random() < 0.6 ? this.#between(1.3, 10) : this.#between(0.1, 0.4);
    this.events.push({ event, who, t, lag, ...more });
    if (this.#lost !== null) this.#lost.hooked = t;
    this.#lost = null;
    return t + Math.min(HAND_OVER, lag) + 0.02;
  }

  #agent(who: string): void {
    let t = this.#between(0, 20);
    for (let turn = this.#between(2, 5); turn > 0; turn--) {
      t = this.#tell("UserPromptSubmit", who, t);
      let isStopped = false;
      for (let batch = Math.floor(this.#between(0, 7)); batch > 0 && !isStopped; batch--) {
        const begun = (t += this.#between(0.5, 6));
        const count = this.#random() < 0.12 ? 2 : 1;
        const denied: string[] = [];
        for (let i = 0; i < count; i++) {
          const { end, isDenied, isLost, call } = this.#call(who, begun + i * 0.05, count === 1);
          t = Math.max(t, end);
          if (isDenied) denied.push(call);
          isStopped ||= isLost;
        }
        if (!isStopped) t = this.#tell("PostToolBatch", who, t + this.#between(0.05, 1), { denied });
      }
      if (!isStopped && this.#random() > 0.02) t = this.#tell("Stop", who, t + this.#between(0.5, 4));
      t += this.#between(10, 90);
    }
    this.#tell("SessionEnd", who, Math.max(t, ...this.runs.map(({ to }) => to + 1)));
  }

  #call(
    who: string,
    asked: number,
    isAlone: boolean,
  ): { end: number; isDenied: boolean; isLost: boolean; call: string } {
    const call = `${who}${this.#calls++}`;
    const of = { tool: "Bash", call };
    const kind = this.#random();
    const isBackground = kind >= 0.04 && kind < 0.1;
    const back = this.#tell("PreToolUse", who, asked, { ...of, ...(isBackground ? { background: "" } : {}) });
    // A person is asked for permission.
    const from = back + (this.#random() < 0.2 ? this.#between(2, 60) : 0);
    if (kind < 0.04) return { end: from, isDenied: true, isLost: false, call };
    const took = isBackground ? 0.1 : [0.2, 0.5, 2, 8, 20][Math.floor(this.#random() * 5)]! * this.#between(0.5, 1.5);
    const worked = isBackground ? this.#between(5, 100) : took;
    for (let edits = Math.floor(this.#random() * 4); edits > 0; edits--)
      this.#edit(this.#between(from, from + worked), who, "g");
    const isLost = isAlone && kind >= 0.25 && kind < 0.28;
    const hooked = from + took + this.#between(0.05, 1);
    this.runs.push({ who, from, to: from + worked, hooked });
    if (isLost) this.#lost = this.runs.at(-1)!;
    if (isLost) return { end: from + took, isDenied: false, isLost, call };
    const name = kind >= 0.1 && kind < 0.25 ? "PostToolUseFailure" : "PostToolUse";
    const end = this.#tell(name, who, hooked, {
      ...of,
      duration_ms: Math.round(took * 1000),
      ...(isBackground ? { background: `task ${call}` } : {}),
    });
    if (isBackground) this.#tell("UserPromptSubmit", who, from + worked + 0.3, { notified: call });
    return { end, isDenied: false, isLost, call };
  }

  /** Makes the saves one after another. Calls `look` with the entries of each interval, their owners and their edits. */
  play(look: (edits: readonly Edit[], owner: Owner) => void): void {
    const log: StoredEvent[] = [];
    const points: SavedPoint[] = [];
    const reads: number[] = [];
    for (const [i, { who, t, lag, event, ...more }] of this.events.entries()) {
      const read = Math.max(reads.at(-1) ?? 0, t + lag) + 0.001;
      reads.push(read);
      const id = String(i).padStart(32, "0") as SavePointId;
      points.push({ id, at: iso(read), by: who === null ? "asked" : "other" });
      if (who === null) continue;
      // A hook that finds another one's save waiting leaves its own to the background at once.
      const isLate = lag > HAND_OVER || read > t + lag + 0.002;
      log.push({
        at: iso(read),
        agent: "claude-code",
        event,
        session: who,
        turn: null,
        tool: null,
        call: null,
        before: null,
        save_point_id: id,
        made: true,
        failed: null,
        asked_at: isLate ? iso(t) : null,
        called_at: iso(t),
        each: "tool",
        ...(isLate ? { returned_at: iso(t + Math.min(HAND_OVER, lag)) } : {}),
        ...more,
      });
    }
    const calls = new Calls(log);
    const intervals = intervalsOf(log, momentsOf(log, 0, points), calls);
    const timeOf = new Map(points.map(({ id }, i) => [id, reads[i]!]));
    const there = new Set<string>();
    let next = 0;
    const changed = new Map<string, number>();
    for (const interval of intervals.slice(0, -1)) {
      const until = timeOf.get(interval.to!)!;
      const had = new Set(there);
      const found: Edit[] = [];
      for (; next < this.edits.length && this.edits[next]!.t <= until; next++) {
        const edit = this.edits[next]!;
        const { path, removes, t } = edit;
        const folder = path.slice(0, path.indexOf("/"));
        if (removes !== there.has(path)) {
          if (removes) continue;
        }
        if (removes ? there.delete(path) : !there.has(path)) changed.set(folder, BEGIN + t * 1000);
        if (!removes) there.add(path);
        changed.set(path, BEGIN + t * 1000);
        found.push(edit);
      }
      if (timeOf.get(interval.from)! < reads[0]!) continue;
      const byPath = Map.groupBy(found, ({ path }) => path);
      const entries: ChangedEntry[] = [...byPath.keys()].flatMap((path) =>
        there.has(path) || had.has(path)
          ? [{ path, change: !there.has(path) ? "removed" : had.has(path) ? "modified" : "added" }]
          : [],
      );
      const changedAt = (path: string): number | null => changed.get(path) ?? null;
      for (const [i, owner] of calls.ownersOf(entries, interval, changedAt).entries())
        look(byPath.get(entries[i]!.path)!, owner);
    }
  }
}

/** Counts who gets the changes of 200 histories: those of the person outside running calls, and those of an agent while no other one has a call. */
function counted(agents: readonly string[]): Record<"person" | "taken" | "alone" | "own" | "others", number> {
  const sums = { person: 0, taken: 0, alone: 0, own: 0, others: 0 };
  for (let seed = 1; seed <= 200; seed++) {
    const history = new History(seed, agents);
    history.play((edits, owner) => {
      for (const { t, who } of edits) {
        const running = history.runs.filter(({ from, to, hooked }) => t >= from - 3 && t <= Math.max(to, hooked));
        const isTaken = owner.by === "call";
        if (who === "P" && !running.some(({ from }) => t >= from)) {
          sums.person++;
          if (isTaken) sums.taken++;
        } else if (who !== "P" && running.every((run) => run.who === who)) {
          sums.alone++;
          if (isTaken) sums[owner.session.endsWith(who) ? "own" : "others"]++;
        }
      }
    });
  }
  return sums;
}

for (const [agents, words] of [
  [["A"], "an agent"],
  [["A", "B"], "two agents"],
] as const)
  test(`of 200 random histories of ${words} and a person, at most 1 % of the person's edits are taken, and 90 % of an agent's are its own`, (t) => {
    const { person, taken, alone, own, others } = counted(agents);
    t.diagnostic(`taken ${taken} of ${person}, own ${own} of ${alone}, other session's ${others}`);
    assert.ok(person > 1000 && alone > 1000);
    assert.ok(taken <= person / 100, `${taken} of ${person} edits of the person are taken`);
    assert.ok(own >= alone * 0.9, `${own} of ${alone} changes of the agents are theirs`);
    assert.ok(others <= alone / 1000);
  });

test("a change without a time of its own before a late save is uncertain, also in a tool call", () => {
  const event = (name: string, at: number, isLate: boolean): StoredEvent =>
    ({
      agent: "claude",
      session: "s",
      event: name,
      tool: "Bash",
      call: "c",
      turn: null,
      at: iso(at),
      called_at: iso(at),
      returned_at: iso(at),
      asked_at: isLate ? iso(at) : null,
    }) as unknown as StoredEvent;
  const ownerOf = (isLate: boolean): Owner => {
    const log = [event("PreToolUse", 1, false), event("PostToolUse", 2, isLate)];
    const moments = log.map(({ at }, index) => ({ state: `p${index}` as SavePointId, event: index, unsaved: [], at }));
    return intervalsOf(log, moments, new Calls(log))[0]!.owner;
  };
  assert.equal(ownerOf(false).by, "call");
  const late = ownerOf(true);
  assert.match(late.by === "uncertain" ? late.why : "", /before a late save/);
});
