import { CairnError } from "../../errors.ts";

/** Refuses paths in a bundle with which a program could unpack a file outside its folder. */

const DRIVE = /^[A-Za-z]:/;
// oxlint-disable-next-line no-control-regex -- the pattern finds control characters
const CONTROL = /[\u0000-\u001f\u007f]/;
const MOST_BYTES = 4096;
const MOST_NAMES = 256;

export function isSha256(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-fA-F]{64}$/.test(value);
}

/** Throws `damaged` for a path that leads out of its root, or that programs may read differently. */
export function checkMemberPath(path: string, details: Record<string, unknown> = { path }): void {
  const why = whyUnsafe(path);
  if (why !== null)
    throw new CairnError("damaged", `the path ${JSON.stringify(path.slice(0, 200))} ${why}`, { details });
}

function whyUnsafe(path: string): string | null {
  if (path === "") return "is empty";
  if (Buffer.byteLength(path) > MOST_BYTES) return "is too long";
  if (!path.isWellFormed()) return "is not valid Unicode";
  if (path.includes("\\")) return "has a backslash";
  if (path.startsWith("/")) return "is absolute";
  if (DRIVE.test(path)) return "begins with a drive letter";
  if (CONTROL.test(path)) return "has a control character";
  const names = path.split("/");
  if (names.some((name) => name === ".." || name === ".")) return "has . or .. in it";
  if (names.length > MOST_NAMES) return `has more than ${MOST_NAMES} names`;
  if (names.includes("")) return "has an empty name in it";
  if (names.some((name) => Buffer.byteLength(name) > 255)) return "has a name of more than 255 bytes";
  return null;
}

/** Returns the member of layout A for a path: a leading dot of a name becomes `_._`. */
export function toLayoutA(path: string): string {
  return path
    .split("/")
    .map((name) => (name.startsWith(".") ? `_._${name.slice(1)}` : name))
    .join("/");
}

/** Returns the path for a member of layout A. */
export function fromLayoutA(path: string): string {
  return path
    .split("/")
    .map((name) => (name.startsWith("_._") ? `.${name.slice(3)}` : name))
    .join("/");
}
