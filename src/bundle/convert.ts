import { advice, CairnError, call, option, word } from "../errors.ts";
import type { JsonObject } from "../formats/fields.ts";
import { isObject, type Layout, OLD_SCOPES } from "../formats/ovpack/manifest.ts";
import { checkMemberPath } from "../formats/ovpack/member-path.ts";
import type { IndexRecord } from "../formats/ovpack/records.ts";
import type { Bundle, BundleCall } from "./bundle.ts";
import { type EntryToPack, type Vectors, writeBundle } from "./write.ts";

export interface ConvertOptions extends BundleCall {
  to: string;
  layout: Layout;
  withoutVectors?: boolean | undefined;
  /** Paths to leave out of the new bundle, with everything below them. */
  leaveOut?: readonly string[] | undefined;
  /** User who gets the sessions of `viking://session`, as in OpenViking since 0.4. */
  sessionsTo?: string | undefined;
}

type Root = JsonObject & { name: string; uri: string; scope: string };

/** Writes the content of a bundle in another layout after a full check; keeps unknown members. */
export async function convertBundle(
  bundle: Bundle,
  { to, layout, withoutVectors = false, leaveOut = [], sessionsTo, ...options }: ConvertOptions,
): Promise<Awaited<ReturnType<typeof writeBundle>>> {
  await bundle.verify({ signal: options.signal });
  const { value, files, dense } = bundle.manifest;
  const { entries: all, vectors: _, index: __, ...facts } = value;
  const sizes = new Map(files.map((file) => [file.path, file]));
  const left = new Set(leaveOut.map((path) => path.replace(/\/+$/, "")));
  for (const path of left)
    if (path === "" || !(all as JsonObject[]).some((entry) => entry["path"] === path))
      throw new CairnError("not_found", `there is no ${JSON.stringify(path)} in the bundle to leave out`, {
        hint: advice`${call("bundle inspect FILE", "inspectBundle", word("path"))} lists the paths of a bundle`,
      });
  if (layout === "C") for (const scope of emptyScopes(facts, all as JsonObject[])) left.add(scope);
  const isLeft = (path: string): boolean => [...left].some((each) => path === each || path.startsWith(`${each}/`));
  const entries = (all as JsonObject[]).flatMap((entry): EntryToPack[] => {
    const path = entry["path"] as string;
    const file = sizes.get(path);
    const from = file === undefined ? {} : { file: { size: file.size, read: () => bundle.read(file) } };
    return isLeft(path) ? [] : [{ path, more: entry, ...from }];
  });
  const root = facts["root"] as Root;
  const scopes = (facts["scopes"] as string[] | undefined)?.filter((scope) => !isLeft(scope));
  const kept = { manifest: { ...facts, root, ...(scopes === undefined ? {} : { scopes }) }, entries };
  const { place, ...moved } = sessionsTo === undefined ? { ...kept, place: asItIs } : withSessionsOf(sessionsTo, kept);
  const embedding = (value["index"] as { dense?: { embedding?: unknown } } | undefined)?.dense?.embedding;
  const vectors: Vectors | null =
    dense === null || withoutVectors
      ? null
      : { ...dense, embedding: isObject(embedding) ? embedding : {}, read: () => bundle.dense() };
  if (vectors !== null && left.size > 0 && leaveOut.length > 0)
    throw new CairnError("unsupported", "vectors are packed for all records of a bundle or for none", {
      hint: advice`leave out the vectors too: ${option("withoutVectors")}`,
    });
  const records = async function* (): AsyncGenerator<IndexRecord> {
    for await (const { vector, ...record } of bundle.records())
      if (!isLeft(record.path)) yield { ...record, path: place(record.path), ...(vectors === null ? {} : { vector }) };
  };
  return await writeBundle(to, { layout, ...moved, records, vectors }, options);
}

function asItIs(path: string): string {
  return path;
}

/** Scopes of a backup that OpenViking no longer has, if they are empty. */
function emptyScopes(facts: JsonObject, entries: readonly JsonObject[]): string[] {
  if ((facts["root"] as Root).scope !== "root") return [];
  const isEmpty = (scope: string): boolean => !entries.some(({ path }) => (path as string).startsWith(`${scope}/`));
  return entries.map(({ path }) => path as string).filter((path) => OLD_SCOPES.has(path) && isEmpty(path));
}

interface Content {
  manifest: JsonObject & { root: Root; scopes?: string[] };
  entries: EntryToPack[];
}

const SCHEME = "viking://";

/** The content with `viking://session/ID` as `viking://user/USER/sessions/ID`. Throws `conflict` if a session exists already. */
function withSessionsOf(user: string, { manifest, entries }: Content): Content & { place: (path: string) => string } {
  checkMemberPath(user);
  if (user.includes("/")) throw new CairnError("usage", `${JSON.stringify(user)} is not a user name`);
  const target = `user/${user}/sessions`;
  const moved = (path: string): string => path.replace(/^session(?=\/|$)/, target);
  const from = manifest.root.uri.slice(SCHEME.length).replace(/\/+$/, "");
  const root = moved(from);
  if (from !== "") {
    const name = root.slice(root.lastIndexOf("/") + 1);
    const own = { ...manifest.root, name, uri: SCHEME + root, scope: root.split("/", 1)[0]! };
    return { manifest: { ...manifest, root: own }, entries, place: asItIs };
  }
  const there = new Map(entries.map((entry) => [entry.path, entry]));
  for (const entry of entries) {
    const path = moved(entry.path);
    if (path === entry.path) continue;
    there.delete(entry.path);
    if (path !== target && there.has(path))
      throw new CairnError("conflict", `the bundle has ${path} already`, { details: { path } });
    there.set(path, { ...entry, path, more: { ...entry.more, path } });
    for (const above of ["user", `user/${user}`]) if (!there.has(above)) there.set(above, { path: above });
  }
  const scopes = [...new Set((manifest.scopes ?? []).map((scope) => (scope === "session" ? "user" : scope)))];
  return { manifest: { ...manifest, scopes }, entries: [...there.values()], place: moved };
}
