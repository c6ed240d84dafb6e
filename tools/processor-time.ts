import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import path from "node:path";

/**
 * Counts processor time by a control group of Linux: every descendant counts, also daemons and processes that nobody waited
 * for, and neither waiting nor other programs do.
 */
export interface Meter {
  /** For the environment of a process that begins with `node --import tools/join-group.ts`. */
  readonly environment: Record<string, string>;
  /** Processor seconds until now, of all processors. */
  seconds(): number;
  end(): void;
}

const MOUNT = "/sys/fs/cgroup";
/** The variable that names the file into which a process writes its id. */
export const JOIN = "CAIRN_TEST_GROUP";

let made = 0;

/** Returns a new meter; null if this user may make no control group. */
export function newMeter(): Meter | null {
  const isOld = existsSync(path.join(MOUNT, "cpuacct/cgroup.procs"));
  const base = isOld ? path.join(MOUNT, "cpuacct") : path.join(MOUNT, ownGroup());
  const group = path.join(base, `cairn-tests-${process.pid}-${++made}`);
  try {
    mkdirSync(group);
  } catch {
    return null;
  }
  return {
    environment: { [JOIN]: path.join(group, "cgroup.procs") },
    seconds() {
      if (isOld) return Number(readFileSync(path.join(group, "cpuacct.usage"), "utf8")) / 1e9;
      return Number(/usage_usec (\d+)/.exec(readFileSync(path.join(group, "cpu.stat"), "utf8"))?.[1] ?? 0) / 1e6;
    },
    end() {
      try {
        rmdirSync(group);
      } catch {
        // A process that is left holds the group.
      }
    },
  };
}

/** Returns the path of this process's group in the hierarchy of version 2. */
function ownGroup(): string {
  try {
    return /^0::\/(.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.[1] ?? "";
  } catch {
    return "";
  }
}

/** Puts this process, and so all that it starts from now on, into the group of a meter. */
export function joinGroup(): void {
  const file = process.env[JOIN];
  delete process.env[JOIN];
  if (file !== undefined) writeFileSync(file, String(process.pid));
}
