import type { IncomingMessage, ServerResponse } from "node:http";
import type { Client } from "../../contract/index.ts";
import type { CallOptions } from "../../contract/words.ts";
import type { Daemon } from "../../daemon/daemon.ts";
import type { Caller } from "../../daemon/state/peer.ts";
import { CairnError } from "../../errors.ts";
import { type Members, withoutOurs } from "../client/connection.ts";
import { type Calls, methodsOf } from "../client/served-library.ts";
import { serveOnHttp } from "../mcp/http.ts";
import type { Told } from "./calls.ts";
import { type Body, readBody, requireShallow } from "../request.ts";

type Answer = (call: { name: string; body: Body; told: Told }) => Promise<unknown>;

/** Calls of an agent's tools, each answered like a request of its own. */
class OwnCalls implements Calls {
  readonly #answer: Answer;
  readonly #signal: AbortSignal;

  constructor(answer: Answer, signal: AbortSignal) {
    this.#answer = answer;
    this.#signal = signal;
  }

  call(name: string, members: Members, options: CallOptions = {}): Promise<unknown> {
    return this.#ask(name, members, options, async () => undefined);
  }

  async *stream(name: string, members: Members, options: CallOptions = {}): AsyncGenerator {
    const { readable, writable } = new TransformStream<unknown, unknown>();
    const writer = writable.getWriter();
    const whole = this.#ask(name, members, options, async (item) => writer.write(item));
    // If the reader has left or the call fails, the loop below gets the error.
    void whole
      .then(async () => writer.close())
      .catch(async (error: unknown) => writer.abort(error).catch(() => undefined));
    yield* readable;
  }

  #ask(name: string, members: Members, options: CallOptions, onItem: Told["onItem"]): Promise<unknown> {
    const { signal, onProgress, onWarning } = options;
    const told: Told = {
      signal: signal === undefined ? this.#signal : AbortSignal.any([signal, this.#signal]),
      ...(onProgress === undefined ? {} : { onProgress }),
      ...(onWarning === undefined ? {} : { onWarning }),
      onItem,
    };
    return this.#answer({ name, body: withoutOurs(members), told });
  }
}

/** `POST /mcp`: an agent's tools on the workspace that `?workspace=` or the token names. Throws `usage`. */
export async function serveMcp(
  request: IncomingMessage,
  response: ServerResponse,
  parts: { daemon: Daemon; caller: Caller; answer: Answer; signal: AbortSignal; requestBytes: number },
): Promise<void> {
  const { daemon, caller, answer, signal, requestBytes } = parts;
  // A client tries to open its own stream; 405 means that there is none.
  if (request.method !== "POST") return void response.writeHead(405, { allow: "POST", "content-length": 0 }).end();
  const named = new URLSearchParams(request.url?.split("?")[1]).get("workspace");
  const workspace = named ?? daemon.tokens.workspaceOf(caller.token);
  if (workspace === null)
    throw new CairnError("usage", "the workspace is not named", { hint: "name it: /mcp?workspace=/absolute/path" });
  const calls = new OwnCalls(answer, signal);
  const open = async (makesWorkspace: boolean): Promise<Client> => {
    const found = await calls.call(makesWorkspace ? "register" : "at", { path: workspace });
    if (found === null) throw new CairnError("not_a_workspace", `${workspace} is not a workspace`);
    return methodsOf(calls, workspace) as unknown as Client;
  };
  await serveOnHttp(request, response, { body: messageOf(await readBody(request, requestBytes)), open });
}

/** Parses one message. A batch would make many calls and count as one, so it is `usage`. */
function messageOf(text: string): unknown {
  let message: unknown;
  try {
    message = JSON.parse(text);
  } catch {
    throw new CairnError("usage", "the request is not JSON");
  }
  requireShallow(message);
  if (Array.isArray(message)) throw new CairnError("usage", "a request must have exactly one message");
  return message;
}
