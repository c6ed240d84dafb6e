import { existsSync } from "node:fs";
import type { Machine } from "../../capture/vm/machine.ts";
import { ownCause } from "../../contract/checked-calls.ts";
import type { Client } from "../../contract/index.ts";
import type { CallOptions, Cause } from "../../contract/words.ts";
import { advice, CairnError, line, word } from "../../errors.ts";
import { findWorkspace } from "../../workspace/place/find-workspace.ts";
import type { LibraryHand } from "../hand.ts";

/** Returns the cause of a machine's point: the given one, or a default. */
export function causeOf({ name }: Machine, cause: Cause | undefined): Cause {
  return cause ?? { ...ownCause(), machine: name };
}

/** Returns the options that a call passes to the calls that it makes. */
export function callOf({ signal, onProgress, onWarning, lockTimeoutMs }: CallOptions): CallOptions {
  return {
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
    ...(onWarning === undefined ? {} : { onWarning }),
    ...(lockTimeoutMs === undefined ? {} : { lockTimeoutMs }),
  };
}

/** True if the folder of a machine's saved states is a workspace. */
export function hasPoints({ saved }: Machine): boolean {
  return existsSync(saved) && findWorkspace(saved, { exact: true }) !== null;
}

/** Opens or makes the workspace of a machine's saved states: a few large files, for which reflinks are better than the store. */
async function openStates(hand: LibraryHand, machine: Machine, options: CallOptions): Promise<Client> {
  const { saved } = machine;
  const init = { name: "main", ...callOf(options) };
  if (!hasPoints(machine)) {
    try {
      return await hand.openOrInit(saved, { ...init, engineType: "reflink-copy" });
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "unsupported") throw error;
    }
  }
  return await hand.openOrInit(saved, init);
}

/** Runs `work` with the workspace of a machine's saved states. Throws `not_found` if it has none. */
export async function withClient<T>(
  hand: LibraryHand,
  machine: Machine,
  options: CallOptions,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  if (!existsSync(machine.saved))
    throw new CairnError("not_found", `${machine.name} has no saved state`, {
      hint: advice`save one: ${line(`vm save ${machine.name}`, "saveMachine", word("machines"), machine.name)}`,
    });
  const client = await openStates(hand, machine, options);
  try {
    return await work(client);
  } finally {
    await client.close();
  }
}

/** Returns the id of a workspace's newest save point; undefined if there is none. */
export async function newestOf(client: Client): Promise<string | undefined> {
  return (await client.history(undefined, 1)).save_points[0]?.save_point_id;
}
