import { randomInt } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { CairnLibrary } from "../../../contract/index.ts";
import type { CloneMachineResult, MachineInfo } from "../../../contract/machines.ts";
import { CairnError } from "../../../errors.ts";
import { machinesRoot } from "../../../fs/users.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { formatBytes, formatDuration, plural, printable } from "../../render/format.ts";
import type { Style } from "../../render/style.ts";

export const NAME = { name: "<name>", text: "name of the machine" } as const;
export const NEW_NAME = {
  name: "[name]",
  text: "name of the new machine; default: two words that no machine has as its name",
} as const;

export const machinesOf = (context: Context): string => machinesRoot(context.env);

/** Number of names that are made up before the last one is taken as it is. */
const MOST_NAMES = 1000;

type Verb = Exclude<Extract<keyof CairnLibrary, `${string}Machine`>, "exportMachine">;

/** Calls a verb for the machine that the line names. */
export async function onMachine<V extends Verb>(
  context: Context,
  input: Input,
  verb: V,
  options?: Parameters<CairnLibrary[V]>[2],
): Promise<Awaited<ReturnType<CairnLibrary[V]>>> {
  const library: Record<Verb, (root: string, name: string, options: object) => unknown> = await context.library();
  const result = library[verb](machinesOf(context), input.required(0), { ...context.callOptions(), ...options });
  return (await result) as Awaited<ReturnType<CairnLibrary[V]>>;
}

const FIRST =
  "amber bold brave brisk calm clear cool crisp eager early fair fine fresh gentle glad golden green keen kind light lively lucky mellow neat noble quick quiet ready silver smart steady still sunny swift tidy warm wide wise young";
const SECOND =
  "badger beaver bison crane curlew deer dove duck eagle falcon ferret finch fox gull hare hawk heron horse ibex jay kite lark lynx marten mole moose newt otter owl plover raven robin seal stoat swan tern thrush vole wren";

/** Runs `work` with the name of a new machine: the given one, else two words, for example `calm-otter`. */
export async function withNewName<T>(
  root: string,
  given: string | undefined,
  work: (name: string) => Promise<T>,
): Promise<T> {
  if (given !== undefined) return await work(given);
  const words = [FIRST, SECOND].map((text) => text.split(" "));
  for (let left = MOST_NAMES; ; left--) {
    const name = words.map((all) => all[randomInt(all.length)]).join("-");
    if (left > 0 && existsSync(join(root, name))) continue;
    try {
      return await work(name);
    } catch (error) {
      // Another command may have made the same name up meanwhile.
      if (left <= 0 || !(error instanceof CairnError) || error.code !== "already_exists") throw error;
    }
  }
}

/** A line for people about a machine that was made of a saved state. */
export function cloned(style: Style, info: CloneMachineResult, done: string): string {
  const next = info.has_memory ? `ready to run after ${info.ready_ms} ms` : "start it with cairn vm start";
  return `${style.green(done)} ${printable(info.name)}: ${hardwareOf(info)}; ${next}${renewed(info)}`;
}

/** A line for people with the items that the guest's service confirmed; empty without an answer. */
export function renewed({ identity }: Pick<CloneMachineResult, "identity">): string {
  if (identity === null || identity.confirmed.length === 0) return "";
  const { confirmed, clock_behind_ms: behind, not_covered: others } = identity;
  const words = confirmed.map((item) => item.replaceAll("_", " ")).join(", ");
  const clock =
    behind === null ? "" : `; its clock was ${formatDuration(Math.abs(behind))} ${behind < 0 ? "ahead" : "behind"}`;
  return `\n  its guest confirmed: ${words}${clock}; not covered: ${others.join(", ")}`;
}

export function shownState({ state, operation }: MachineInfo, style: Style): string {
  const word = state === "running" ? style.green(state) : state === "error" ? style.red(state) : state;
  return operation === null ? word : `${word} (${operation})`;
}

/** Describes a machine in a few words. */
export function hardwareOf({ cpus, memory, disks, cdrom, nics }: MachineInfo): string {
  const parts = [plural(cpus, "cpu"), formatBytes(memory)];
  if (disks.length > 0) parts.push(`${disks.map(({ size }) => formatBytes(size)).join(" + ")} disk`);
  if (cdrom !== null) parts.push("a CD drive");
  for (const { network, mac, internet, forwards } of nics) {
    const open = internet && network === "user" ? " with the internet and this host's services" : "";
    parts.push(`${printable(network)} ${mac}${open}`);
    for (const { host, guest } of forwards)
      parts.push(`${host === 0 ? "a free port" : `127.0.0.1:${host}`} to its port ${guest}`);
  }
  return parts.join(", ");
}
