import { isDeepStrictEqual } from "node:util";
import { advice, CairnError, line, word } from "../../errors.ts";
import { type Forward, isTapName, type Nic } from "../../formats/machine/machine.ts";
import type { Machine, MachineRecord } from "./machine.ts";
import type { Qmp } from "./qmp.ts";
import { newMac } from "./state.ts";

/** Networks of machines: user mode with ports of the host's loopback that lead to ports of the guest, and taps. */

const FORWARD = /^(?:(\d{1,5}):)?(\d{1,5})$/;
const MOST = 65_535;

/** Reads `HOST:GUEST`, or `GUEST` for a free port of the host. Throws `usage`. */
function forwardOf(text: string): Forward {
  const [, host = "0", guest] = FORWARD.exec(text) ?? [];
  const forward = { host: Number(host), guest: Number(guest), free: Number(host) === 0 };
  if (forward.host <= MOST && forward.guest >= 1 && forward.guest <= MOST) return forward;
  throw new CairnError("usage", `${JSON.stringify(text.slice(0, 80))} is no forward of a port`, {
    hint: "write HOST:GUEST, e.g. 2222:22, or GUEST for a free port of the host",
  });
}

export interface Network {
  /** `user` or the name of a tap, for each network device. */
  nics: readonly string[];
  /** `HOST:GUEST` or `GUEST`. */
  forwards: readonly string[];
  /** True: the guest can reach the host and the internet. */
  internet: boolean;
}

/** Network devices with addresses of their own. The first in user mode has the forwards. Throws `usage`. */
export function newNics({ nics, forwards, internet }: Network): Nic[] {
  const made = nics.map((network): Nic => {
    if (network === "user") return { network, tap: null, mac: newMac(), internet, forwards: [] };
    if (isTapName(network)) return { network: "tap", tap: network, mac: newMac(), internet: true, forwards: [] };
    throw new CairnError("usage", `${JSON.stringify(network.slice(0, 80))} is not a valid name of a tap`);
  });
  const first = made.find(({ network }) => network === "user");
  if (first !== undefined) first.forwards = forwards.map(forwardOf);
  else if (forwards.length > 0 || internet)
    throw new CairnError("usage", "only a network device in user mode has forwards and --internet");
  return made;
}

/**
 * Opens each forward of `record` that the machine's running QEMU has not opened yet. For the host port 0, and for a port
 * in use that was chosen before, QEMU chooses a free port. Then writes the record with the chosen ports, unless the machine has an equal record, and returns the
 * record. Throws `conflict` before the write if a port is in use; the other forwards are open then.
 */
export async function openForwards(qmp: Qmp, machine: Machine, record: MachineRecord): Promise<MachineRecord> {
  const { hardware } = record;
  const ask = async (command: string): Promise<string> =>
    String(await qmp.run("human-monitor-command", { "command-line": command }));
  const nics: Nic[] = [];
  let taken: number | null = null;
  for (const [i, nic] of hardware.nics.entries()) {
    const forwards: Forward[] = [];
    const fixed = new Set(nic.forwards.map(({ host }) => host));
    let open = nic.forwards.length === 0 ? [] : openIn(await ask("info usernet"), i);
    for (const forward of nic.forwards) {
      const { guest, free } = forward;
      let found: OpenForward | undefined;
      for (const host of free && forward.host !== 0 ? [forward.host, 0] : [forward.host]) {
        const fits = (each: OpenForward): boolean =>
          each.guest === guest && (host === 0 ? !fixed.has(each.host) : each.host === host);
        if (!open.some(fits)) {
          await ask(`hostfwd_add net${i} tcp:127.0.0.1:${host}-:${guest}`);
          open = openIn(await ask("info usernet"), i);
        }
        found ??= open.find(fits);
        if (found !== undefined) break;
      }
      if (found === undefined) taken ??= forward.host;
      const { host } = found ?? forward;
      // Two forwards with free ports have two ports.
      fixed.add(host);
      forwards.push({ host, guest, free });
    }
    nics.push({ ...nic, forwards });
  }
  if (taken !== null)
    throw new CairnError("conflict", `port ${taken} of this host is in use, so it cannot lead to ${machine.name}`, {
      hint: advice`end the program that uses the port, then start the machine: ${line(`vm start ${machine.name}`, "startMachine", word("machines"), machine.name)}`,
    });
  const opened = { ...record, hardware: { ...hardware, nics } };
  if (!isDeepStrictEqual(opened, machine.read())) machine.write(opened);
  return opened;
}

type OpenForward = Pick<Forward, "host" | "guest">;

/** Returns the open forwards of a network device by QEMU's table, which has one hub for each network device. */
function openIn(table: string, nic: number): OpenForward[] {
  const rows = table.split(/^(?=Hub|net\d)/m).find((part) => part.includes(`(net${nic})`)) ?? table;
  const found = rows.matchAll(/^ *TCP\[HOST_FORWARD\] +\d+ +127\.0\.0\.1 +(\d+) +\S+ +(\d+) /gm);
  return [...found].map(([, host, guest]) => ({ host: Number(host), guest: Number(guest) }));
}
