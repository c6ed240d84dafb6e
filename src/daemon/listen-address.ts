import { isIPv4 } from "node:net";
import { CairnError } from "../errors.ts";

/** Parses `HOST:PORT` or `[IPv6]:PORT`. Errors name the address `option`. Throws `usage`. */
export function parseListen(text: string, option: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port > 65_535)
    throw new CairnError("usage", `${option} must be HOST:PORT, found ${JSON.stringify(text)}`, {
      hint: "for example 127.0.0.1:8000, 0.0.0.0:8000 for every address of this machine, or [::1]:8000",
    });
  return { host, port };
}

/**
 * True for an address that only programs of this machine reach. A host name other than `localhost` may be any address.
 */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIPv4(host) && host.startsWith("127."));
}
