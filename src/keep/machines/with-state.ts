import { shareBlobs } from "../../capture/vm/blobs.ts";
import { Machine, sharedFile } from "../../capture/vm/machine.ts";
import type { CallOptions } from "../../contract/words.ts";
import { advice, CairnError, option } from "../../errors.ts";
import { PORT_NAME, type SavedMachine } from "../../formats/machine/machine.ts";
import { temporaryName } from "../../fs/durable.ts";
import { removeAll } from "../../fs/remove-all.ts";
import type { LibraryHand } from "../hand.ts";
import { checkedDirectory, checkedFolder, checkedPoint, type CheckedState } from "./checked.ts";
import { withClient } from "./saved-workspace.ts";

/** Checks the saved state that a clone or a restore brings, and warns of devices that its guest lacks. */

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
 * tap's name in an export directory is not trusted.
 */
export function requireTaps({ hardware, hasMemory }: SavedMachine, networks: readonly string[]): void {
  if (!hasMemory || !hardware.nics.some(({ tap }, i) => tap !== null && networks[i] === "user")) return;
  throw new CairnError("usage", "the saved guest has a tap, so the new machine needs a tap of its own", {
    hint: advice`name one for each network device: ${option("nics", "--nic TAP")}`,
  });
}

/** Warns of a guest without the VM generation driver or the serial port. */
export function warnOf({ reseeds, saved }: CheckedState, name: string, { onWarning }: CallOptions): void {
  // Two machines would have equal keys and tokens.
  if (!reseeds)
    onWarning?.(
      `the kernel of ${saved.name}'s guest has no VM generation driver (CONFIG_VMGENID), so ${name} generates the same random numbers as every other machine that continues from this state: make no keys in it before a reboot with cairn vm stop and start; Debian's linux-image-amd64 has the driver, its cloud kernel does not`,
    );
  // Only a boot attaches the port.
  if (saved.hasMemory && !saved.hardware.port)
    onWarning?.(
      `the saved guest has no serial port ${PORT_NAME}, because an earlier version of Cairn made it: ${name} gets the port at its next boot, with cairn vm stop and start`,
    );
}
