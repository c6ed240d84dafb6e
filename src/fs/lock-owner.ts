import { randomBytes } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { basename } from "node:path";

/** Owner of a lock, written as JSON; `seen` is the heartbeat's counter. */
export interface LockOwner {
  readonly host: string;
  readonly machine_id: string;
  readonly boot_id: string;
  readonly pid_namespace: string;
  readonly pid: number;
  /** Clock ticks after boot at which the process started; identifies a reused pid. */
  readonly start_time: string;
  readonly command: string;
  readonly purpose: string;
  /** ISO time, only for people. */
  readonly since: string;
  readonly nonce: string;
  readonly shared: boolean;
  readonly seen: number;
  /** True after an orderly release; such a record only keeps the count of generations. */
  readonly released?: boolean;
}

/** Members of an owner that decide whether its process still runs. */
export type OwnerFacts = Pick<
  LockOwner,
  "host" | "machine_id" | "boot_id" | "pid_namespace" | "pid" | "start_time" | "released"
>;

export type Liveness = "alive" | "dead" | "unknown";

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}

export interface ProcessFacts {
  /** One letter as in /proc/PID/stat; `Z` is a zombie. */
  readonly state: string;
  /** At most 15 characters of the program's name. */
  readonly name: string;
  /** Its process group. */
  readonly group: number;
  /** Ticks after boot. */
  readonly startTime: string;
}

/** State and start time of a process; null if it does not exist or may not be read. */
export function processFacts(pid: number): ProcessFacts | null {
  const text = readText(`/proc/${pid}/stat`);
  if (text === "") return null;
  // The command stands in parentheses and may itself have blanks and parentheses.
  const end = text.lastIndexOf(")");
  const fields = text.slice(end + 2).split(" ");
  const name = text.slice(text.indexOf("(") + 1, end);
  return { state: fields[0] ?? "", name, group: Number(fields[2]), startTime: fields[19] ?? "" };
}

interface Identity {
  readonly host: string;
  readonly machineId: string;
  readonly bootId: string;
  readonly pidNamespace: string;
  readonly startTime: string;
  readonly command: string;
}

let identity: Identity | undefined;

/** Returns the kernel's id of the current boot; empty if the kernel has none. */
function readBootId(): string {
  return readText("/proc/sys/kernel/random/boot_id");
}

function readNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return "";
  }
}

// Arguments of the user's commands may hold secrets, so only the verb is recorded.
function ownCommand(): string {
  const script = basename(process.argv[1] ?? process.argv0);
  const verb = process.argv[2] ?? "";
  return /^[a-z][a-z-]{0,30}$/.test(verb) ? `${script} ${verb}` : script;
}

/** Returns the identity of this process among all that may share a file system with it. */
export function thisProcess(): Identity {
  identity ??= {
    host: hostname(),
    machineId: readText("/etc/machine-id"),
    bootId: readBootId(),
    pidNamespace: readNamespace(),
    startTime: processFacts(process.pid)?.startTime ?? "",
    command: ownCommand(),
  };
  return identity;
}

/** The boot and the pid namespace: a pid identifies a process only within both. */
export function machine(): string {
  const { bootId, pidNamespace } = thisProcess();
  const namespace = /\d+/.exec(pidNamespace)?.[0] ?? "0";
  return `${bootId.slice(0, 8) || "noboot"}x${namespace}`;
}

/** Returns a random id for one record. */
export function newNonce(): string {
  return randomBytes(12).toString("hex");
}

/** Returns a new record of this process. */
export function newOwner(purpose: string, shared: boolean): LockOwner {
  const self = thisProcess();
  return {
    host: self.host,
    machine_id: self.machineId,
    boot_id: self.bootId,
    pid_namespace: self.pidNamespace,
    pid: process.pid,
    start_time: self.startTime,
    command: self.command,
    purpose,
    since: new Date().toISOString(),
    nonce: newNonce(),
    shared,
    seen: 0,
  };
}

/** Parses a record, padded or not; null if the bytes are not a record. */
export function parseOwner(bytes: Uint8Array): LockOwner | null {
  const text = Buffer.from(bytes).toString("utf8").replaceAll("\0", "").trim();
  if (text === "") return null;
  try {
    const value = JSON.parse(text) as Partial<LockOwner> | null;
    if (typeof value?.pid !== "number" || typeof value.nonce !== "string" || typeof value.seen !== "number")
      return null;
    return value as LockOwner;
  } catch {
    return null;
  }
}

/** True if the process still runs. A process with the same pid but another start time does not count. */
export function pidIsAlive(owner: Pick<LockOwner, "pid" | "start_time">): boolean {
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const facts = processFacts(owner.pid);
  if (facts === null) return true;
  if (facts.state === "Z" || facts.state === "X") return false;
  return owner.start_time === "" || facts.startTime === owner.start_time;
}

/**
 * Returns whether the owner still runs, as far as this machine can know without waiting. The pid counts only in the
 * same boot and pid namespace. An owner of an earlier boot of this machine is dead; with `local`, if no other machine
 * can write, an owner of any other boot is dead.
 */
export function livenessOf(owner: OwnerFacts, local: boolean): Liveness {
  if (owner.released === true) return "dead";
  const self = thisProcess();
  if (owner.boot_id === "" || self.bootId === "") {
    // Without boot ids only the host name is left, which is enough only if no other machine writes.
    if (!local || owner.boot_id !== self.bootId || owner.host !== self.host) return "unknown";
    return pidIsAlive(owner) ? "alive" : "dead";
  }
  if (owner.boot_id !== self.bootId) {
    const sameMachine = owner.machine_id !== "" && owner.machine_id === self.machineId && owner.host === self.host;
    return local || sameMachine ? "dead" : "unknown";
  }
  if (owner.pid_namespace !== self.pidNamespace) return "unknown";
  return pidIsAlive(owner) ? "alive" : "dead";
}

/** Describes a holder in words, for the busy error. */
export function describeOwner(owner: LockOwner | null): string {
  if (owner === null) return "another process";
  const elsewhere = owner.boot_id === thisProcess().bootId ? "" : ` on ${owner.host}`;
  return `pid ${owner.pid} (${owner.command}${owner.purpose === "" ? "" : `, ${owner.purpose}`})${elsewhere} since ${owner.since}`;
}
