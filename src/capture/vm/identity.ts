import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { Hardware } from "../../formats/machine/machine.ts";
import { type Answer, ask, shown } from "./guest.ts";
import { type Machine, type MachineRecord, processIn, socketOf } from "./machine.ts";
import type { Qmp } from "./qmp.ts";

/** Gives a guest that goes on from a saved state its own clock, random numbers and names. */

const QUIET_MS = 45_000;
const TOTAL_MS = 90_000;
const ENTROPY = 64;
/** Milliseconds by which a clock that was set may be wrong. */
const CLOCK_MS = 2000;
const PROBES = 4;

const SAME = ["clock", "entropy"] as const;
const NEW = [...SAME, "host_name", "machine_id", "ssh_host_keys", "dhcp"] as const;
export type Item = (typeof NEW)[number];

/** The answer of a guest's service about its identity. */
export interface Renewed {
  wanted: readonly Item[];
  confirmed: Item[];
  /** False: no service had the port open. */
  listened: boolean;
  /** Milliseconds by which the clock was behind; null: not known. */
  behindMs: number | null;
  /** Messages for people: why the service did not confirm an item. */
  reasons: string[];
}

/** True if a program in the guest has opened the serial port of Cairn's service. */
export async function listens(qmp: Qmp): Promise<boolean> {
  const devices = (await qmp.run("query-chardev")) as { label: string; "frontend-open": boolean }[];
  return devices.some((device) => device.label === "identity" && device["frontend-open"]);
}

export const portOf = ({ live }: Machine): string => socketOf(processIn(live) ?? 0, "identity");

export const hostNameOf = (name: string): string => name.replaceAll(/[^A-Za-z0-9-]/g, "-");

/** Puts the links up if the guest keeps its identity and has no service. A guest that does not run yet does not see that they were down. */
export async function linkWithoutService(qmp: Qmp, { foreignNics, identity, hardware }: MachineRecord): Promise<void> {
  // QEMU may know only of a running guest whether its service listens.
  if (!foreignNics && identity !== "new" && !(await listens(qmp))) await setLinks(qmp, hardware, true);
}

/** Sets the links of all network devices. */
export async function setLinks(qmp: Qmp, { nics }: Hardware, up: boolean): Promise<void> {
  for (const i of nics.keys()) await qmp.run("set_link", { name: `nic${i}`, up });
}

/**
 * Sets the identity of a running guest. Steps: the service answers, or a deadline passes; the links of the network
 * devices go up, unless the guest still has the devices of another machine; ● `identity` of the record is null. If the
 * command is killed before the commit, the next operation on the machine repeats the steps.
 */
export async function tell(
  qmp: Qmp,
  machine: Machine,
  record: MachineRecord,
): Promise<{ record: MachineRecord; told: Renewed }> {
  const wanted = record.identity === "new" ? NEW : SAME;
  const told: Renewed = { wanted, confirmed: [], listened: await listens(qmp), behindMs: null, reasons: [] };
  failpoint("vm-identity.begun");
  if (told.listened) await askFor(machine, record, told);
  failpoint("vm-identity.answered");
  if (!record.foreignNics) await setLinks(qmp, record.hardware, true);
  failpoint("vm-identity.linked");
  // The guest shows other host keys from now on.
  if (told.confirmed.includes("ssh_host_keys")) rmSync(machine.knownHosts, { force: true });
  const after: MachineRecord = { ...record, identity: null };
  machine.write(after);
  return { record: after, told };
}

/** Returns the milliseconds by which the guest's clock is behind. The error is at most half of the shortest round trip. */
async function behind(place: string, totalMs: () => number): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  let found = Number.NaN;
  for (let i = 0; i < PROBES && best > CLOCK_MS / 10; i++) {
    const sent = Date.now();
    const { time } = await ask(place, { do: "hello" }, { totalMs: Math.min(QUIET_MS, totalMs()) });
    const took = Date.now() - sent;
    if (took >= best) continue;
    best = took;
    found = typeof time === "number" ? Math.round(sent + took / 2 - time) : Number.NaN;
  }
  if (Number.isSafeInteger(found)) return found;
  throw new CairnError("io", "the guest's service does not say the time");
}

async function askFor(machine: Machine, record: MachineRecord, told: Renewed): Promise<void> {
  const place = portOf(machine);
  const request = {
    do: "identity",
    entropy: randomBytes(ENTROPY).toString("base64"),
    new: record.identity === "new",
    host_name: hostNameOf(machine.name),
    machine_id: record.id,
    macs: record.hardware.nics.map(({ mac }) => mac),
  };
  const hear = (answer: Answer): void => {
    const item = told.wanted.find((each) => each === (answer["did"] ?? answer["not"]));
    if (item === undefined || told.confirmed.includes(item) || told.reasons.length > NEW.length) return;
    if (answer["did"] === item) told.confirmed.push(item);
    else told.reasons.push(`${item}: ${shown(answer["why"])}`);
  };
  const ends = performance.now() + TOTAL_MS;
  const totalMs = (): number => Math.max(1, ends - performance.now());
  try {
    const by = await behind(place, totalMs);
    told.behindMs = by;
    // The guest may make its host keys for long without an answer.
    const { time } = await ask(place, { ...request, add_ms: by }, { hear, totalMs: totalMs() });
    // The answer took some time.
    const isRight = typeof time === "number" && Math.abs(Date.now() - time) <= CLOCK_MS;
    if (isRight || Math.abs(await behind(place, totalMs)) <= CLOCK_MS) return;
    told.confirmed = told.confirmed.filter((item) => item !== "clock");
    told.reasons.push("clock: it is not that of this host");
  } catch (error) {
    told.reasons.push((error as Error).message);
  }
}
