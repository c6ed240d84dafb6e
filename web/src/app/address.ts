/** Addresses of the views, kept in the URL's fragment, which a browser does not send to the server. */

/** A path inside a workspace: as text, and if it is not UTF-8 also its bytes in base64. */
export interface PathRef {
  path: string;
  path_b64?: string | undefined;
}

/** A part of the activity to which an address can lead. */
export type ActivityPart = "cleanup" | "backups" | "receipts";

export type Route =
  | { view: "workspaces" }
  /** `backups`, `undo`: backups and undo points are shown too. */
  | {
      view: "timeline";
      workspace: string;
      q?: string | undefined;
      backups?: boolean | undefined;
      undo?: boolean | undefined;
    }
  | { view: "point"; workspace: string; point: string; to?: string | undefined; file?: PathRef | undefined }
  | { view: "files"; workspace: string; point: string; at: PathRef; sort?: string | undefined }
  | { view: "file-history"; workspace: string; at: PathRef; a?: string | undefined; b?: string | undefined }
  /**
   * `turn`: the id of an agent's turn, before which the rewind goes back; `point` is the state before it. `back`: the
   * restore takes back changes that were shown.
   */
  | {
      view: "restore";
      workspace: string;
      point: string;
      paths: readonly PathRef[];
      turn?: string | undefined;
      back?: boolean | undefined;
    }
  | { view: "search"; workspace: string; q: string }
  /** `part`: the part of the view that is scrolled into view. */
  | { view: "activity"; workspace: string; part?: ActivityPart | undefined }
  | { view: "forks"; workspace: string }
  /** `fork`: the path of its folder. `merges`: this folder keeps its own changes. */
  | { view: "adopt"; workspace: string; fork: string; merges: boolean };
export type View = Route["view"];

/** True for `backup:SNAPSHOT`, a state in the repository that is kept for the workspace. */
export function isBackup(state: string): boolean {
  return state.startsWith("backup:");
}

/** True for the absolute path of a fork's folder. */
export function isFork(state: string): boolean {
  return state.startsWith("/");
}

/** The snapshot that `backup:SNAPSHOT` names. */
export function snapshotOf(backup: string): string {
  return backup.slice("backup:".length);
}

/** Shortens the id of a point, or of the snapshot in `backup:SNAPSHOT`, or a fork's path. */
export function shortState(state: string): string {
  if (isFork(state)) return nameOf(state);
  return isBackup(state) ? `backup:${snapshotOf(state).slice(0, 8)}` : state.slice(0, 8);
}

/** The last name of a path. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1) || path;
}

const RAW = "b64:";
const SLASH = 0x2f;
export function toText({ path, path_b64 }: PathRef): string {
  if (path_b64 !== undefined) return `${RAW}${path_b64}`;
  // A name that begins with `b64:` is encoded too, so that it is not decoded as base64.
  return path.startsWith(RAW) ? `${RAW}${btoa(String.fromCharCode(...new TextEncoder().encode(path)))}` : path;
}

export function toRef(text: string): PathRef {
  if (!text.startsWith(RAW)) return { path: text };
  const path_b64 = text.slice(RAW.length);
  try {
    return { path: shown(bytesOf(path_b64)), path_b64 };
  } catch {
    // The text is not base64. The server reports that the path does not exist.
    return { path: text };
  }
}

/** Returns a path in the form that calls accept. */
export function toInput({ path, path_b64 }: PathRef): string | Uint8Array {
  return path_b64 === undefined ? path : bytesOf(path_b64);
}

export function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
}

/** Bytes as the API shows them: UTF-8, and `\xff` for each byte that is not UTF-8. */
function shown(bytes: Uint8Array): string {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  for (let at = 0; at < bytes.length;) {
    const length = [1, 2, 3, 4].find((each) => isText(decoder, bytes.subarray(at, at + each)));
    text +=
      length === undefined
        ? `\\x${bytes[at]!.toString(16).padStart(2, "0")}`
        : decoder.decode(bytes.subarray(at, at + length));
    at += length ?? 1;
  }
  return text;
}

function isText(decoder: InstanceType<typeof TextDecoder>, bytes: Uint8Array): boolean {
  try {
    return decoder.decode(bytes).length > 0;
  } catch {
    return false;
  }
}

/** Returns the parent folders of a path, from the topmost one, and the path itself. */
export function partsOf(at: PathRef): { name: string; at: PathRef }[] {
  if (at.path === "") return [];
  const { path_b64 } = at;
  if (path_b64 === undefined) {
    const names = at.path.split("/");
    return names.map((name, i) => ({ name, at: { path: names.slice(0, i + 1).join("/") } }));
  }
  const bytes = bytesOf(path_b64);
  const ends = [...bytes.keys()].filter((i) => bytes[i] === SLASH).concat(bytes.length);
  return ends.map((end, i) => {
    const start = i === 0 ? 0 : ends[i - 1]! + 1;
    return { name: shown(bytes.subarray(start, end)), at: refOfBytes(bytes.subarray(0, end)) };
  });
}

/** Returns the folders above a path, each as text. */
export function foldersOf(at: PathRef): string[] {
  return partsOf(at)
    .slice(0, -1)
    .map((each) => toText(each.at));
}

function refOfBytes(bytes: Uint8Array): PathRef {
  try {
    return { path: new TextDecoder("utf-8", { fatal: true }).decode(bytes) };
  } catch {
    return { path: shown(bytes), path_b64: btoa(String.fromCharCode(...bytes)) };
  }
}

/** The address of a view. */
export function href(to: Route): string {
  const query = new URLSearchParams();
  const set = (name: string, value: string | undefined): void => {
    if (value !== undefined && value !== "") query.set(name, value);
  };
  if (to.view !== "workspaces") set("w", to.workspace);
  switch (to.view) {
    case "timeline":
      set("q", to.q);
      set("backups", to.backups === true ? "1" : undefined);
      set("undo", to.undo === true ? "1" : undefined);
      break;
    case "search":
      set("q", to.q);
      break;
    case "point":
      set("p", to.point);
      set("to", to.to);
      set("file", to.file === undefined ? undefined : toText(to.file));
      break;
    case "files":
      set("p", to.point);
      set("at", toText(to.at));
      set("sort", to.sort);
      break;
    case "file-history":
      set("at", toText(to.at));
      set("a", to.a);
      set("b", to.b);
      break;
    case "restore":
      set("p", to.point);
      set("turn", to.turn);
      set("back", to.back === true ? "1" : undefined);
      for (const each of to.paths) query.append("path", toText(each));
      break;
    case "adopt":
      set("fork", to.fork);
      set("merges", to.merges ? "yes" : undefined);
      break;
    case "activity":
      set("part", to.part);
      break;
    case "forks":
    case "workspaces":
  }
  const text = query.toString();
  return `#/${to.view === "workspaces" ? "" : to.view}${text === "" ? "" : `?${text}`}`;
}

/** The view of an address. */
export function parse(hash: string): Route {
  const [view, text = ""] = hash.replace(/^#\/?/, "").split("?", 2) as [string, string?];
  const query = new URLSearchParams(text);
  const get = (name: string): string | undefined => query.get(name) ?? undefined;
  const ref = (name: string): PathRef | undefined => (query.has(name) ? toRef(query.get(name)!) : undefined);
  const workspace = get("w");
  if (workspace === undefined) return { view: "workspaces" };
  const point = get("p");
  const at = ref("at") ?? { path: "" };
  if (view === "activity") return { view, workspace, part: get("part") as ActivityPart | undefined };
  if (view === "forks") return { view, workspace };
  const fork = get("fork");
  if (view === "adopt" && fork !== undefined) return { view, workspace, fork, merges: get("merges") !== undefined };
  if (view === "search") return { view, workspace, q: get("q") ?? "" };
  if (view === "file-history") return { view, workspace, at, a: get("a"), b: get("b") };
  if (point !== undefined) {
    if (view === "point") return { view, workspace, point, to: get("to"), file: ref("file") };
    if (view === "files") return { view, workspace, point, at, sort: get("sort") };
    if (view === "restore")
      return {
        view,
        workspace,
        point,
        paths: query.getAll("path").map(toRef),
        turn: get("turn"),
        ...(query.has("back") ? { back: true } : {}),
      };
  }
  const shows = { ...(query.has("backups") ? { backups: true } : {}), ...(query.has("undo") ? { undo: true } : {}) };
  return { view: "timeline", workspace, q: get("q"), ...shows };
}
