import { existsSync } from "node:fs";
import { failpoint } from "../failpoint.ts";
import type { DaemonConfig } from "./config.ts";
import { type Decision, decideBackend, probeDataRoot, stateOf } from "./decide-backend.ts";
import type { KeptState } from "./kept-state.ts";
import { loopPlaces, mountImage } from "./loop-image.ts";
import type { DaemonPlaces } from "./places.ts";
import { requireNoneBelow, requireServable, stateIsLost } from "./reconcile.ts";

export { type Instance, takeInstance } from "./instance.ts";

export interface BootstrapOptions {
  config: DaemonConfig;
  places: DaemonPlaces;
  /** True: a state that cannot be read is made anew. */
  rebuildState?: boolean | undefined;
  log: (message: string) => void;
}

/**
 * Reads the state, decides the backend, mounts what it needs and saves the state. Throws where something cannot be served, and
 * has made and changed nothing then.
 */
export function bootstrap(kept: KeptState, { config, places, rebuildState = false, log }: BootstrapOptions): Decision {
  const { state, notes, lost } = kept.load();
  const { image: ownImage } = loopPlaces(places.state);
  if (lost.length > 0 && config.backend.type === null && !rebuildState) throw stateIsLost(lost, ownImage);
  if (lost.length > 0) notes.push(...kept.giveUp());
  for (const note of notes) log(note);
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
