import { existsSync } from "node:fs";
import { CairnError } from "../errors.ts";
import type { BackendType, DaemonState, ServedWorkspace } from "../formats/records/daemon-state.ts";
import { rawPath } from "../formats/records/record.ts";
import { plural } from "../formats/sizes.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { isReleased, listWorkspaces } from "../workspace/place/control-directory.ts";
import { controlPaths } from "../workspace/place/control-layout.ts";
import { controlOf, listRegistered, unregister } from "../workspace/place/registry.ts";
import type { Decision, Probe } from "./decide-backend.ts";
import { entryOf } from "./state/kept-state.ts";
import { loopPlaces } from "./state/loop-image.ts";
import type { DaemonPlaces } from "./places.ts";

/** Entries of folders that have records on this machine and whose ids are not in `known`. */
export function registeredWorkspaces(known: ReadonlySet<string>, backend: BackendType): ServedWorkspace[] {
  return listRegistered().flatMap(({ registration }) => {
    if (registration === null || known.has(registration.workspace_id)) return [];
    const { workspace_id: id, registered_at } = registration;
    const control_directory = controlOf(registration);
    const facts = { id, registered_at, origin_backend: backend, control_directory };
    return [entryOf(registration, facts)];
  });
}

/**
 * Removes a workspace from the registry if its own record says that it was released, by root or by a call that was
 * killed. False if it was not released, or if its records cannot be read now.
 */
export function dropReleased(served: ServedWorkspace): boolean {
  try {
    const listed = listWorkspaces(controlPaths(served.control_directory));
    if (!listed.some(({ workspace }) => workspace?.id === served.id && isReleased(workspace))) return false;
  } catch {
    return false;
  }
  unregister(Buffer.from(rawPath(served)));
  return true;
}

/**
 * Throws `unsupported` if the backend of the state or the configuration cannot be served. No other backend takes its
 * place. The message names the affected workspaces.
 */
export function requireServable(
  decision: Decision,
  state: DaemonState | null,
  { places, probe }: { places: DaemonPlaces; probe: Probe },
): void {
  const problem = whyNotServed(decision, state, { places, probe });
  if (problem === null) return;
  const affected = (state?.workspaces ?? []).filter(({ origin_backend: origin }) => origin === decision.type);
  const lines = affected.map(
    (each) => `  ${each.id.slice(0, 8)}  ${printablePath(each.link ?? rawPath(each))}: ${plural(each.points, "point")}`,
  );
  const whole = [
    `cannot use the backend ${decision.type}: ${problem.what}`,
    `${decision.method === "config-override" ? "backend.type is set in" : "backend.type is not set in"} ${places.config}; state ${places.state}/state.json`,
    affected.length === 0 ? "no workspace is affected" : `affected: ${plural(affected.length, "workspace")}`,
    ...lines,
  ];
  throw new CairnError("unsupported", whole.join("\n"), {
    hint: `${problem.help}; nothing was changed, detected or made anew`,
    details: {
      backend: decision.type,
      workspaces: affected.map(({ id, link, path, points }) => ({ id, path: link ?? path, points })),
    },
  });
}

function whyNotServed(
  { type, dataRoot }: Decision,
  state: DaemonState | null,
  { places, probe: { kind, uuid } }: { places: DaemonPlaces; probe: Probe },
): { what: string; help: string } | null {
  if (type === "plain") return null;
  // The image is not mounted yet.
  if (type === "btrfs-loop" && (dataRoot === null || kind !== "btrfs")) return whyNoImage(state, places);
  if (dataRoot === null)
    return { what: "backend.data_root is not set", help: "name the folder on btrfs that holds the workspaces" };
  const wanted = state?.backend.type === type ? state.backend.filesystem_uuid : null;
  if (uuid === null)
    return {
      what: `${dataRoot} does not exist, or its file system has no UUID`,
      help: `mount the file system${wanted === null ? "" : ` ${wanted}`} there and start again`,
    };
  if (kind !== "btrfs")
    return {
      what: `${dataRoot} lies on ${kind}`,
      help: `mount the btrfs${wanted === null ? "" : ` ${wanted}`} there and start again`,
    };
  if (wanted !== null && uuid !== wanted)
    return {
      what: `${dataRoot} lies on the file system ${uuid}, but the workspaces lie on ${wanted}`,
      help: `mount ${wanted} there and start again`,
    };
  return null;
}

/** An image of a state is never made anew, even if the state does not name its path: it has the only copy of its workspaces. */
function whyNoImage(state: DaemonState | null, places: DaemonPlaces): { what: string; help: string } | null {
  if (process.geteuid?.() !== 0) return { what: "only root can mount an image", help: "run the daemon as root" };
  const known = state?.paths.loop_image ?? null;
  const path = loopPlaces(places.state, known).image;
  if (existsSync(path) || (known === null && state?.backend.type !== "btrfs-loop")) return null;
  const unnamed = known === null ? ", and the state names no other" : "";
  return {
    what: `its image ${path} is missing${unnamed}`,
    help: "put the image back in its place and start the daemon again",
  };
}

/** The error for a state that cannot be read. A person decides, because detection may choose another backend. */
export function stateIsLost(lost: readonly string[], image: string): CairnError {
  const records = listRegistered().length;
  const traces = [
    ...(existsSync(image) ? [`the image ${image}`] : []),
    ...(records > 0 ? [`records of ${plural(records, "folder")}`] : []),
  ];
  const found = traces.length === 0 ? "no image and no records of folders" : traces.join(" and ");
  return new CairnError("damaged", `the state cannot be read (${lost.join(", ")}); found on this machine: ${found}`, {
    hint: "put one of these files back from a copy, or start once with `cairn daemon --rebuild-state`: then the backend is taken from the configuration or detected, and folders with records are listed",
  });
}

/** Throws `unsupported` if registered folders lie below the image's mount: a new image would hide that theirs is missing. */
export function requireNoneBelow(mount: string, { config }: DaemonPlaces): void {
  const below = listRegistered().filter(({ registration }) => registration?.path.startsWith(`${mount}/`) === true);
  if (below.length === 0) return;
  throw new CairnError(
    "unsupported",
    `the image of ${mount} is missing, and ${plural(below.length, "folder")} lie on it`,
    {
      hint: `put the image back in its place and start the daemon again; no new image was made (backend.type in ${config})`,
    },
  );
}
