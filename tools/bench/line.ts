import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Command } from "./measure.ts";

/** A connection to a port of this machine that is as slow as a long line. */
export interface Line {
  readonly host: string;
  readonly port: number;
  /** The kind of this line, and the reason for it. */
  readonly note: string;
  /** Returns the command, to be run at the client's end of the line. */
  over(command: Command): Command;
  /** Returns the first lines of the HTTP requests on the line. */
  requests(): string[];
  forgetRequests(): void;
  close(): Promise<void>;
}

export interface LineOptions {
  /** The server's port on 127.0.0.1. */
  port: number;
  /** Milliseconds that are added to a round trip. */
  roundTrip: number;
  /** Bytes a second that each direction carries at most; absent: any. */
  rate?: number | undefined;
  /** Folder for the line's log. */
  folder: string;
  /** True: HTTP requests on the line are noted. */
  isHttp: boolean;
}

const IP = "/sbin/ip";
/** Addresses of the range that is reserved for benchmarks. */
const [NEAR, FAR] = ["198.18.77.1", "198.18.77.2"];

/** Opens a line: a network namespace with netem if the kernel has it, else a proxy that waits. */
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

/** Makes the namespace. Returns null, or the reason why that is impossible; nothing is left then. */
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

/** Removes the namespace, and with it the namespace's end of the pair. */
function removeNamespace(name: string): void {
  spawnSync(IP, ["netns", "delete", name], { stdio: "ignore" });
}
