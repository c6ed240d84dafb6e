import { shareBlobs } from "../../capture/vm/blobs.ts";
import { Machine, sharedFile } from "../../capture/vm/machine.ts";
import type { CallOptions } from "../../contract/words.ts";
import { advice, CairnError, line, option, word } from "../../errors.ts";
import type { SavedMachine } from "../../formats/machine/machine.ts";
import { temporaryName } from "../../fs/durable.ts";
import { removeAll } from "../../fs/remove-all.ts";
import type { LibraryHand } from "../hand.ts";
import { checkedDirectory, checkedFolder, checkedPoint, type CheckedState } from "./checked.ts";
import { withClient } from "./saved-workspace.ts";

/** Checks the saved state that a clone or a restore brings. */

/** A saved state: in an export directory, in a folder that a backup was restored into, or a point of a machine. */
type Source = { fromDirectory: string; isRestored?: boolean } | { machine: string; point: string };

/** Checks a state completely and runs `work` with it. Files of a save point lie in a temporary folder meanwhile. */
export async function withState<T>(
  hand: LibraryHand,
  root: string,
  source: Source,
  options: CallOptions & { mapsMemory: boolean },
  work: (state: CheckedState) => Promise<T>,
): Promise<T> {
  using _shared = await shareBlobs(root, options);
  if ("fromDirectory" in source) {
    const check = source.isRestored === true ? checkedFolder : checkedDirectory;
    return await work(await check(root, source.fromDirectory, options));
  }
  const machine = Machine.in(root, source.machine);
  machine.read();
  const to = sharedFile(root, temporaryName());
  try {
    const { point } = source;
    const check = { ...options, point, to };
    return await work(await withClient(hand, machine, options, async (client) => checkedPoint(machine, client, check)));
  } finally {
    removeAll(to);
  }
}

/**
 * Throws `usage` if a guest with a tap would continue without one: QEMU cannot change such a device to user mode. A
 * tap's name in an export directory is not trusted. `takesTaps`: the command can name taps.
 */
export function requireTaps(saved: SavedMachine, networks: readonly string[], takesTaps: boolean): void {
  const { hardware, hasMemory } = saved;
  if (!hasMemory || !hardware.nics.some(({ tap }, i) => tap !== null && networks[i] === "user")) return;
  const cloning = line("vm clone --from EXPORT NEW --nic TAP", "cloneMachine", word("machines"), word("name"), {
    fromDirectory: word("exported"),
    nics: word("taps"),
  });
  throw new CairnError("usage", "the saved guest has a tap, so the new machine needs a tap of its own", {
    hint: takesTaps
      ? advice`name one for each network device: ${option("nics", "--nic TAP")}`
      : advice`clone it with a tap for each network device: ${cloning}; a backup is first restored into a folder, which is then saved and exported`,
  });
}
