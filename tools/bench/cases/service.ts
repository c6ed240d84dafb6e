import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client as McpClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { Connection } from "../../../src/api/client/connection.ts";
import { connect } from "../../../src/client.ts";
import { LoopVolume } from "../loop-volume.ts";
import { runCommand } from "../measure.ts";
import { isInstalled } from "../stores.ts";
import type { Bench, OwnCase } from "../bench.ts";
import { limitBar, median, ratioBars, type Result } from "../result.ts";

const COMMAND = path.resolve(import.meta.dirname, "../../../dist/cli.js");
const PER_FOLDER = 100;
const CHANGED = 10;
const CLIENTS = 1000;
const SLOW = 100;
const CALLS_EACH = 5;
const TOLD = 200;
const HELD_FOLDERS = [10, 1000];

/** The daemon over its socket: saves and status of a watched folder, delay of events, and a thousand clients at once. */
export const service: OwnCase = {
  name: "service",
  data: null,
  async run(bench: Bench): Promise<Result> {
    const folder = bench.folder("service");
    rmSync(folder, { recursive: true, force: true });
    const tree = path.join(folder, "tree");
    makeTree(tree, bench.quick ? 50 : 1000);
    const { child, socket } = await startDaemon(folder);
    const connection = new Connection(socket);
    const volumes: LoopVolume[] = [];
    const samples: Record<string, number[]> = {};
    const time = async (name: string, work: () => Promise<unknown>): Promise<void> => {
      const start = performance.now();
      await work();
      (samples[name] ??= []).push(performance.now() - start);
    };
    try {
      await connection.call("register", { path: tree });
      await connection.call("save", { workspace: tree });
      // What was written just now is read once more by the next.
      await sleep(2500);
      await connection.call("save", { workspace: tree });
      const hasGit = startGit(tree);
      for (let round = 0; round < bench.repeats * 6; round++) {
        change(tree, round);
        await time("status", async () => connection.call("status", { workspace: tree }));
        if (hasGit) await time("git status", async () => void git(tree, "status", "--porcelain"));
        await time("save", async () => connection.call("save", { workspace: tree }));
      }
      const mcp = await unchangedByMcp(tree, socket, bench.repeats * 6);
      samples["save of nothing by MCP"] = mcp;
      samples["change until it is told"] = await toldAfter(socket, tree, bench.quick ? 20 : TOLD);
      for (const folders of process.getuid?.() === 0 ? HELD_FOLDERS : []) {
        const volume = new LoopVolume(bench.folder("service-btrfs", String(folders)), "btrfs");
        volumes.push(volume);
        const name = `save on btrfs, ${folders * PER_FOLDER} files`;
        const saves = heldSaves(connection, volume, { folders, count: bench.repeats * 6 });
        for await (const save of saves) await time(name, save);
      }
      const crowd = await crowded(socket, tree, bench.quick ? 100 : CLIENTS);
      samples["call among many clients"] = crowd.times;
      const p99 = quantile(crowd.times, 0.99);
      return {
        case: "service",
        unit: "ms",
        samples,
        bars: [
          limitBar("save of 10 changed files", median(samples["save"]!), 20, "ms"),
          limitBar("status beside 10 changed files", median(samples["status"]!), 8, "ms"),
          ...(hasGit
            ? ratioBars({ cairn: samples["status"]!, "git status": samples["git status"]! }, { "git status": 1 })
            : []),
          ...Object.entries(samples)
            .filter(([name]) => name.startsWith("save on btrfs"))
            .map(([name, times]) => limitBar(name, median(times), 10, "ms")),
          limitBar("save of nothing by MCP", median(mcp), 20, "ms"),
          limitBar("change until it is told, p99", quantile(samples["change until it is told"], 0.99), 200, "ms"),
          limitBar("call among many clients, p99", p99, 10 * median(crowd.times), "ms"),
          limitBar("errors among many clients", crowd.errors, 0, "count"),
        ],
        meaning: `${bench.quick ? 5_000 : 100_000} files in folders of 100, of which 10 changed in each round; all over the daemon's socket.`,
        notes: [
          `${bench.quick ? 100 : CLIENTS} clients at once, a tenth of which take nothing of what they are answered, or never end their request`,
        ],
      };
    } finally {
      connection.close();
      child.kill();
      await once(child, "exit");
      for (const volume of volumes) volume.close();
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

function makeTree(tree: string, folders: number): void {
  for (let i = 0; i < folders; i++) {
    const folder = path.join(tree, `d${i % 20}`, `s${i}`);
    mkdirSync(folder, { recursive: true });
    for (let j = 0; j < PER_FOLDER; j++) writeFileSync(path.join(folder, `f${j}`), `${i} ${j} ${"x".repeat(200 + j)}`);
  }
}

function change(tree: string, round: number): void {
  for (let i = 0; i < CHANGED; i++)
    writeFileSync(path.join(tree, `d${i}`, `s${i}`, `f${(round + i) % PER_FOLDER}`), `${round} ${i} ${Math.random()}`);
}

function startGit(tree: string): boolean {
  if (!isInstalled("git")) return false;
  for (const words of [
    ["init", "-q"],
    ["add", "."],
    ["-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b"],
  ])
    git(tree, ...words);
  return true;
}

/** Runs git with a repository beside the folder, because inside it would double the number of the folder's files. */
function git(tree: string, ...words: string[]): void {
  const done = spawnSync("git", [`--git-dir=${tree}.git`, `--work-tree=${tree}`, ...words], { cwd: tree });
  if (done.status !== 0) throw new Error(`git ${words.join(" ")}: ${done.stderr.toString()}`);
}

async function startDaemon(folder: string): Promise<{ child: ChildProcess; socket: string }> {
  const socket = path.join(folder, "run", "s");
  const config = path.join(folder, "config.toml");
  writeFileSync(config, `[socket]\nconnections = ${CLIENTS * 2}\ncalls = ${CLIENTS * 2}\n`);
  const places = { CAIRN_STATE_DIR: path.join(folder, "state"), CAIRN_SOCKET: socket, CAIRN_CONFIG: config };
  const env = { ...process.env, ...places };
  const child = spawn(process.execPath, [COMMAND, "daemon", "--json"], { stdio: ["ignore", "pipe", "inherit"], env });
  await once(child.stdout!, "data");
  return { child, socket };
}

/** Yields saves of a btrfs subvolume, each after some of its files were changed. */
async function* heldSaves(
  connection: Connection,
  volume: LoopVolume,
  { folders, count }: { folders: number; count: number },
): AsyncGenerator<() => Promise<unknown>> {
  volume.fresh();
  const tree = path.join(volume.mountPoint, "tree");
  runCommand({ program: "btrfs", args: ["-q", "subvolume", "create", tree] });
  makeTree(tree, folders);
  await connection.call("register", { path: tree });
  const save = async (): Promise<unknown> => connection.call("save", { workspace: tree });
  await save();
  await sleep(2500);
  await save();
  for (let round = 0; round < count; round++) {
    change(tree, round);
    yield save;
  }
}

/** Returns the milliseconds of saves of a small unchanged folder by an agent's MCP server that stays running. */
async function unchangedByMcp(tree: string, socket: string, count: number): Promise<number[]> {
  const folder = path.join(path.dirname(tree), "small");
  makeTree(folder, 10);
  const client = new McpClient({ name: "bench", version: "1" });
  const env = { ...(process.env as Record<string, string>), CAIRN_SOCKET: socket };
  await client.connect(
    new StdioClientTransport({
      command: process.execPath,
      args: [COMMAND, "-C", folder, "mcp"],
      env,
      stderr: "ignore",
    }),
  );
  const save = async (): Promise<unknown> => client.callTool({ name: "save", arguments: {} });
  await save();
  await sleep(2500);
  await save();
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await save();
    times.push(performance.now() - start);
  }
  await client.close();
  return times;
}

/** Returns the milliseconds from a write to a file until a client receives the event of the write. */
async function toldAfter(socket: string, tree: string, count: number): Promise<number[]> {
  const stop = new AbortController();
  const events = connect({ socket }).events({ workspace: tree, types: ["changed"], signal: stop.signal });
  const times: number[] = [];
  let written = 0;
  const waiting: { told: () => void } = { told: () => undefined };
  const listening = (async () => {
    for await (const _event of events) {
      times.push(performance.now() - written);
      waiting.told();
    }
  })().catch(() => undefined);
  await sleep(500);
  for (let i = 0; i < count; i++) {
    const told = new Promise<void>((done) => (waiting.told = done));
    written = performance.now();
    writeFileSync(path.join(tree, "d0", "s0", "told"), String(i));
    await told;
    // Another event of the same write may follow.
    waiting.told = () => undefined;
    await sleep(60);
    times.length = i + 1;
  }
  stop.abort();
  await listening;
  return times;
}

/** Makes calls of many clients at once, some of them slow. Returns the milliseconds and failures of the other clients. */
async function crowded(socket: string, tree: string, clients: number): Promise<{ times: number[]; errors: number }> {
  const slow = Array.from({ length: Math.ceil((clients * SLOW) / CLIENTS) }, (_, i) => {
    const held = net.connect(socket);
    held.on("error", () => undefined);
    const body = JSON.stringify({ workspace: tree, target: "head" });
    const head = `POST /v1/walk HTTP/1.1\r\nHost: c\r\nAccept: application/x-ndjson\r\nContent-Length: ${body.length}\r\n\r\n`;
    // Half of them never end their request; the others never take their answer, which is long.
    held.write(i % 2 === 0 ? head.slice(0, -2) : head + body);
    held.pause();
    return held;
  });
  const times: number[] = [];
  let errors = 0;
  const one = async (): Promise<void> => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let i = 0; i < CALLS_EACH; i++) {
      const start = performance.now();
      const ok = await ask(socket, agent, tree).catch(() => false);
      if (ok) times.push(performance.now() - start);
      else errors++;
    }
    agent.destroy();
  };
  await Promise.all(Array.from({ length: clients - slow.length }, one));
  for (const held of slow) held.destroy();
  return { times, errors };
}

async function ask(socketPath: string, agent: http.Agent, tree: string): Promise<boolean> {
  const call = http.request({ socketPath, agent, method: "POST", path: "/v1/at" });
  call.end(JSON.stringify({ path: tree }));
  const [response] = (await once(call, "response")) as [http.IncomingMessage];
  response.resume();
  await once(response, "end");
  return response.statusCode === 200;
}

function quantile(samples: readonly number[], part: number): number {
  return samples.toSorted((a, b) => a - b)[Math.min(samples.length - 1, Math.floor(samples.length * part))]!;
}
