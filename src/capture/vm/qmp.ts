import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { advice, CairnError, line, word } from "../../errors.ts";

/** A client of QEMU's machine protocol: one JSON object a line, answers in the order of the commands, events between. */

interface QmpEvent {
  event: string;
  data?: Record<string, unknown>;
}

interface Waiting {
  command: string;
  resolve(value: unknown): void;
  reject(error: CairnError): void;
}

/** Longest line that is accepted from QEMU. */
const LINE = 16 << 20;
const ANSWER_MS = 10_000;
/** The way out of a QEMU that hangs. */
const HANGS = advice`if QEMU hangs, end it: ${line("vm stop --force NAME", "stopMachine", word("machines"), word("name"), { force: true })}`;

/** A connection to one QEMU, which accepts one at a time. To be closed. */
export class Qmp {
  readonly #socket: net.Socket;
  readonly #waiting: Waiting[] = [];
  /** Called with each event, and with null at the end of the connection. */
  readonly #listeners = new Set<(event: QmpEvent | null) => void>();
  #text = "";
  #ended: CairnError | null = null;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#heard(text));
    socket.on("error", (error) => this.#end(new CairnError("io", `QEMU's socket: ${error.message}`, { cause: error })));
    socket.on("close", () => this.#end(new CairnError("io", "QEMU ended, or closed its socket")));
  }

  /**
   * Connects and agrees on the protocol. Retries until the deadline while no QEMU listens or another client is
   * connected, unless `isGone` says that QEMU has ended. Throws `io`, `busy`.
   */
  static async connect(
    path: string,
    { deadlineMs, isGone }: { deadlineMs: number; isGone?: () => boolean },
  ): Promise<Qmp> {
    const end = performance.now() + deadlineMs;
    for (;;) {
      const socket = await connected(path);
      if (typeof socket !== "string") {
        const qmp = new Qmp(socket);
        try {
          // The greeting is the first message, so its answer is awaited first.
          await qmp.#answer("greeting", Math.max(1, end - performance.now()));
          await qmp.run("qmp_capabilities");
          return qmp;
        } catch (error) {
          qmp.close();
          throw (error as CairnError).details?.["late"] === true ? noAnswer(error) : error;
        }
      }
      if (isGone?.() === true || performance.now() > end) {
        // The kernel lets a few clients wait for a QEMU that hangs, and refuses the others.
        if (socket === "EAGAIN") throw noAnswer();
        throw new CairnError("io", `no QEMU listens at its socket ${path}`, { hint: HANGS });
      }
      await sleep(2);
    }
  }

  /** Runs a command and returns QEMU's answer. Throws `io` with QEMU's message, or if no answer comes in time. */
  async run(command: string, given?: Record<string, unknown>, deadlineMs = ANSWER_MS): Promise<unknown> {
    if (this.#ended !== null) throw this.#ended;
    this.#socket.write(
      `${JSON.stringify({ execute: command, ...(given === undefined ? {} : { arguments: given }) })}\n`,
    );
    return await this.#answer(command, deadlineMs);
  }

  /** Calls `listener` with events until disposed. */
  listen(listener: (event: QmpEvent | null) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  /** Waits for an event; null if it does not come in time, or if QEMU ends. Call it before sending the command that causes the event. */
  async event(fits: (event: QmpEvent) => boolean, deadlineMs: number): Promise<QmpEvent | null> {
    const { promise, resolve } = Promise.withResolvers<QmpEvent | null>();
    using _listening = this.listen((event) => {
      if (event === null || fits(event)) resolve(event);
    });
    const timer = setTimeout(() => resolve(null), deadlineMs);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #answer(command: string, deadlineMs: number): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.push({ command, resolve, reject });
    const late = new CairnError("io", `QEMU did not answer ${command} within ${Math.ceil(deadlineMs)} ms`, {
      details: { late: true },
      hint: HANGS,
    });
    // A late answer would be taken for the answer to the next command.
    const timer = setTimeout(() => this.#end(late), deadlineMs);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  #heard(text: string): void {
    this.#text += text;
    for (let end = this.#text.indexOf("\n"); end >= 0; end = this.#text.indexOf("\n")) {
      const line = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 1);
      if (line.trim() !== "") this.#line(line);
    }
    if (this.#text.length > LINE) this.#end(new CairnError("io", "QEMU's socket: a line is too long"));
  }

  #line(line: string): void {
    let said: Record<string, unknown>;
    try {
      said = JSON.parse(line) as Record<string, unknown>;
    } catch (error) {
      this.#end(new CairnError("io", `QEMU's socket: not JSON: ${line.slice(0, 200)}`, { cause: error }));
      return;
    }
    if (typeof said["event"] === "string") {
      for (const listener of this.#listeners) listener(said as unknown as QmpEvent);
      return;
    }
    const waiting = this.#waiting.shift();
    if (waiting === undefined) return;
    const error = said["error"] as { class?: string; desc?: string } | undefined;
    if (error === undefined) waiting.resolve(said["return"] ?? said["QMP"]);
    else waiting.reject(new CairnError("io", `QEMU, ${waiting.command}: ${error.desc ?? error.class ?? "failed"}`));
  }

  #end(reason: CairnError): void {
    this.#ended ??= reason;
    for (const { reject } of this.#waiting.splice(0)) reject(reason);
    for (const listener of this.#listeners) listener(null);
    this.#socket.destroy();
  }
}

const noAnswer = (cause?: unknown): CairnError =>
  new CairnError("busy", "this machine's QEMU does not answer, or another program is connected to it", {
    hint: HANGS,
    cause,
  });

/** A connected socket, or the name of the error. */
async function connected(path: string): Promise<net.Socket | string> {
  const { promise, resolve } = Promise.withResolvers<net.Socket | string>();
  const socket = net.connect(path);
  socket
    .once("connect", () => resolve(socket))
    .once("error", (error) => resolve((error as NodeJS.ErrnoException).code ?? ""));
  return await promise;
}
