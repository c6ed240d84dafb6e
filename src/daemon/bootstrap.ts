import { existsSync } from "node:fs";
import { CairnError, toCairnError } from "../errors.ts";
import type { LoopImage } from "../formats/records/daemon-state.ts";
import { failpoint } from "../failpoint.ts";
import type { DaemonConfig } from "./config.ts";
import { type Decision, decideBackend, probeDataRoot, stateOf } from "./decide-backend.ts";
import type { KeptState } from "./state/kept-state.ts";
import { loopPlaces, mountImage } from "./state/loop-image.ts";
import { type OldLoop, oldLoop } from "./ws-ckpt/old-loop.ts";
import type { DaemonPlaces } from "./places.ts";
import { requireNoneBelow, requireServable, stateIsLost } from "./reconcile.ts";

export { type Instance, takeInstance } from "./instance.ts";

export interface BootstrapOptions {
  config: DaemonConfig;
  places: DaemonPlaces;
  /** True: a state that cannot be read is replaced by a new state. */
  rebuildState?: boolean | undefined;
  log: (message: string) => void;
}

/**
 * Reads the state, decides the backend, mounts the image that the backend needs and saves the state. Throws if the
 * backend cannot be served; nothing is made or changed then.
 */
export function bootstrap(kept: KeptState, { config, places, rebuildState = false, log }: BootstrapOptions): Decision {
  const { state, notes, lost } = kept.load();
  const { image: ownImage } = loopPlaces(places.state);
  if (lost.length > 0 && config.backend.type === null && !rebuildState) throw stateIsLost(lost, ownImage);
  const givenUp = lost.length > 0 ? kept.giveUp() : [];
  for (const note of [...notes, ...givenUp]) log(note);
  const type = config.backend.type ?? state?.backend.type;
  // The data root of another backend is another folder.
  const root = type === state?.backend.type ? (state?.paths.data_root ?? null) : null;
  const asked = probeDataRoot(config.backend.data_root ?? root);
  const known = state?.paths.loop_image ?? null;
  const isFirst = known === null && state?.backend.type !== "btrfs-loop" && !existsSync(ownImage);
  const old = isFirst ? oldLoop(config, places) : null;
  const decision = decideBackend(config, state, asked, old?.image.path ?? null);
  log(`backend ${decision.type} (${decision.method}): ${decision.reason}`);
  if (decision.warning !== null) log(decision.warning);
  requireServable(decision, state, { places, probe: asked });
  const made = known?.mount === undefined ? (old?.image ?? null) : known;
  const taken = made === null ? null : mountOld(made, decision, { old, config, places, log });
  if (decision.type !== "btrfs-loop") {
    const begun = stateOf(decision, state, asked);
    kept.begin({ ...begun, paths: { ...begun.paths, loop_image: taken ?? known } });
    failpoint("daemon.decided");
    return decision;
  }
  const { mount } = loopPlaces(places.state, taken);
  if (isFirst && taken === null) requireNoneBelow(mount, places);
  const image = taken ?? mountImage(places.state, known, config);
  const onImage = { ...decision, dataRoot: mount };
  requireServable(onImage, state, { places, probe: probeDataRoot(mount) });
  const begun = stateOf(onImage, state, probeDataRoot(mount));
  kept.begin({ ...begun, paths: { ...begun.paths, loop_image: image } });
  failpoint("daemon.decided");
  return onImage;
}

/**
 * Mounts an image of ws-ckpt at the image's old mount point, whatever the backend: links of users lead there. Throws
 * `unsupported` if it is the backend's own image; for another backend a failure is only logged, and the answer is null.
 */
function mountOld(
  image: LoopImage,
  { type }: Decision,
  { old, config, places, log }: Pick<BootstrapOptions, "config" | "places" | "log"> & { old: OldLoop | null },
): LoopImage | null {
  try {
    return mountImage(places.state, image, config);
  } catch (error) {
    const { message, hint } = toCairnError(error);
    const workspaces =
      old === null || old.workspaces.length === 0 ? "" : `\naffected:\n  ${old.workspaces.join("\n  ")}`;
    const whole = `the image ${image.path}, which ws-ckpt made, is not mounted at ${image.mount}: ${message}${workspaces}`;
    if (type === "btrfs-loop")
      throw new CairnError("unsupported", whole, {
        hint: `nothing was changed; ${hint ?? "mount the image by hand to see why"}; to begin without it, name another folder in migrate.state of ${places.config}`,
        cause: error,
      });
    log(whole);
    return null;
  }
}
