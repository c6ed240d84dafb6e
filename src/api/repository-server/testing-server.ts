import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { RepositoryServer, type RepositoryServerOptions } from "./server.ts";

/** A server to ask anything, and connections on which anything can be said. Test only. */

export interface Served {
  server: RepositoryServer;
  root: string;
  problems: string[];
  /** Of the repository `r`, which is there. */
  ask(method: string, path: string, settings?: Asked): Promise<Answer>;
  raw(): Promise<Wire>;
}

interface Asked {
  body?: string | Uint8Array;
  headers?: Record<string, string>;
}

interface Answer {
  status: number;
  headers: Headers;
  text: string;
}

/** A server in a folder of its own, which ends with the test. */
export async function serve(t: TestContext, options: Partial<RepositoryServerOptions> = {}): Promise<Served> {
  const root = options.root ?? mkdtempSync(join(tmpdir(), "cairn-server-"));
  const problems: string[] = [];
  const server = await RepositoryServer.start({
    root,
    host: "127.0.0.1",
    port: 0,
    appendOnly: false,
    privateRepositories: false,
    maximumFileBytes: 1 << 20,
    credentials: null,
    graceMs: 500,
    onProblem: (message) => problems.push(message),
    ...options,
  });
  const wires: Wire[] = [];
  t.after(async () => {
    for (const wire of wires) wire.socket.destroy();
    await server.stop();
    if (options.root === undefined) rmSync(root, { recursive: true, force: true });
  });
  const ask: Served["ask"] = async (method, path, { body, headers } = {}) => {
    const answer = await fetch(`${server.url}${path}`, {
      method,
      ...(headers === undefined ? {} : { headers }),
      ...(body === undefined ? {} : { body: body as string }),
    });
    return { status: answer.status, headers: answer.headers, text: await answer.text() };
  };
  const raw: Served["raw"] = async () => {
    const wire = new Wire(Number(new URL(server.url).port));
    wires.push(wire);
    await wire.connected;
    return wire;
  };
  return { server, root, problems, ask, raw };
}

/** A connection on which anything can be said. */
export class Wire {
  readonly socket: Socket;
  readonly connected: Promise<void>;
  /** All that came until the server closed. */
  readonly closed: Promise<string>;
  #text = "";
  #waiting: { pattern: RegExp; found: () => void }[] = [];

  constructor(port: number) {
    this.socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    this.connected = new Promise((done, fail) => this.socket.once("connect", done).once("error", fail));
    this.socket.on("data", (chunk) => {
      this.#text += chunk.toString("latin1");
      this.#waiting = this.#waiting.filter(({ pattern, found }) => !pattern.test(this.#text) || void found());
    });
    this.socket.on("error", () => undefined);
    this.closed = new Promise((done) => {
      const end = (): void => done(this.#text);
      this.socket.on("end", end).on("close", end);
    });
  }

  say(text: string | Uint8Array): this {
    this.socket.write(text);
    return this;
  }

  async until(pattern: RegExp): Promise<void> {
    if (pattern.test(this.#text)) return;
    await new Promise<void>((found) => this.#waiting.push({ pattern, found }));
  }
}

export function nameOf(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}
