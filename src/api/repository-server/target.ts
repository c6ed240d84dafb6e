import { CairnError } from "../../errors.ts";
import { FILE_KINDS, isFileName, type FileKind } from "../../repository/storage/storage.ts";

/** The object of a request: a repository, one of its lists, or one of its files. */
export interface Target {
  /** Names of folders below the served folder; empty for the served folder itself. */
  readonly repository: readonly string[];
  readonly kind: FileKind | null;
  /** Null: the whole kind. */
  readonly name: string | null;
  readonly query: string;
}

const MAX_DEPTH = 8;
const KINDS: ReadonlySet<string> = new Set(FILE_KINDS);

/**
 * Parses the address in a request's first line: `/name/…/`, then nothing, `config`, `kind/` or `kind/name`. Throws
 * `usage` for a path with unsafe parts, `not_found` for a name that no file of the kind can have.
 */
export function parseTarget(address: string): Target {
  const [path = "", query = "", ...more] = address.split("?");
  if (!/^\/[\u0021-\u007e]*$/.test(path) || more.length > 0)
    throw new CairnError("usage", "the request's path is invalid");
  const parts = path.slice(1).split("/");
  const last = parts.pop() ?? "";
  if (last === "config") return { repository: repositoryOf(parts), kind: "config", name: "config", query };
  const kind = parts.at(-1);
  if (kind !== undefined && isFolderKind(kind)) {
    if (last !== "" && !isFileName(kind, last)) throw new CairnError("not_found", `no file of ${kind} has such a name`);
    return { repository: repositoryOf(parts.slice(0, -1)), kind, name: last === "" ? null : last, query };
  }
  // restic leaves the last slash out if its address had none.
  const repository = last === "" ? parts : [...parts, last];
  return { repository: repositoryOf(repository), kind: null, name: null, query };
}

function isFolderKind(text: string): text is Exclude<FileKind, "config"> {
  return text !== "config" && KINDS.has(text);
}

function repositoryOf(parts: readonly string[]): string[] {
  if (parts.length > MAX_DEPTH) throw new CairnError("usage", `a repository's path has at most ${MAX_DEPTH} parts`);
  return parts.map(decodePart);
}

/** Decodes the name of a folder. Refuses a name that could be another path, or a file of Cairn or of a repository. */
function decodePart(raw: string): string {
  const wrong = (why: string): CairnError => new CairnError("usage", `a part of the repository's path ${why}`);
  let name: string;
  try {
    name = decodeURIComponent(raw);
  } catch {
    throw wrong("is not percent-encoded UTF-8");
  }
  if (name === "") throw wrong("is empty");
  if (Buffer.byteLength(name) > 200) throw wrong("is longer than 200 bytes");
  if (/[\u0000-\u001f\u007f-\u009f/\\]/.test(name)) throw wrong("has a slash, a backslash or a control character");
  if (name.startsWith(".")) throw wrong("begins with a dot");
  if (name.trim() !== name) throw wrong("begins or ends with a blank");
  if (KINDS.has(name)) throw wrong(`is called ${name}, which is the name of a part of a repository`);
  return name;
}
