import type { Notes } from "../../contract/schema.ts";
import type { CallOptions } from "../../contract/words.ts";
import { CairnError } from "../../errors.ts";
import type { Body } from "../request.ts";
import { carryOut, givenTo, pathOf, requireKnown } from "../rights/arguments.ts";
import { callOf, isOfWorkspace, isPlaceOf, looks, servedCall } from "../rights/capabilities.ts";
import { askDaemon } from "../client/service.ts";
import { socketsToAsk } from "../../daemon/places.ts";
import type { Happenings } from "./happenings.ts";
import type { OpenWorkspaces } from "./open-workspaces.ts";

/** Calls besides the verbs of a workspace. */
const OTHERS: readonly string[] = ["listWorkspaces", "daemon"];

/** Progress and warnings of a call, and each answer of a verb with several answers. */
export interface Told extends CallOptions {
  onItem(item: unknown): Promise<void>;
}

function isCallable(name: string): boolean {
  return OTHERS.includes(name) || (isOfWorkspace(name) && servedCall(name) !== undefined);
}

/** True for a call that writes neither records of a workspace nor to a place that its caller chooses. */
export function onlyLooks(name: string, options: Body | undefined): boolean {
  if (OTHERS.includes(name)) return true;
  const { takes, stores } = callOf(name)!;
  const named = Object.keys(options ?? {}).filter((each) => isPlaceOf(name, each));
  return (
    looks(name, options) &&
    stores !== true &&
    named.length === 0 &&
    !takes.some(({ schema }) => (schema as Notes).as === "place")
  );
}

/** The calls of the page, made by the library of this process. */
export class PageCalls {
  readonly #workspaces: OpenWorkspaces;
  readonly #happenings: Happenings;
  readonly #isReadOnly: boolean;

  constructor(workspaces: OpenWorkspaces, happenings: Happenings, isReadOnly: boolean) {
    this.#workspaces = workspaces;
    this.#happenings = happenings;
    this.#isReadOnly = isReadOnly;
  }

  /**
   * Makes a call. Throws `usage` for a call that the page does not have, `refused` for a change on a read-only server,
   * and the verb's errors.
   */
  async answer(name: string, body: Body, { onItem, ...told }: Told): Promise<unknown> {
    const options = body["options"] as Body | undefined;
    if (!isCallable(name))
      throw new CairnError("usage", `the page has no call ${JSON.stringify(name)}`, {
        hint: "make this call by the command or the library",
      });
    if (this.#isReadOnly && !onlyLooks(name, options))
      throw new CairnError("refused", `${name} changes something, and this page was started to look only`, {
        hint: "start `cairn ui` without --read-only",
      });
    requireKnown(name, body);
    if (name === "daemon") return askDaemon(socketsToAsk(), name, {}, told);
    const verb = callOf(name)!;
    const given = givenTo(name, verb, body, told);
    if (name === "listWorkspaces")
      return this.#workspaces.withLibrary(async (library) => {
        const found = await library.listWorkspaces({ ...options, ...told });
        this.#happenings.follow(found);
        return found;
      });
    return this.#workspaces.with(pathOf(body, "workspace"), async (client) => {
      const answered = await carryOut(client, { name, given, onItem });
      const event = verb.event?.(answered as never) ?? null;
      if (event !== null) this.#happenings.note(client.workspace, event);
      return answered;
    });
  }
}
