import { CairnError } from "../errors.ts";
import { checkMemberPath } from "../formats/ovpack/member-path.ts";

/** Places of a context store: `viking://SCOPE/…`; inside the program their path without `viking://`, empty for the root. */

export const SCHEME = "viking://";
export const SCOPES = ["resources", "user", "agent", "session"] as const;

/** Scopes whose directories have a meaning by their depth and kind. */
const STRUCTURED: ReadonlySet<string> = new Set(["user", "agent", "session"]);
const KINDS: ReadonlySet<string> = new Set(["memories", "resources", "skills", "sessions"]);
const CONTEXT_TYPES: Readonly<Record<string, string>> = { memories: "memory", skills: "skill" };

/** Derived and control files, which are neither exported into a bundle nor imported. */
const CONTROL_NAMES: ReadonlySet<string> = new Set([
  ".relations.json",
  ".path.ovlock",
  ".redirect.json",
  ".sync_log.json",
]);
const LOCKS = ".exact.ovlock.";
const WATCHES = /^resources\/\.watch_tasks\.json(?:\.bak|\.tmp)?$/;

export function invalidUri(uri: string, why: string, details: Record<string, unknown> = {}): CairnError {
  return new CairnError("usage", `${JSON.stringify(uri.slice(0, 300))} ${why}`, {
    hint: `for example viking://resources/docs; scopes are ${SCOPES.join(", ")}`,
    details: { uri, reason: why, ...details },
  });
}

export function isScope(name: string): boolean {
  return (SCOPES as readonly string[]).includes(name);
}

export function noSuch(path: string): CairnError {
  return new CairnError("not_found", `there is no ${toUri(path)}`, { details: { resource: toUri(path) } });
}

/** The path of a URI. Throws `usage`. */
export function parseUri(uri: string): string {
  if (!uri.startsWith(SCHEME))
    throw invalidUri(uri, `is not a path of a context store: such a path begins with ${SCHEME}`);
  const path = uri.slice(SCHEME.length).replace(/\/+$/, "");
  if (path === "") return "";
  try {
    checkMemberPath(path);
  } catch (error) {
    throw invalidUri(uri, `is not a path of a context store: ${(error as Error).message}`);
  }
  if (!isScope(scopeOf(path))) throw invalidUri(uri, "names an unknown scope");
  return path;
}

export function toUri(path: string): string {
  return `${SCHEME}${path}`;
}

/** The scope of a path; empty for the root. */
export function scopeOf(path: string): string {
  return path.split("/", 1)[0]!;
}

export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

export function isWithin(path: string, root: string): boolean {
  return root === "" || path === root || path.startsWith(`${root}/`);
}

export function joined(root: string, below: string): string {
  if (root === "" || below === "") return root + below;
  return `${root}/${below}`;
}

/** Sessions are files only, without index rows. */
export function isSession(path: string): boolean {
  const [scope, , kind] = path.split("/");
  return scope === "session" || (scope === "user" && kind === "sessions");
}

/** The kind of directory around a path of a structured scope: the name below a user, or below an agent. */
function kindOf(path: string): string {
  const [scope, first = "", second = ""] = path.split("/");
  if (scope === "user") return second;
  return scope === "agent" && !KINDS.has(first) ? second : first;
}

/** The user who owns a place; empty if no user does. */
export function ownerOf(path: string, isDirectory: boolean): string {
  const [scope, user = "", below] = path.split("/");
  return scope === "user" && (isDirectory || below !== undefined) ? user : "";
}

export function contextTypeOf(path: string): string {
  return (STRUCTURED.has(scopeOf(path)) ? CONTEXT_TYPES[kindOf(path)] : undefined) ?? "resource";
}

export function isControlName(path: string): boolean {
  const name = nameOf(path);
  return CONTROL_NAMES.has(name) || name.startsWith(LOCKS) || WATCHES.test(path);
}

/** Throws `usage` if content of one place must not be put at the other: another scope, depth or kind. */
export function requireCompatible(source: string, target: string): void {
  const no = (why: string): never => {
    throw new CairnError("usage", `a bundle of ${toUri(source)} cannot become ${toUri(target)}: ${why}`, {
      hint: "import the bundle to its original path, or below a path of the same kind",
      details: { source: toUri(source), target: toUri(target) },
    });
  };
  const scope = scopeOf(source);
  if (!isScope(scope)) no(`the scope ${JSON.stringify(scope)} is not known`);
  if (scope !== scopeOf(target)) no("the scopes differ");
  if (!STRUCTURED.has(scope)) return;
  if (source.split("/").length !== target.split("/").length) no(`entries of ${toUri(scope)} must keep their depth`);
  if (scope !== "session" && kindOf(source) !== kindOf(target)) no("they are of different kinds");
}
