import type { IncomingMessage } from "node:http";
import { CairnError } from "../../errors.ts";

/** Any port, because `ssh -L` may use another. */
const HOST = /^(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?$/i;

/**
 * Throws `permission` for a request by a host name that is not this machine's, or of a page of another origin.
 * `isPage`: the page itself has no secrets, so links on any page may open it.
 */
export function requireOwnPage({ headers }: IncomingMessage, isPage: boolean): void {
  const { host = "", origin, "sec-fetch-site": site } = headers;
  if (!HOST.test(host))
    throw new CairnError("permission", `this server answers to 127.0.0.1 and localhost, not to ${shown(host)}`, {
      hint: "open the address that `cairn ui` printed; from another machine through `ssh -L`",
    });
  if (origin !== undefined && origin.toLowerCase() !== `http://${host.toLowerCase()}`)
    throw new CairnError("permission", `this server accepts no requests of pages of ${shown(origin)}`);
  if (site === undefined || site === "same-origin" || site === "none") return;
  const isNavigation = headers["sec-fetch-mode"] === "navigate" && headers["sec-fetch-dest"] === "document";
  if (!isPage || !isNavigation) throw new CairnError("permission", "this server accepts no requests of other pages");
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 100));
}
