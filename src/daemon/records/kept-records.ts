import type { Verb } from "../../contract/verb.ts";
import { CLIENT_VERBS } from "../../verbs/index.ts";
import { type EventPlace, Events, type Happening } from "./events.ts";
import { Jobs } from "./jobs.ts";
import { Records } from "./records.ts";
import { Running } from "./running.ts";

export { type EventPlace, Events, type Happening, type Noted } from "./events.ts";
export { Records } from "./records.ts";
export { notRunning, Running } from "./running.ts";

export type VerbOfWorkspace = keyof typeof CLIENT_VERBS;

/** Events and jobs of a daemon, in its database. */
export class KeptRecords {
  readonly events: Events;
  readonly jobs: Jobs;
  readonly running: Running;
  readonly #records: Records;

  /** Throws the errors of `Records.open()`. `killed`: the daemon before this one did not end in order. */
  constructor(directory: string, { killed, log }: { killed: boolean; log: (message: string) => void }) {
    this.#records = Records.open(directory, log);
    this.events = new Events(this.#records, { killed, log });
    this.jobs = new Jobs(this.#records, this.events, log);
    this.running = new Running(this.events);
  }

  /** Appends the event of a call that changed `workspace`. Returns the verb of the call. */
  tellOf(name: VerbOfWorkspace, workspace: EventPlace | undefined, answered: unknown): Verb {
    const verb: Verb = CLIENT_VERBS[name];
    const happening = workspace === undefined ? null : (verb.event?.(answered as never) ?? null);
    if (happening !== null) this.events.append({ ...happening, workspace } as Happening);
    return verb;
  }

  close(): void {
    this.events.close();
    this.#records.close();
  }
}
