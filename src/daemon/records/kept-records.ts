import { type EventPlace, Events } from "./events.ts";
import { Jobs } from "./jobs.ts";
import { Records } from "./records.ts";
import { eventOfVerb } from "./verb-events.ts";

export type { EventPlace, Noted } from "./events.ts";

/** Events and jobs of a daemon, in its database. */
export class KeptRecords {
  readonly events: Events;
  readonly jobs: Jobs;
  readonly #records: Records;

  /** Throws as `Records.open`. `killed`: the daemon before this one ended without saying so. */
  constructor(directory: string, { killed, log }: { killed: boolean; log: (message: string) => void }) {
    this.#records = Records.open(directory, log);
    this.events = new Events(this.#records, { killed, log });
    this.jobs = new Jobs(this.#records, this.events, log);
  }

  /** Tells of what a verb has done, where it changed something. */
  tellOf(verb: string, workspace: EventPlace | undefined, answered: unknown): void {
    const happening = workspace === undefined ? null : eventOfVerb(verb, workspace, answered);
    if (happening !== null) this.events.append(happening);
  }

  close(): void {
    this.events.close();
    this.#records.close();
  }
}
