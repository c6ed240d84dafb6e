import { computed, signal } from "@preact/signals";

/** Addresses of the views. They lie in the fragment, so the server sees none of them. */

/** A path inside a workspace: as text, and its bytes in base64 where it is not UTF-8. */
export interface PathRef {
  path: string;
  path_b64?: string | undefined;
}

export type Route =
  | { view: "workspaces" }
  | { view: "timeline"; workspace: string; q?: string | undefined }
  | { view: "point"; workspace: string; point: string; to?: string | undefined; file?: PathRef | undefined }
  | { view: "files"; workspace: string; point: string; at: PathRef; sort?: string | undefined }
  | { view: "file-history"; workspace: string; at: PathRef; a?: string | undefined; b?: string | undefined }
  | { view: "restore"; workspace: string; point: string; paths: PathRef[] }
  | { view: "search"; workspace: string; q: string };
export type View = Route["view"];

const RAW = "b64:";
const address = signal(location.hash);
addEventListener("hashchange", () => (address.value = location.hash));

export const route = computed<Route>(() => parse(address.value));

export function toText({ path, path_b64 }: PathRef): string {
  return path_b64 === undefined ? path : `${RAW}${path_b64}`;
}

export function toRef(text: string): PathRef {
  if (!text.startsWith(RAW)) return { path: text };
  const path_b64 = text.slice(RAW.length);
  return { path: shown(path_b64), path_b64 };
}

/** A path as calls take it. */
export function toInput({ path, path_b64 }: PathRef): string | Uint8Array {
  return path_b64 === undefined ? path : bytesOf(path_b64);
}

export function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
}

function shown(base64: string): string {
  try {
    return new TextDecoder("utf-8").decode(bytesOf(base64));
  } catch {
    return base64;
  }
}

/** The path of an entry in a folder, as bytes where either is not UTF-8. */
export function below(folder: PathRef, name: string): PathRef {
  return { path: folder.path === "" ? name : `${folder.path}/${name}` };
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
      for (const each of to.paths) query.append("path", toText(each));
      break;
    case "workspaces":
  }
  const text = query.toString();
  return `#/${to.view === "workspaces" ? "" : to.view}${text === "" ? "" : `?${text}`}`;
}

export function go(to: Route, { replace = false } = {}): void {
  if (!replace) location.hash = href(to);
  else {
    history.replaceState(null, "", href(to));
    address.value = location.hash;
  }
}

function parse(hash: string): Route {
  const [view, text = ""] = hash.replace(/^#\/?/, "").split("?", 2) as [string, string?];
  const query = new URLSearchParams(text);
  const get = (name: string): string | undefined => query.get(name) ?? undefined;
  const ref = (name: string): PathRef | undefined => (query.has(name) ? toRef(query.get(name)!) : undefined);
  const workspace = get("w");
  if (workspace === undefined) return { view: "workspaces" };
  const point = get("p");
  const at = ref("at") ?? { path: "" };
  if (view === "search") return { view, workspace, q: get("q") ?? "" };
  if (view === "file-history") return { view, workspace, at, a: get("a"), b: get("b") };
  if (point !== undefined) {
    if (view === "point") return { view, workspace, point, to: get("to"), file: ref("file") };
    if (view === "files") return { view, workspace, point, at, sort: get("sort") };
    if (view === "restore") return { view, workspace, point, paths: query.getAll("path").map(toRef) };
  }
  return { view: "timeline", workspace, q: get("q") };
}
