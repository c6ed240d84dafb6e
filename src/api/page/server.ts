import { randomBytes, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { hostname } from "node:os";
import type { About, CairnLibrary, PathInput } from "../../contract/index.ts";
import { whyNothingRuns } from "../../daemon/unit.ts";
import { NotAdmitted } from "../../daemon/state/tokens.ts";
import { CairnError } from "../../errors.ts";
import { VERSION } from "../../formats/program.ts";
import { currentUser, knownHome } from "../../fs/users.ts";
import { HTTP_LIMITS, listen } from "../listen.ts";
import type { Reply } from "../reply.ts";
import { type Body, parsed, readBody } from "../request.ts";
import { pathOf } from "../rights/arguments.ts";
import type { Admission } from "../socket/caller.ts";
import { endServer, EVENTS, RequestHandler } from "../socket/handler.ts";
import { isPage, sendAsset } from "./assets.ts";
import { CONTENT_KINDS, type ContentKind, sendContent } from "./content.ts";
import { answerFirstUse, isFirstUse, type PageAgents } from "./first-use.ts";
import { PageHost } from "./host.ts";
import { digestOf, OneTime } from "./one-time.ts";
import { answerMisdirected, newPageAddress, newPageName, requireOwnPage } from "./own-page.ts";
import { Strangers } from "./strangers.ts";

export interface PageServerOptions {
  openLibrary(): Promise<CairnLibrary>;
  page: string;
  agents: PageAgents;
  isReadOnly: boolean;
  /** Path of the first workspace that the page shows. */
  start: string | null;
  /** The view to begin with, as the fragment of its address. */
  view: string | null;
  /** True: the page is at a random address 127.x.y.z instead of a random name. */
  byAddress: boolean;
  /** Receives the fragment of each view that a signed-in tab opens. */
  onView(view: string): void;
  /** Receives a line about a failure that no caller sees. */
  onProblem(message: string): void;
  /** Clock of codes and tickets, in milliseconds. */
  now?: () => number;
}

/** The content that a ticket gives. */
interface Wanted {
  workspace: string;
  /** Null: the present folder, for a file. */
  target: string | null;
  path: PathInput;
  /** Paths of an archive; null: everything. */
  paths: readonly PathInput[] | null;
  kind: ContentKind;
  name: string;
}

/**
 * Browsers look for a name in `.localhost` at both addresses. Whoever listens on one of them at the page's port would get
 * the requests of some browsers.
 */
const HOSTS = ["127.0.0.1", "::1"];
/** Attempts to find a port that is free on all addresses. */
const MOST_ATTEMPTS = 100;
/** Milliseconds until a sign-in code expires. */
export const CODE_MS = 600_000;
/** Milliseconds until a ticket expires. */
const TICKET_MS = 60_000;
const TOKEN_BYTES = 32;
const SESSION_BYTES = 1 << 10;
const REQUEST_BYTES = 8 << 20;
/** The most calls at once; a browser sends six. */
const MOST_CALLS = 64;
/** Limits of requests: a browser sends the head of a request at once. */
const LIMITS = { ...HTTP_LIMITS, headersTimeout: 5_000, connectionsCheckingInterval: 1_000 };
const CONTENT = /^\/content\/([\w-]{22})\/[^/?#]*$/;
const VIEW = /^#\/[\x21-\x7e]{0,8192}$/;
const NOT_SIGNED_IN = "the page is not signed in to this server";
const SIGN_IN = "press Enter where `cairn ui` runs, and open the address that it prints";

const HEADERS: Readonly<Record<string, string>> = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
  "x-frame-options": "DENY",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
};

/** The server of `cairn ui`: its page, sign-in, calls, events and downloads, on a loopback port. */
export class PageServer {
  readonly #options: PageServerOptions;
  readonly #name: string;
  #servers: readonly Server[] = [];
  readonly #strangers = new Strangers();
  readonly #host: PageHost;
  readonly #handler: RequestHandler;
  readonly #codes: OneTime<() => void>;
  readonly #tickets: OneTime<Wanted>;
  readonly #token = randomBytes(TOKEN_BYTES).toString("base64url");

  private constructor(options: PageServerOptions) {
    this.#options = options;
    this.#name = options.byAddress ? newPageAddress() : newPageName();
    const { onProblem } = options;
    this.#host = new PageHost(options.openLibrary, options.isReadOnly, onProblem);
    // An agent may work in the new workspace.
    this.#host.events.listen(({ event }) => event.type === "registered" && options.agents.forget());
    this.#handler = new RequestHandler(this.#host, {
      requestBytes: REQUEST_BYTES,
      calls: MOST_CALLS,
      log: (message, { priority } = {}) => priority === "error" && onProblem(message),
    });
    this.#codes = new OneTime(CODE_MS, options.now);
    this.#tickets = new OneTime(TICKET_MS, options.now);
  }

  /** Starts to listen on a free port. Throws the errors of `listen()`. */
  static async start(options: PageServerOptions): Promise<PageServer> {
    const page = new PageServer(options);
    const hosts = options.byAddress ? [page.#name] : HOSTS;
    for (let attempt = 1; !(await page.#listen(hosts)); attempt++)
      if (attempt === MOST_ATTEMPTS)
        throw new CairnError("busy", `another program took each of ${attempt} ports on ${hosts.join(" or ")}`, {
          hint: "find the program that listens on all ports: `ss -ltnp`",
        });
    return page;
  }

  /** Listens on the same free port of each address. Returns false if another program has the port on one of them. */
  async #listen(hosts: readonly string[]): Promise<boolean> {
    const servers: Server[] = [];
    for (const host of hosts) {
      const server = createServer(LIMITS, (request, response) => void this.#serve(request, response));
      this.#strangers.watch(server);
      try {
        const address = { host, port: servers.length === 0 ? 0 : portOf(servers[0]!) };
        await listen(server, address, (error) => this.#options.onProblem(`the server: ${error.message}`));
        servers.push(server);
      } catch (error) {
        // Without IPv6 nobody can listen there.
        if (servers.length > 0 && hasNoAddress(error)) continue;
        for (const each of servers) each.close();
        if ((error as CairnError).code !== "busy") throw error;
        return false;
      }
    }
    this.#servers = servers;
    return true;
  }

  get port(): number {
    return portOf(this.#servers[0]!);
  }

  /** The address on which the server listens, for `ssh -L`. */
  get host(): string {
    return this.#options.byAddress ? this.#name : HOSTS[0]!;
  }

  /** Makes an address that signs in once, within ten minutes. Calls `onUsed` after the sign-in. */
  address(onUsed: () => void = () => undefined): string {
    return `http://${this.#name}:${this.port}/#code=${this.#codes.make(onUsed)}`;
  }

  /** Stops the server: running answers have a second to end, then connections are cut and workspaces closed. */
  async stop(): Promise<void> {
    this.#handler.stop();
    this.#host.events.close();
    await Promise.all(this.#servers.map((each) => endServer(each, this.#handler, { graceMs: 0 })));
    await this.#host.close();
  }

  #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    return this.#handler.serve(request, response, (reply, signal) => this.#admit(request, response, { reply, signal }));
  }

  /** Answers the page's requests that are no calls. Returns the caller of every other request that has this server's token. */
  async #admit(
    request: IncomingMessage,
    response: ServerResponse,
    { reply, signal }: { reply: Reply; signal: AbortSignal },
  ): Promise<Admission | null> {
    const { method, url = "", headers } = request;
    const isGet = method === "GET";
    const isForPage = isGet && isPage(url);
    const isSignedIn = this.#isSignedIn(headers.authorization);
    if (isSignedIn) this.#strangers.trust(request);
    else this.#strangers.hurry(request);
    if (answerMisdirected(request, response, { name: this.#name, isPage: isForPage })) return null;
    requireOwnPage(request, isForPage);
    if (isGet && sendAsset(this.#options.page, request, response)) return null;
    const ticket = isGet ? CONTENT.exec(url)?.[1] : undefined;
    if (ticket !== undefined) {
      await this.#sendContent({ request, response }, ticket, signal);
      return null;
    }
    const members = async (most = REQUEST_BYTES): Promise<Body> => parsed(await readBody(request, most));
    if (method === "POST" && url === "/session") {
      const token = this.#signIn(await members(SESSION_BYTES));
      this.#strangers.trust(request);
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ token }));
      return null;
    }
    if (!isSignedIn) throw new NotAdmitted("", NOT_SIGNED_IN, SIGN_IN);
    if (isGet && url === "/v1/about") reply.end(await this.#about());
    else if (method === "POST" && url === "/view") reply.end(this.#noteView(await members()));
    else if (method === "POST" && isFirstUse(url)) reply.end(await this.#answerFirstUse(url, await members()));
    else if (method === "POST" && url === "/tickets") reply.end(this.#makeTicket(await members()));
    else {
      // A page gets the events of all workspaces before it lists them.
      if (isGet && EVENTS.test(url)) await this.#host.follow();
      return { caller: this.#host.caller };
    }
    return null;
  }

  /** Returns the token for a one-time code. Throws `permission` for any other text. */
  #signIn({ code }: Body): string {
    const found = typeof code === "string" ? this.#codes.take(code) : null;
    if (found === null)
      throw new CairnError("permission", "this code is wrong, was used before, or is older than ten minutes", {
        hint: "press Enter where `cairn ui` runs: it prints an address with a new code",
      });
    found.value();
    return this.#token;
  }

  #isSignedIn(authorization: string | undefined): boolean {
    return timingSafeEqual(digestOf(authorization ?? ""), digestOf(`Bearer ${this.#token}`));
  }

  async #about(): Promise<About> {
    const answers = await this.#host.isServed();
    return {
      version: VERSION,
      read_only: this.#options.isReadOnly,
      pid: process.pid,
      user: currentUser().username,
      host: hostname(),
      home: knownHome() ?? "/",
      start: this.#options.start,
      view: this.#options.view,
      daemon: answers,
      unrun: answers ? null : whyNothingRuns(),
    };
  }

  #noteView({ view }: Body): void {
    if (typeof view !== "string" || !VIEW.test(view))
      throw new CairnError("usage", "a view is the fragment of an address: #/ and then letters of ASCII");
    this.#options.onView(view);
  }

  async #answerFirstUse(url: string, members: Body): Promise<unknown> {
    const { agents, isReadOnly } = this.#options;
    return answerFirstUse(url, members, { agents, isReadOnly, workspaces: this.#host.workspaces });
  }

  /** Makes a ticket. The verb checks target and paths when the content is fetched. */
  #makeTicket(members: Body): { url: string } {
    const { target, path = "", path_b64, paths, as, name } = members;
    const kind = CONTENT_KINDS.find((each) => each === as);
    if (kind === undefined || typeof name !== "string")
      throw new CairnError("usage", `a ticket needs a name, and as: one of ${CONTENT_KINDS.join(", ")}`);
    if (kind !== "file" && typeof target !== "string")
      throw new CairnError("usage", "an archive is made of a save point: name one as target");
    const own = typeof path_b64 === "string" ? Buffer.from(path_b64, "base64") : (path as PathInput);
    const wanted: Wanted = {
      workspace: pathOf(members, "workspace"),
      target: target as string | null,
      path: own,
      paths: Array.isArray(paths) && paths.length > 0 ? (paths as PathInput[]) : null,
      kind,
      name,
    };
    return { url: `/content/${this.#tickets.make(wanted)}/${encodeURIComponent(name.toWellFormed())}` };
  }

  async #sendContent(
    { request, response }: { request: IncomingMessage; response: ServerResponse },
    ticket: string,
    signal: AbortSignal,
  ): Promise<void> {
    const found = this.#tickets.take(ticket);
    if (found === null)
      throw new CairnError("not_found", "this address was used before, or is older than a minute", {
        hint: "go back to the page and open the file again",
      });
    this.#strangers.trust(request);
    const { workspace, target, path, paths, kind, name } = found.value;
    const archive = kind === "file" ? {} : { archive: kind, ...(paths === null ? {} : { paths: [...paths] }) };
    await this.#host.workspaces.with(workspace, (client) =>
      sendContent(response, client.read(target, path, { ...archive, signal }), { kind, name }),
    );
  }
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

function hasNoAddress(error: unknown): boolean {
  const cause = (error as CairnError).cause as NodeJS.ErrnoException | undefined;
  return ["EADDRNOTAVAIL", "EAFNOSUPPORT"].includes(cause?.code ?? "");
}
