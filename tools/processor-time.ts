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
  const hierarchy = isOld ? path.join(MOUNT, "cpuacct") : MOUNT;
  // A group below this process's own also counts for the meter of the caller.
  const own = path.join(hierarchy, ownGroup(isOld ? "[^:]*\\bcpuacct\\b[^:]*" : ""));
  const group = path.join(existsSync(own) ? own : hierarchy, `cairn-tests-${process.pid}-${++made}`);
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

/** Returns the path of this process's group in the hierarchy of these controllers, a regular expression. */
function ownGroup(controllers: string): string {
  try {
    const found = new RegExp(`^\\d+:${controllers}:/(.*)$`, "m").exec(readFileSync("/proc/self/cgroup", "utf8"));
    return found?.[1] ?? "";
  } catch {
    return "";
  }
}

/** Puts this process, and so all that it starts from now on, into the group of a meter. */
export function joinGroup(environment: Record<string, string | undefined> = process.env): void {
  const file = environment[JOIN];
  delete environment[JOIN];
  if (file !== undefined) writeFileSync(file, String(process.pid));
}
