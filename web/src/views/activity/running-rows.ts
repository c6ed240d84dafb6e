import type { RunningCall } from "cairnstate/client";

type Calls = ReadonlyMap<string, RunningCall>;

/** The calls that run: those of the last list, as the events since then changed them. A call that has ended is none. */
export class RunningRows {
  #rows: Calls = new Map();
  /** What events told since a list was asked for, which may be older. */
  #since: Map<string, RunningCall> | null = null;

  /** Takes the event of a call. */
  take(call: RunningCall): RunningCall[] {
    this.#since?.set(call.running_id, call);
    return this.#keep([...this.#rows, [call.running_id, call]]);
  }

  /** Replaces all calls by those of a list. If `ask` fails, they stay. */
  async replace(ask: () => Promise<readonly RunningCall[]>): Promise<RunningCall[]> {
    const since = new Map<string, RunningCall>();
    this.#since = since;
    try {
      const listed = await ask();
      return this.#keep([...listed.map((each) => [each.running_id, each] as const), ...since]);
    } finally {
      if (this.#since === since) this.#since = null;
    }
  }

  #keep(rows: readonly (readonly [string, RunningCall])[]): RunningCall[] {
    this.#rows = new Map([...new Map(rows)].filter(([, { state }]) => isUnderWay(state)));
    return [...this.#rows.values()];
  }
}

function isUnderWay(state: RunningCall["state"]): boolean {
  return state === "waiting" || state === "running" || state === "stopping";
}
