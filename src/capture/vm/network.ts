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
  const forward = { host: Number(host), guest: Number(guest) };
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
 * Opens the forwards of a machine's running QEMU. QEMU takes a free port of the host for port 0; the record with these
 * ports is written and returned. Throws `conflict` if a port is in use.
 */
export async function openForwards(qmp: Qmp, machine: Machine, record: MachineRecord): Promise<MachineRecord> {
  const { hardware } = record;
  const ask = async (command: string): Promise<string> =>
    String(await qmp.run("human-monitor-command", { "command-line": command }));
  const nics: Nic[] = [];
  for (const [i, nic] of hardware.nics.entries()) {
    const forwards: Forward[] = [];
    for (const { host, guest } of nic.forwards) {
      const said = await ask(`hostfwd_add net${i} tcp:127.0.0.1:${host}-:${guest}`);
      if (said.trim() !== "")
        throw new CairnError("conflict", `port ${host} of this host is in use, so it cannot lead to ${machine.name}`, {
          hint: advice`end the program that uses the port, then start the machine: ${line(`vm start ${machine.name}`, "startMachine", word("machines"), machine.name)}`,
        });
      forwards.push({ host: host === 0 ? portIn(await ask("info usernet"), i, guest) : host, guest });
    }
    nics.push({ ...nic, forwards });
  }
  const opened = { ...record, hardware: { ...hardware, nics } };
  if (nics.some(({ forwards }, i) => forwards.some(({ host }, j) => host !== hardware.nics[i]!.forwards[j]!.host)))
    machine.write(opened);
  return opened;
}

/** Returns the host's port of a forward in QEMU's table. The table has one hub for each network device. */
function portIn(table: string, nic: number, guest: number): number {
  const rows = table.split(/^(?=Hub|net\d)/m).find((part) => part.includes(`(net${nic})`)) ?? table;
  const row = new RegExp(`^ *TCP\\[HOST_FORWARD\\] +\\d+ +127\\.0\\.0\\.1 +(\\d+) +\\S+ +${guest} `, "gm");
  const port = [...rows.matchAll(row)].at(-1)?.[1];
  if (port === undefined) throw new CairnError("io", "QEMU does not tell the port of a forward");
  return Number(port);
}
