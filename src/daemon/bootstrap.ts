import { existsSync } from "node:fs";
import { failpoint } from "../failpoint.ts";
import type { DaemonConfig } from "./config.ts";
import { type Decision, decideBackend, probeDataRoot, stateOf } from "./decide-backend.ts";
import type { KeptState } from "./kept-state.ts";
import { loopPlaces, mountImage } from "./loop-image.ts";
import type { DaemonPlaces } from "./places.ts";
import { requireNoneBelow, requireNothingLost, requireServable } from "./reconcile.ts";

export { type Instance, takeInstance } from "./instance.ts";

/**
 * Reads the state, decides the backend, mounts what it needs and saves the state. Throws where something cannot be served, and
 * has made and changed nothing then.
 */
export function bootstrap(
  kept: KeptState,
  { config, places, log }: { config: DaemonConfig; places: DaemonPlaces; log: (message: string) => void },
): Decision {
  const { state, notes, isRebuilt } = kept.load();
  for (const note of notes) log(note);
  const isLost = state === null && isRebuilt;
  const { image: ownImage } = loopPlaces(places.state);
  if (isLost && config.backend.type === null) requireNothingLost(places, ownImage);
  const type = config.backend.type ?? state?.backend.type;
  // Of another backend it is another place.
  const root = type === state?.backend.type ? (state?.paths.data_root ?? null) : null;
  const asked = probeDataRoot(config.backend.data_root ?? root);
  const decision = decideBackend(config, state, asked);
  log(`backend ${decision.type} (${decision.method}): ${decision.reason}`);
  if (decision.warning !== null) log(decision.warning);
  requireServable(decision, state, { places, probe: asked });
  if (decision.type !== "btrfs-loop") {
    kept.begin(stateOf(decision, state, asked));
    failpoint("daemon.decided");
    return decision;
  }
  const { mount } = loopPlaces(places.state);
  const known = state?.paths.loop_image ?? null;
  if (known === null && !existsSync(ownImage)) requireNoneBelow(mount, places);
  const image = mountImage(places.state, known, config);
  const onImage = { ...decision, dataRoot: mount };
  requireServable(onImage, state, { places, probe: probeDataRoot(mount) });
  const begun = stateOf(onImage, state, probeDataRoot(mount));
  kept.begin({ ...begun, paths: { ...begun.paths, loop_image: image } });
  failpoint("daemon.decided");
  return onImage;
}
