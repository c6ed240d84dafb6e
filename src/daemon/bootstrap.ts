import { existsSync } from "node:fs";
import { join } from "node:path";
import { type CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { LoopImage } from "../formats/records/daemon-state.ts";
import { lockHolder } from "../fs/lock.ts";
import { realPathOf } from "../workspace/place/find-workspace.ts";
import type { DaemonConfig } from "./config.ts";
import { type Decision, decideStart, refusal, stateOf } from "./decide-start.ts";
import { LOCK } from "./instance.ts";
import { gatherFacts, type StartFacts } from "./start-facts.ts";
import { KeptState } from "./state/kept-state.ts";
import { makeImage, mountImage, nameImage, removeUnfinished } from "./state/loop-image.ts";
import type { DaemonPlaces } from "./places.ts";

export { type Instance, takeInstance } from "./instance.ts";

/** Decides about a start, and throws the reason if it is refused. Makes, mounts and changes nothing. */
function requireStart(
  kept: KeptState,
  { config, places, rebuildState = false }: Omit<BootstrapOptions, "log">,
): { decision: Decision; facts: StartFacts } {
  // The kernel's lists of mounts and loop devices have paths without links.
  places.state = realPathOf(places.state).toString("utf8");
  const facts = gatherFacts(kept.load(), { config, places, rebuild: rebuildState });
  const decision = decideStart(facts);
  if (decision.word === "refuse") throw decision.because;
  return { decision, facts };
}

/** The error with which a start would be refused; null if it would not be. */
export function whyRefused(
  places: DaemonPlaces,
  options: Pick<BootstrapOptions, "config" | "rebuildState">,
): CairnError | null {
  try {
    requireStart(new KeptState(places), { ...options, places });
    return null;
  } catch (error) {
    return toCairnError(error);
  }
}

/** As `requireStart()`, if no daemon runs: a refused start makes not even the lock and its folder. */
export function requireFirst(kept: KeptState, options: Omit<BootstrapOptions, "log">): void {
  const { state } = options.places;
  if (!existsSync(join(state, LOCK)) || lockHolder(join(state, LOCK)) === null) requireStart(kept, options);
}

export interface BootstrapOptions {
  config: DaemonConfig;
  places: DaemonPlaces;
  /** True: a state that cannot be read is replaced by a new state. */
  rebuildState?: boolean | undefined;
  log: (message: string) => void;
}

/**
 * Decides about the start, makes or mounts the image that the backend needs, and saves the state. Throws if the start is
 * refused; nothing is made or changed then.
 */
export function bootstrap(kept: KeptState, { log, ...options }: BootstrapOptions): Decision {
  const { decision, facts } = requireStart(kept, options);
  const { state } = options.places;
  log(`${decision.word}: backend ${decision.type}: ${decision.reason}`);
  if (decision.warning !== null) log(decision.warning);
  const { step } = decision.image ?? { step: null };
  if (step !== "finish") removeUnfinished(state);
  const { image, uuid } = imageOf(decision, { facts, log });
  for (const note of kept.settle()) log(note);
  kept.begin(stateOf({ ...decision, uuid }, facts.state, image));
  failpoint("daemon.decided");
  if (step === "make") nameImage(state);
  return decision;
}

/** Makes or mounts the image. For a backend that does not use it a failure is only logged: links of users lead there. */
function imageOf(
  decision: Decision,
  { facts, log }: { facts: StartFacts; log: (message: string) => void },
): { image: LoopImage | null; uuid: string | null } {
  const { image: wanted, type, uuid } = decision;
  const { state } = facts.places;
  if (wanted === null) return { image: null, uuid };
  try {
    if (wanted.step === "make") return makeImage(state, wanted.bytes);
    if (wanted.step === "finish") nameImage(state);
    const image = mountImage(state, wanted.known, facts.config);
    return { image, uuid };
  } catch (error) {
    const { code, message, hint = "mount the image by hand to see why" } = toCairnError(error);
    const failed = refusal(facts, decision, { code, what: message, help: hint });
    if (type === "btrfs-loop") throw failed;
    log(failed.message);
    return { image: null, uuid };
  }
}
