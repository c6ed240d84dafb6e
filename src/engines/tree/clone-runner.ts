import { DirectoryCloner } from "./clone-directories.ts";
import type { CloneOutcome } from "./clone-entry.ts";
import type { CloneTask } from "./clone-task.ts";
import { DirectoryRemover, type RemoveOutcome } from "./remove-directories.ts";

export type CloneRequest =
  | { kind: "clone-tree"; task: CloneTask }
  | { kind: "clone-remove"; place: Uint8Array; pool: SharedArrayBuffer };

export type CloneReplies<Request extends CloneRequest> = Request extends { kind: "clone-tree" }
  ? CloneOutcome
  : RemoveOutcome;

/** The part of a thread that clones and removes whole trees. */
export class CloneRunner {
  handle(request: CloneRequest): unknown {
    switch (request.kind) {
      case "clone-tree":
        return new DirectoryCloner(request.task).run();
      case "clone-remove":
        return new DirectoryRemover(request.place, request.pool).run();
    }
  }
}
