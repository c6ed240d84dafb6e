import type { KindOfWork } from "../threads/worker-thread.ts";
import type { CloneOutcome } from "./clone-entry.ts";
import type { CloneTask } from "./clone-links.ts";
import type { RemoveTask } from "./remove-directories.ts";

export type CloneRequest = { kind: "clone-tree"; task: CloneTask } | { kind: "clone-remove"; task: RemoveTask };

export interface CloneWork {
  requests: CloneRequest;
  replies: { "clone-tree": CloneOutcome; "clone-remove": null };
  events: never;
}

/** Kind of work of threads that clone or remove whole trees. */
export const CLONE = "clone" as KindOfWork<CloneWork>;
