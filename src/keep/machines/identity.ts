import type { Item, Renewed } from "../../capture/vm/identity.ts";
import type { CloneMachineResult } from "../../contract/machines.ts";
import type { CallOptions } from "../../contract/words.ts";
import { PORT_NAME } from "../../formats/machine/machine.ts";
import type { CheckedState } from "./checked.ts";

/** Answers and warnings about the identity of a guest that goes on from a saved state. */

const WORDS: Record<Item, string> = {
  clock: "a clock that shows the time of the save",
  entropy: "random numbers",
  host_name: "host name",
  machine_id: "machine id",
  ssh_host_keys: "SSH host keys",
  dhcp: "DHCP identifiers",
};
const NOT_COVERED = "random number generators inside running programs";

/** Returns the part of an answer, and warns of everything that the guest shares. Null for a guest that boots. */
export function identityOf(
  { reseeds, saved }: CheckedState,
  name: string,
  renewed: Renewed | null,
  { onWarning }: CallOptions,
): CloneMachineResult["identity"] {
  if (renewed === null) return null;
  const { wanted, confirmed, behindMs } = renewed;
  // A kernel with the driver has drawn fresh randomness by itself.
  const shared = wanted.filter((item) => !confirmed.includes(item) && !(item === "entropy" && reseeds));
  if (shared.length > 0) onWarning?.(warning(name, renewed, shared));
  // Two machines would have equal keys and tokens.
  if (shared.includes("entropy"))
    onWarning?.(
      `the kernel of ${saved.name}'s guest has no VM generation driver (CONFIG_VMGENID), so ${name} generates the same random numbers as every other machine that continues from this state: make no keys in it before a reboot with cairn vm stop and start; Debian's linux-image-amd64 has the driver, its cloud kernel does not`,
    );
  // Only a boot attaches the port.
  if (!saved.hardware.port)
    onWarning?.(
      `the saved guest has no serial port ${PORT_NAME}, because an earlier version of Cairn made it: ${name} gets the port at its next boot, with cairn vm stop and start`,
    );
  return { confirmed, shared, clock_behind_ms: behindMs, not_covered: [NOT_COVERED] };
}

function warning(name: string, renewed: Renewed, shared: readonly Item[]): string {
  const items = shared.map((item) => WORDS[item]).join(", ");
  return `${name} shares with other machines that continue from this state: ${items}; and ${NOT_COVERED}, in any case (${whyUnconfirmed(renewed)})`;
}

function whyUnconfirmed({ listened, reasons }: Renewed): string {
  if (!listened) return "no service of Cairn runs in the guest";
  return reasons.join("; ") || "the guest's service said no more";
}

/** Warns if the guest of a hibernated machine still has the clock of the hibernation. */
export function warnOfClock(name: string, renewed: Renewed | null, { onWarning }: CallOptions): void {
  if (renewed === null || renewed.confirmed.includes("clock")) return;
  onWarning?.(
    `the clock of ${name} shows the time of its hibernation (${whyUnconfirmed(renewed)}): run \`hwclock -s\` in the guest`,
  );
}
