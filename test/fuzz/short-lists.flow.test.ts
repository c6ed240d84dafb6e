import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { sha256 } from "../../src/crypto/hash.ts";
import { SCRATCH, startCairn, type Outcome } from "../fixtures/command.ts";
import { newRepository, noRestic, resticEnvironment, type TestRepository } from "../fixtures/repository.ts";

/**
 * Prunes beside backups of Cairn and restic through a server whose lists are empty, short or old, with clients that are killed.
 * `CAIRN_FUZZ_RUNS=50` makes as many rounds, `CAIRN_FUZZ_SEED` chooses which.
 */

const ROUNDS = Number(process.env["CAIRN_FUZZ_RUNS"] ?? 4);
let seed = Number(process.env["CAIRN_FUZZ_SEED"] ?? 20_261_126);

/** A number from 0 to below `end`, the same for the same seed. */
function below(end: number): number {
  seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((seed / 2 ** 32) * end);
}

type Answer = "right" | "empty" | "short" | "stale";
type Kind = "snapshots" | "index" | "data" | "locks" | "keys";
const KINDS: readonly Kind[] = ["snapshots", "index", "data", "locks", "keys"];

/** A REST server over a local repository whose lists are wrong as told. */
class LyingServer {
  readonly #server: http.Server;
  readonly #root: string;
  #answers = new Map<Kind, Answer>();
  #old = new Map<Kind, string[]>();
  #hidden = new Set<string>();

  constructor(root: string) {
    this.#root = root;
    this.#server = http.createServer((request, response) => {
      void this.#answer(request, response).catch(() => response.writeHead(500).end());
    });
  }

  async listen(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `rest:http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  /** From now on lists of a kind are wrong; a short one lacks a third of the files that are there now. */
  lie(kind: Kind, answer: Answer): void {
    this.#answers.set(kind, answer);
    const names = this.#names(kind);
    this.#old.set(kind, names);
    this.#hidden = new Set(names.filter((_, i) => i === 0 || below(3) === 0));
  }

  beRight(): void {
    this.#answers = new Map();
  }

  #names(kind: Kind): string[] {
    const entries = fs.readdirSync(path.join(this.#root, kind), { recursive: true, withFileTypes: true });
    return entries.filter((each) => each.isFile() && /^[0-9a-f]{64}$/.test(each.name)).map(({ name }) => name);
  }

  #listed(kind: Kind): { name: string; size: number }[] {
    const answer = this.#answers.get(kind) ?? "right";
    if (answer === "empty") return [];
    const names = answer === "stale" ? this.#old.get(kind)! : this.#names(kind);
    const shown = answer === "short" ? names.filter((name) => !this.#hidden.has(name)) : names;
    return shown.map((name) => ({
      name,
      size: fs.statSync(this.#path(kind, name), { throwIfNoEntry: false })?.size ?? 100,
    }));
  }

  #path(kind: string, name: string): string {
    return path.join(this.#root, kind, ...(kind === "data" ? [name.slice(0, 2)] : []), name);
  }

  async #answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const [kind = "", name = ""] = request.url!.split("?")[0]!.split("/").slice(1);
    if (request.method === "POST" && kind === "") return void response.writeHead(200).end();
    if (kind !== "config" && name === "") {
      response.writeHead(200, { "content-type": "application/vnd.x.restic.rest.v2" });
      return void response.end(JSON.stringify(this.#listed(kind as Kind)));
    }
    const file = kind === "config" ? path.join(this.#root, "config") : this.#path(kind, name);
    if (request.method === "POST") {
      const parts: Buffer[] = [];
      for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
      const body = Buffer.concat(parts);
      if (kind !== "config" && Buffer.from(sha256(body)).toString("hex") !== name)
        return void response.writeHead(400).end();
      fs.mkdirSync(path.dirname(file), { recursive: true });
      const temporary = path.join(this.#root, "tmp", randomBytes(8).toString("hex"));
      fs.mkdirSync(path.dirname(temporary), { recursive: true });
      fs.writeFileSync(temporary, body);
      fs.renameSync(temporary, file);
      return void response.writeHead(200).end();
    }
    const size = fs.statSync(file, { throwIfNoEntry: false })?.size;
    if (size === undefined) return void response.writeHead(404).end();
    if (request.method === "DELETE") {
      fs.rmSync(file);
      return void response.writeHead(200).end();
    }
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const [from, to] = range === null ? [0, size - 1] : [Number(range[1]), Math.min(Number(range[2]), size - 1)];
    const head = { "content-length": String(to - from + 1), "content-range": `bytes ${from}-${to}/${size}` };
    response.writeHead(range === null ? 200 : 206, head);
    response.end(request.method === "HEAD" ? undefined : fs.readFileSync(file).subarray(from, to + 1));
  }
}

interface Ended {
  status: number | null;
  said: string;
}

async function startRestic(place: TestRepository, args: readonly string[], killAfterMs?: number): Promise<Ended> {
  const child = spawn("restic", args, {
    env: { ...resticEnvironment(place), RESTIC_CACHE_DIR: path.join(SCRATCH, "restic-of-lies") },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const pipe of [child.stdout, child.stderr]) pipe.on("data", (text: Buffer) => (said += text.toString()));
  const timer = killAfterMs === undefined ? undefined : setTimeout(() => child.kill("SIGKILL"), killAfterMs);
  const [status] = (await once(child, "close")) as [number | null];
  clearTimeout(timer);
  return { status, said };
}

async function run(args: readonly string[], killAfterMs?: number): Promise<Outcome> {
  const running = startCairn(args);
  const timer = killAfterMs === undefined ? undefined : setTimeout(() => running.child.kill("SIGKILL"), killAfterMs);
  const done = await running.ended;
  clearTimeout(timer);
  return done;
}

/** Locks of killed clients do not hold up the next round, as after half an hour. */
function unlock(place: TestRepository): void {
  for (const name of fs.readdirSync(path.join(place.location, "locks")))
    fs.rmSync(path.join(place.location, "locks", name));
}

function write(folder: string, round: number): void {
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, `round-${round}`), randomBytes(200_000));
  fs.writeFileSync(path.join(folder, "always"), randomBytes(300_000));
  fs.rmSync(path.join(folder, `round-${round - 2}`), { force: true });
}

const said: Record<string, number> = {};
function count({ status, error }: Outcome): void {
  assert.notEqual(status, 2, error?.message);
  const key = `${status ?? "killed"} ${error?.code ?? ""}`;
  said[key] = (said[key] ?? 0) + 1;
}

test(
  "prune beside running backups keeps all content that a snapshot needs, even if the storage lists files wrongly",
  { skip: noRestic },
  async (t) => {
    const place = await newRepository("lies");
    const server = new LyingServer(place.location);
    const location = await server.listen();
    t.after(() => server.close());
    const far: TestRepository = {
      ...place,
      location,
      options: ["-r", location, "--password-file", place.passwordFile],
    };
    const [ours, theirs] = ["ours", "theirs"].map((name) => path.join(SCRATCH, `lies-${name}`)) as [string, string];
    const create = ["backup", "create", ...far.options, "-C", ours];
    for (let round = 0; round < ROUNDS; round++) await oneRound(t, { server, place, far, create, ours, theirs, round });
    const checked = await startRestic(place, ["check", "--read-data"]);
    assert.equal(checked.status, 0, checked.said);
    t.diagnostic(`prunes of ${ROUNDS} rounds: ${JSON.stringify(said)}`);
  },
);

interface Round {
  server: LyingServer;
  place: TestRepository;
  far: TestRepository;
  create: readonly string[];
  ours: string;
  theirs: string;
  round: number;
}

async function oneRound(t: TestContext, at: Round): Promise<void> {
  const { server, place, far, create, ours, theirs, round } = at;
  write(ours, round);
  write(theirs, round);
  const kind = KINDS[below(KINDS.length)]!;
  const answer = (["empty", "short", "stale"] as const)[below(3)]!;
  // A snapshot that this host has never seen cannot be missed: restic's come before lists of snapshots are wrong.
  const isBefore = kind === "snapshots";
  if (isBefore || round === 0) {
    await startRestic(far, ["backup", theirs]);
    await run(["backup", "list", ...far.options]);
  }
  if (round === 0) await run(create);
  server.lie(kind, answer);
  const kill = (): number | undefined => (below(3) === 0 ? 300 + below(1500) : undefined);
  const prune = ["backup", "forget", ...far.options, "--keep-last", "2", "--prune"];
  const [, pruned] = await Promise.all([
    run(create, kill()),
    run(prune, kill()),
    isBefore ? null : startRestic(far, ["backup", theirs], kill()),
  ]);
  count(pruned);
  // Once more while the lists are wrong and nobody is beside.
  if (below(2) === 0) count(await run(prune));
  server.beRight();
  unlock(place);
  const where = `round ${round}: ${answer} ${kind}`;
  const checked = await startRestic(place, ["check"]);
  assert.equal(checked.status, 0, `${where}\n${checked.said}\n${pruned.stdout}`);
  await run(["backup", "list", ...far.options]);
  t.diagnostic(`${where}: ${pruned.status} ${pruned.error?.code ?? ""}`);
}
