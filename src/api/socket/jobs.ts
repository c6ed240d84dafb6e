import { createHash } from "node:crypto";
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import type { Job } from "../../contract/service.ts";
import type { Daemon } from "../../daemon/daemon.ts";
import type { EventPlace } from "../../daemon/records/kept-records.ts";
import { type Caller, keyOf } from "../../daemon/state/peer.ts";
import { CairnError } from "../../errors.ts";
import type { Body } from "../request.ts";
import type { Told } from "./calls.ts";
import { isChanging, isJob, type Options } from "../rights/capabilities.ts";
import { queryOf } from "./events.ts";

/** Jobs over HTTP: calls that became jobs, and `/v1/jobs`. */

export const JOBS = "/v1/jobs";
const JOB = /^\/v1\/jobs\/([0-9a-f]{1,64})$/;
const DEFAULT_PAGE = 100;
const MOST_PAGE = 1_000;

/** A call that becomes a job because of its headers. */
export interface JobRequest {
  name: string;
  body: Body;
  key: string | null;
  /** True: the caller does not wait for the job. */
  isAsync: boolean;
}

/**
 * Returns the job that a call asks for; null if it asks for none. A key counts only for calls that change something.
 * Throws `usage` for an invalid key.
 */
export function jobRequestOf(headers: IncomingHttpHeaders, name: string, body: Body): JobRequest | null {
  const { prefer = "", "idempotency-key": key } = headers;
  if (key !== undefined && !/^[\x20-\x7e]{1,128}$/.test(String(key)))
    throw new CairnError("usage", "an idempotency key has 1 to 128 characters of printable ASCII");
  const isAsync =
    isJob(name) &&
    String(prefer)
      .split(",")
      .some((each) => /^\s*respond-async\s*(?:;|$)/i.test(each));
  const counts = key !== undefined && isChanging(name, body["options"] as Options);
  return isAsync || counts ? { name, body, key: counts ? String(key) : null, isAsync } : null;
}

/**
 * Starts a job that runs `work`, or returns the job that has the same idempotency key. Calls `ended` once the job has
 * ended; `stopped` fires when the daemon stops waiting for it. Returns its id.
 */
export function beginJob(
  daemon: Daemon,
  peer: Caller,
  { name, body, key }: JobRequest,
  { work, ended, stopped }: { work: (told: Told) => Promise<unknown>; ended: () => void; stopped: AbortSignal },
): string {
  const { workspace: path, place } = placeOf(daemon, peer, body);
  const request = digestOf(peer, key, name, body);
  return daemon.jobs.begin(
    peer,
    { verb: name, path, place, key, request },
    async ({ signal, since, onBegin, ...listener }) => {
      return work({
        ...listener,
        onBegin,
        signal: AbortSignal.any([signal, stopped]),
        onItem: () => Promise.reject(new CairnError("usage", "a job cannot return its answer in pieces")),
        ...(key === null ? {} : { asked: { request, since } }),
      });
    },
    ended,
  );
}

/** Returns the folder of a call, and its workspace if the caller may act on it. `daemon` null: no workspace is looked for. */
export function placeOf(
  daemon: Daemon | null,
  peer: Caller,
  body: Body,
): { workspace: string | null; place: EventPlace | null } {
  const path = body["workspace"] ?? body["path"];
  const workspace = typeof path === "string" ? path.slice(0, 4096) : null;
  try {
    return { workspace, place: workspace === null ? null : (daemon?.at(peer, workspace) ?? null) };
  } catch {
    return { workspace, place: null };
  }
}

/** Digest of caller, key, verb and body; the order of members does not count. */
function digestOf(caller: Caller, key: string | null, name: string, body: Body): string {
  const ordered = JSON.stringify([keyOf(caller), key, name, body], (_name, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
  return createHash("sha256").update(ordered).digest("hex").slice(0, 32);
}

/** Answers requests about jobs; undefined for other requests. Throws `usage`, `not_found`. */
export async function answerOnJobs(
  daemon: Daemon,
  peer: Caller,
  { method, url = "" }: IncomingMessage,
): Promise<object | undefined> {
  const [path = ""] = url.split("?");
  const [, id] = JOB.exec(path) ?? [];
  if (path === JOBS && method === "GET") {
    const query = queryOf(url, ["after", "limit"]);
    const most = Number(query.get("limit") ?? DEFAULT_PAGE);
    if (!Number.isInteger(most) || most < 1 || most > MOST_PAGE)
      throw new CairnError("usage", `limit must be a whole number from 1 to ${MOST_PAGE}`);
    return daemon.jobs.list(peer, { after: query.get("after"), most });
  }
  if (id === undefined) return undefined;
  if (method === "GET") return daemon.jobs.find(peer, id) satisfies Job;
  return method === "DELETE" ? daemon.jobs.cancel(peer, id) : undefined;
}
