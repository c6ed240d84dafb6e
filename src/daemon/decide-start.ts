import { CairnError, type ErrorCode } from "../errors.ts";
import type { BackendType, DaemonState, LoopImage, SelectionMethod } from "../formats/records/daemon-state.ts";
import { rawPath } from "../formats/records/record.ts";
import { formatBytes, plural } from "../formats/sizes.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import type { ImageFacts, StartFacts } from "./start-facts.ts";
import { imageBytes, LEAST_IMAGE_BYTES, unfinishedImage } from "./state/loop-image.ts";

/** Step of a start for its image. `finish` renames an image that a killed start made and that the state already names. */
export type ImageStep = { step: "make"; bytes: number } | { step: "finish" | "mount"; known: LoopImage | null };

/** The backend of a start, and the reason for it. */
export interface Decision {
  word: "first start" | "go on" | "migrate";
  type: BackendType;
  method: SelectionMethod;
  dataRoot: string | null;
  /** UUID of the data root's file system. Null if the backend is `plain` or the image is still to be made. */
  uuid: string | null;
  reason: string;
  /** Sentences for the operator, or null. */
  warning: string | null;
  /** Null: no image is mounted. */
  image: ImageStep | null;
}

/** A start that makes, mounts and changes nothing. */
export interface Refusal {
  word: "refuse";
  because: CairnError;
}

interface Problem {
  what: string;
  help: string;
  code?: ErrorCode;
}

type Chosen = Pick<Decision, "type" | "method" | "reason" | "warning">;

/**
 * Decides about a start: it begins, goes on, takes over the data of ws-ckpt, or is refused. The configuration wins, then the
 * state. Without both the backend is detected. The answer depends only on the facts.
 */
export function decideStart(facts: StartFacts): Decision | Refusal {
  const { config, state, lost, traces, rebuild, image, isOldLeft } = facts;
  const isLost = isStateLost(facts);
  if (isLost && config.backend.type === null && !rebuild) return { word: "refuse", because: stateIsLost(facts) };
  const chosen = choose(facts);
  const problem = facts.closed ?? ("what" in chosen ? chosen : whyNotBegun(facts, chosen.type));
  if (problem !== null) return { word: "refuse", because: refusal(facts, chosen, problem) };
  const { type, warning, ...others } = chosen as Chosen;
  const isOfWsCkpt = image.known?.mount !== undefined;
  const mountProblem = type !== "btrfs-loop" && isOfWsCkpt ? whyNoImage(facts) : null;
  const warnings = [
    warning,
    mountProblem === null
      ? null
      : `${oldImageIsAway(image)}: ${mountProblem.what}${linesOf(affectedBy(facts, "btrfs-loop"))}`,
    state === null && type !== "btrfs-loop" && !isOfWsCkpt && image.file !== null
      ? `the image ${image.path} is not mounted: its folders are missing until backend.type is "btrfs-loop"`
      : null,
    state === null && facts.controls.length > 0
      ? `the file system of ${facts.dataRoot!.path} has points of ${plural(facts.controls.length, "folder")} of an earlier installation; \`cairn init DIR\` takes each folder up with its points`
      : null,
    facts.missingOld.length > 0 ? `${facts.missingOld.join(", ")}, named in [migrate], is missing` : null,
  ].filter((each) => each !== null);
  return {
    word: isOldLeft ? "migrate" : state === null && lost.length + traces.length === 0 ? "first start" : "go on",
    type,
    ...others,
    dataRoot: type === "plain" ? null : type === "btrfs-loop" ? image.mount : facts.dataRoot!.path,
    uuid: type === "plain" ? null : type === "btrfs-loop" ? (image.file?.uuid ?? null) : facts.dataRoot!.uuid,
    warning: warnings.length === 0 ? null : warnings.join("\n"),
    image: type === "btrfs-loop" || (isOfWsCkpt && mountProblem === null) ? stepOf(facts) : null,
  };
}

/** True if there was a state, and no generation of it can be read. */
function isStateLost({ state, lost, traces }: StartFacts): boolean {
  return state === null && lost.length + traces.length > 0;
}

function choose({ config, state, image, dataRoot, places }: StartFacts): Chosen | Problem {
  const configured = config.backend.type;
  const persisted = state?.backend ?? null;
  if (configured !== null) {
    const differs = persisted !== null && persisted.type !== configured;
    return {
      type: configured,
      method: "config-override",
      reason: `the configuration says backend.type = "${configured}"`,
      warning: differs
        ? `the daemon's state says ${persisted.type}, but the configuration says ${configured}, which is used from now on; workspaces of ${persisted.type} stay as they are`
        : null,
    };
  }
  if (persisted !== null)
    return {
      type: persisted.type,
      method: "persisted",
      reason: `the daemon's state says ${persisted.type} since ${persisted.selected_at}`,
      warning: null,
    };
  const detected = { method: "auto-detect", warning: null } as const;
  const isOwn = image.old === null && image.file !== null;
  if (isOwn && dataRoot !== null)
    return {
      what: `the image ${image.path} and backend.data_root = ${JSON.stringify(dataRoot.path)} are two possible backends`,
      help: `set backend.type to "btrfs-loop" or "btrfs-base" in ${places.config}`,
    };
  if (isOwn) return { ...detected, type: "btrfs-loop", reason: `the image ${image.path} lies beside the state` };
  if (image.old !== null) return { ...detected, type: "btrfs-loop", reason: `ws-ckpt left its image ${image.path}` };
  if (dataRoot === null) return { ...detected, type: "plain", reason: "no backend and no data_root are configured" };
  if (dataRoot.kind === "btrfs") return { ...detected, type: "btrfs-base", reason: `${dataRoot.path} lies on btrfs` };
  // Its disk may not be mounted yet, and the first choice stays.
  return {
    what: dataRoot.isFolder
      ? `backend.data_root ${dataRoot.path} lies on ${dataRoot.kind}, not on btrfs`
      : `backend.data_root ${dataRoot.path} is not a folder`,
    help: `mount its btrfs; to serve folders without btrfs, set backend.type = "plain" in ${places.config}`,
  };
}

function whyNotBegun(facts: StartFacts, type: BackendType): Problem | null {
  const { missingOld, state, image } = facts;
  // ws-ckpt's files may go once they were taken over.
  if (missingOld.length > 0 && state?.migrated === undefined && image.known?.mount === undefined)
    return {
      what: `${missingOld.join(", ")} does not exist, and [migrate] names it`,
      help: "correct the path, or remove the key",
    };
  if (type === "plain") return null;
  return type === "btrfs-loop" ? whyNoImage(facts) : whyNoDataRoot(facts);
}

/** The UUID that the file system of the backend must have; null if the state knows none. */
function wantedUuid({ state }: StartFacts, type: BackendType): string | null {
  return state?.backend.type === type ? state.backend.filesystem_uuid : null;
}

function whyNoDataRoot(facts: StartFacts): Problem | null {
  const { dataRoot } = facts;
  if (dataRoot === null)
    return { what: "backend.data_root is not set", help: "name the folder on btrfs that holds the workspaces" };
  const { path, kind, uuid } = dataRoot;
  const wanted = wantedUuid(facts, "btrfs-base");
  const help = `mount the file system${wanted === null ? "" : ` ${wanted}`} there and start again`;
  if (!dataRoot.isFolder) return { what: `${path} does not exist, or is not a folder`, help };
  if (kind !== "btrfs") return { what: `${path} lies on ${kind}`, help };
  if (uuid === null) return { what: `the file system of ${path} has no UUID`, help };
  if (wanted !== null && uuid !== wanted)
    return { what: `${path} lies on the file system ${uuid}, but the workspaces lie on ${wanted}`, help };
  return null;
}

/**
 * An image of a state is never made anew, even if the state does not name its path: it has the only copy of its
 * workspaces. Another image in its place is not mounted.
 */
function whyNoImage(facts: StartFacts): Problem | null {
  const { isRoot, missingPrograms, image, places, rebuild, foldersOnImage, disk } = facts;
  const { path, mount, file, mounted } = image;
  const step = stepOf(facts);
  if (!isRoot) return { what: "only root can mount an image", help: "run the daemon as root" };
  if (missingPrograms.length > 0)
    return {
      what: `${missingPrograms.join(", ")} ${missingPrograms.length === 1 ? "is" : "are"} not installed`,
      help: "btrfs-loop needs btrfs-progs and util-linux",
    };
  if (mounted !== null && mounted !== path && mounted !== unfinishedImage(places.state))
    return { what: `${mount} is already a mount of ${mounted}, not of ${path}`, help: "unmount it and start again" };
  if (step.step === "finish") return null;
  const back = "put the image back in its place and start the daemon again";
  if (file !== null) {
    const wanted = wantedUuid(facts, "btrfs-loop");
    if (file.uuid === null) return { what: `its image ${path} is not a btrfs`, help: back };
    if (wanted === null || file.uuid === wanted) return null;
    return { what: `${path} is the image ${file.uuid}, but the workspaces lie on the image ${wanted}`, help: back };
  }
  if (step.step !== "make") {
    const unnamed = image.known === null ? ", and the state names no other" : "";
    return { what: `its image ${path} is missing${unnamed}`, help: back };
  }
  if (foldersOnImage > 0)
    return { what: `its image ${path} is missing, and ${plural(foldersOnImage, "folder")} lie on it`, help: back };
  if (isStateLost(facts) && !rebuild)
    return {
      what: `its image ${path} is missing, and the state, which would name it, is lost`,
      help: `${back}; to begin with a new image, start once with \`cairn daemon --rebuild-state\``,
    };
  const { bytes } = step;
  if (bytes >= LEAST_IMAGE_BYTES) return null;
  return {
    code: "no_space",
    what: `an image of ${formatBytes(bytes)} is too small for btrfs, which needs ${formatBytes(LEAST_IMAGE_BYTES)}; loop.size, loop.percent_of_disk and four fifths of the free space (${formatBytes(disk.freeBytes)}) allow no more`,
    help: "name a larger loop.size, or make room",
  };
}

function stepOf(facts: StartFacts): ImageStep {
  const { image, config, disk, state } = facts;
  const { file, known, unfinished } = image;
  const isOfState = known !== null || state?.backend.type === "btrfs-loop";
  if (file === null && unfinished !== null && unfinished === wantedUuid(facts, "btrfs-loop"))
    return { step: "finish", known };
  if (file !== null || isOfState) return { step: "mount", known };
  return { step: "make", bytes: imageBytes(config, disk, 0) };
}

/** The error for a state that cannot be read. A person decides, because detection may choose another backend. */
function stateIsLost({ lost, traces, places }: StartFacts): CairnError {
  const found = traces.length === 0 ? "no image and no records of folders" : traces.join(" and ");
  const what =
    lost.length > 0
      ? `the state cannot be read (${lost.join(", ")})`
      : `the state ${places.state}/state.json is missing, and so is the generation before it`;
  return new CairnError("damaged", `${what}; found on this machine: ${found}`, {
    hint: "put one of these files back from a copy, or start once with `cairn daemon --rebuild-state`: then the backend is taken from the configuration or detected, and folders with records are listed",
  });
}

function oldImageIsAway({ path, mount }: ImageFacts): string {
  return `the image ${path}, which ws-ckpt made, is not mounted at ${mount}`;
}

/** Lines about the workspaces that need a backend: those of the state, and those that ws-ckpt left. */
function affectedBy({ state, image }: StartFacts, type: BackendType): string[] {
  const served = (state?.workspaces ?? []).filter(({ origin_backend: origin }) => origin === type);
  return [
    ...served.map(
      (each) =>
        `${each.id.slice(0, 8)}  ${printablePath(each.link ?? rawPath(each))}: ${plural(each.points, "point")} at the last count`,
    ),
    ...(type === "btrfs-loop" ? (image.old?.workspaces ?? []) : []),
  ];
}

function linesOf(affected: readonly string[]): string {
  const count = `affected: ${plural(affected.length, "workspace")}`;
  return affected.length === 0 ? "\nno workspace is affected" : ["", count, ...affected].join("\n  ");
}

/** The error for a start that is refused, with the workspaces that it affects. */
export function refusal(facts: StartFacts, chosen: Chosen | Problem, { code, what, help }: Problem): CairnError {
  const { state, places, config, image } = facts;
  const type = "type" in chosen ? chosen.type : null;
  const isAway = type === "btrfs-loop" && image.old !== null;
  const whole = [
    `${type === null ? "cannot choose a backend" : `cannot use the backend ${type}`}: ${isAway ? `${oldImageIsAway(image)}: ` : ""}${what}`,
    `backend.type is ${config.backend.type === null ? "not " : ""}set in ${places.config}; state ${places.state}/state.json`,
  ].join("\n");
  const without = isAway ? `; to begin without it, name another folder in migrate.state of ${places.config}` : "";
  return new CairnError(code ?? "unsupported", whole + linesOf(type === null ? [] : affectedBy(facts, type)), {
    hint: `${help}${without}; nothing was changed, detected or made anew`,
    details: {
      backend: type,
      workspaces: (state?.workspaces ?? [])
        .filter(({ origin_backend: origin }) => origin === type)
        .map(({ id, link, path, points }) => ({ id, path: link ?? path, points })),
    },
  });
}

/** Returns the previous state with the backend of the decision. `image`: the mounted image; null if there is none. */
export function stateOf(
  { type, method, dataRoot, uuid }: Pick<Decision, "type" | "method" | "dataRoot" | "uuid">,
  before: DaemonState | null,
  image: LoopImage | null,
): DaemonState {
  const isKept = before?.backend.type === type;
  const backend = {
    type,
    selection_method: method,
    selected_at: isKept ? before.backend.selected_at : new Date().toISOString(),
    filesystem_uuid: (isKept ? before.backend.filesystem_uuid : null) ?? uuid,
  };
  return {
    ...before,
    backend: { ...before?.backend, ...backend },
    paths: { ...before?.paths, loop_image: image ?? before?.paths.loop_image ?? null, data_root: dataRoot },
    workspaces: before?.workspaces ?? [],
    schedules: before?.schedules ?? {},
  };
}
