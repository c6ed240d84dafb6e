import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Command } from "./measure.ts";

/** A way to a port of this machine that takes as long as a long line does. */
export interface Line {
  readonly host: string;
  readonly port: number;
  /** Which of the two ways it is, and why. */
  readonly note: string;
  /** The same command, where the line begins. */
  over(command: Command): Command;
  /** The first lines of the HTTP requests that went over it. */
  requests(): string[];
  forgetRequests(): void;
  close(): Promise<void>;
}

export interface LineOptions {
  /** The server's port on 127.0.0.1. */
  port: number;
  /** What a round trip takes longer, in milliseconds. */
  roundTrip: number;
  /** Bytes a second that each direction carries at most; absent: any. */
  rate?: number | undefined;
  /** For its log. */
  folder: string;
  /** Whether requests are to be noted. */
  isHttp: boolean;
}

const IP = "/sbin/ip";
/** Of the range that is kept free for benchmarks. */
const [NEAR, FAR] = ["198.18.77.1", "198.18.77.2"];

/** Through a network namespace with netem where the kernel has it, else through a proxy that waits. */
export async function openLine(options: LineOptions): Promise<Line> {
  const namespace = `cairn-bench-${process.pid}`;
  const reason = makeNamespace(namespace, options.roundTrip / 2, options.rate);
  const log = path.join(options.folder, "requests");
  writeFileSync(log, "");
  const host = reason === null ? NEAR : "127.0.0.1";
  const delay = reason === null ? 0 : options.roundTrip / 2;
  const protocol = options.isHttp ? "http" : "-";
  const script = path.join(import.meta.dirname, "line-proxy.ts");
  const rate = reason === null ? 0 : (options.rate ?? 0);
  const args = [script, host, String(options.port), String(delay), log, protocol, String(rate)];
  const proxy = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
  return {
    host,
    port: await firstNumber(proxy),
    note:
      reason === null
        ? "latency by netem in a network namespace"
        : `latency by a proxy that holds data back, without slow start or loss; not by netem: ${reason}`,
    over: (command) =>
      reason === null
        ? { ...command, program: IP, args: ["netns", "exec", namespace, command.program, ...command.args] }
        : command,
    requests: () => readFileSync(log, "utf8").split("\n").slice(0, -1),
    forgetRequests: () => writeFileSync(log, ""),
    close: async () => {
      const ended = new Promise((resolve) => proxy.once("exit", resolve));
      proxy.stdin.end();
      await ended;
      if (reason === null) removeNamespace(namespace);
    },
  };
}

async function firstNumber(proxy: ChildProcess): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  proxy.stdout?.once("data", (text: Buffer) => resolve(Number(text.toString())));
  proxy.once("exit", (status) => reject(new Error(`the proxy ended with ${status}`)));
  proxy.once("error", reject);
  return promise;
}

/** Null, or why there can be none here: then nothing is left of it. */
function makeNamespace(name: string, delayMs: number, rate: number | undefined): string | null {
  if (process.getuid?.() !== 0) return "not root";
  const near = `cb${process.pid}`;
  const netem = ["root", "netem", "delay", `${delayMs}ms`, "limit", "100000"];
  if (rate !== undefined) netem.push("rate", `${rate * 8}bit`);
  const steps = [
    [IP, "netns", "add", name],
    [IP, "link", "add", near, "type", "veth", "peer", "name", "line", "netns", name],
    [IP, "addr", "add", `${NEAR}/30`, "dev", near],
    [IP, "link", "set", near, "up"],
    [IP, "-n", name, "addr", "add", `${FAR}/30`, "dev", "line"],
    [IP, "-n", name, "link", "set", "line", "up"],
    [IP, "-n", name, "link", "set", "lo", "up"],
    ["/sbin/tc", "qdisc", "add", "dev", near, ...netem],
    [IP, "netns", "exec", name, "/sbin/tc", "qdisc", "add", "dev", "line", ...netem],
  ];
  for (const [program = "", ...args] of steps) {
    const done = spawnSync(program, args, { encoding: "utf8" });
    if (done.status === 0) continue;
    removeNamespace(name);
    return (done.error?.message ?? done.stderr).trim().split("\n")[0] ?? "it failed";
  }
  return null;
}

/** Its end of the pair goes with it. */
function removeNamespace(name: string): void {
  spawnSync(IP, ["netns", "delete", name], { stdio: "ignore" });
}
