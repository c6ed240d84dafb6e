import { randomBytes, randomInt } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { CairnError } from "../../errors.ts";

/** The page's name, which no program can have used before, and the requests that are refused because of their origin. */

const NAME_BYTES = 10;

/** Returns a name of 80 random bits that browsers resolve to this machine without asking a name server. */
export function newPageName(): string {
  return `${randomBytes(NAME_BYTES).toString("hex")}.localhost`;
}

/** Returns a random loopback address, for browsers that do not resolve names in `.localhost`. */
export function newPageAddress(): string {
  return `127.${randomInt(1, 255)}.${randomInt(255)}.${randomInt(1, 255)}`;
}

const TEXT = `Cairn's page is not at this address.

It has a new name each time that \`cairn ui\` starts, so that what another
program left in your browser for an old address cannot reach it.

Open the address that \`cairn ui\` printed; Enter in its terminal prints
another one. If your browser does not find that address, start
\`cairn ui --address\`.
`;
const LOOPBACK = /^(?:127\.\d+\.\d+\.\d+|localhost|\[::1\])$/;

/**
 * Answers a request that names another host than `name`, and returns true: with a text at `/` of 127.0.0.1 and
 * localhost, else with 421. A script of this server must never run at an address that another program may have used.
 */
export function answerMisdirected(
  request: IncomingMessage,
  response: ServerResponse,
  { name, isPage }: { name: string; isPage: boolean },
): boolean {
  const host = hostOf(request);
  // Any port: `ssh -L` may use another.
  if (host === name) return false;
  const status = isPage && LOOPBACK.test(host) ? 200 : 421;
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8" }).end(TEXT);
  return true;
}

function hostOf({ headers }: IncomingMessage): string {
  return (headers.host ?? "").toLowerCase().replace(/:\d{1,5}$/, "");
}

/**
 * Throws `permission` for a request of a page of another origin. `isPage`: the page itself has no secrets, so links on
 * any page may open it.
 */
export function requireOwnPage({ headers }: IncomingMessage, isPage: boolean): void {
  const { host = "", origin, "sec-fetch-site": site } = headers;
  if (origin !== undefined && origin.toLowerCase() !== `http://${host.toLowerCase()}`)
    throw new CairnError("permission", `this server accepts no requests of pages of ${shown(origin)}`);
  if (site === undefined || site === "same-origin" || site === "none") return;
  const isNavigation = headers["sec-fetch-mode"] === "navigate" && headers["sec-fetch-dest"] === "document";
  if (!isPage || !isNavigation) throw new CairnError("permission", "this server accepts no requests of other pages");
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 100));
}
