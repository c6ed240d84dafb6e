import { failpoint } from "../failpoint.ts";
import type { DaemonConfig } from "./config.ts";
import { type Decision, decideBackend, probeDataRoot, stateOf } from "./decide-backend.ts";
import type { KeptState } from "./kept-state.ts";
import { loopPlaces, mountImage } from "./loop-image.ts";
import type { DaemonPlaces } from "./places.ts";
import { requireServable } from "./reconcile.ts";

/**
 * Reads the state, decides the backend, mounts what it needs and saves the state. Throws where something cannot be served, and
 * has made and changed nothing then.
 */
export function bootstrap(
  kept: KeptState,
  { config, places, log }: { config: DaemonConfig; places: DaemonPlaces; log: (message: string) => void },
): Decision {
  const { state, notes } = kept.load();
  for (const note of notes) log(note);
  const asked = probeDataRoot(config.backend.data_root ?? state?.paths.data_root ?? null);
  const decision = decideBackend(config, state, asked);
  log(`backend ${decision.type} (${decision.method}): ${decision.reason}`);
  if (decision.warning !== null) log(decision.warning);
  requireServable(decision, state, { places, uuid: asked.uuid });
  if (decision.type !== "btrfs-loop") {
    kept.begin(stateOf(decision, state, asked));
    failpoint("daemon.decided");
    return decision;
  }
  const { mount } = loopPlaces(places.state);
  const image = mountImage(places.state, state?.paths.loop_image ?? null, config);
  const onImage = { ...decision, dataRoot: mount };
  const begun = stateOf(onImage, state, probeDataRoot(mount));
  kept.begin({ ...begun, paths: { ...begun.paths, loop_image: image } });
  failpoint("daemon.decided");
  return onImage;
}
