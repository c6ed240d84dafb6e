import type { CairnLibrary, CallOptions, Client } from "../../contract/index.ts";
import type { Verb } from "../../contract/verb.ts";
import { socketsToAsk } from "../../daemon/places.ts";
import type { Happening } from "../../daemon/records/kept-records.ts";
import type { Caller, Right } from "../../daemon/state/peer.ts";
import { CairnError } from "../../errors.ts";
import { askDaemon } from "../client/service.ts";
import { callOf } from "../rights/capabilities.ts";
import type { OwnHost } from "../socket/host.ts";
import { Happenings } from "./happenings.ts";
import { OpenWorkspaces } from "./open-workspaces.ts";

/** The workspaces of the library of this process, for the calls of the page. */
export class PageHost implements OwnHost {
  /** The person who signed in. */
  readonly caller: Caller;
  readonly workspaces: OpenWorkspaces;
  readonly #happenings: Happenings;
  readonly library = { listWorkspaces: (options: CallOptions) => this.follow(options) };

  constructor(open: () => Promise<CairnLibrary>, isReadOnly: boolean, log: (message: string) => void) {
    const page = isReadOnly ? "looks" : "changes";
    const [uid, gid] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0];
    this.caller = { pid: process.pid, uid, gid, isAgent: false, token: null, only: null, page };
    this.workspaces = new OpenWorkspaces(open);
    this.#happenings = new Happenings(this.workspaces, log);
  }

  get events(): Happenings["events"] {
    return this.#happenings.events;
  }

  /** Lists the present workspaces, and follows their events from now on. */
  async follow(options: CallOptions = {}): ReturnType<CairnLibrary["listWorkspaces"]> {
    const found = await this.workspaces.withLibrary((library) => library.listWorkspaces(options));
    this.#happenings.follow(found);
    return found;
  }

  withClient<T>(
    _caller: Caller,
    { path }: { path: string },
    work: (client: Client, right: Right) => Promise<T>,
  ): Promise<T> {
    return this.workspaces.with(path, (client) => work(client, "owner"));
  }

  tellOf(...[name, workspace, answered]: Parameters<OwnHost["tellOf"]>): void {
    const told: ReturnType<NonNullable<Verb["event"]>> = callOf(name)!.event?.(answered as never) ?? null;
    if (told !== null) this.#happenings.add({ ...told, workspace } as Happening);
  }

  status(): Promise<unknown> {
    return askDaemon(socketsToAsk(), "daemon");
  }

  mayHear(): boolean {
    return true;
  }

  require(): never {
    throw new CairnError("usage", "the page's events are those of all workspaces");
  }

  async close(): Promise<void> {
    this.#happenings.close();
    await this.workspaces.close();
  }
}
