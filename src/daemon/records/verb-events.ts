import type { CleanupResult, RestoreResult, SavePoint, SaveResult } from "../../contract/index.ts";
import type { EventType } from "../../contract/service.ts";
import type { EventPlace, Happening } from "./events.ts";

/** The event of what a verb has done; null where it changed nothing, or looked only. */
export function eventOfVerb(verb: string, workspace: EventPlace, answered: unknown): Happening | null {
  const of = <T extends EventType>(type: T, data: Happening<T>["data"]): Happening =>
    ({ workspace, type, data }) as Happening;
  switch (verb) {
    case "save":
      return (answered as SaveResult).made ? of("save", answered as SaveResult) : null;
    case "restore":
    case "restoreLatest":
      return (answered as RestoreResult).restored_to === null ? null : of("restore", answered as RestoreResult);
    case "undo":
      return of("undo", answered as RestoreResult);
    case "pin":
    case "unpin":
    case "tag":
      return of(verb, answered as SavePoint);
    case "runCleanup": {
      const { removed, bytes_freed } = answered as CleanupResult;
      return of("cleanup", { points: removed.length, bytes_freed });
    }
    case "setPolicy":
      return of("policy", {});
    default:
      return null;
  }
}
