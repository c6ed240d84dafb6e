import { DirectoryCloner } from "./clone-directories.ts";
import type { CloneRequest } from "./clone-work.ts";
import { unlinkFilesBelow } from "./remove-directories.ts";

/** The part of a thread that clones and removes whole trees. */
export class CloneRunner {
  handle(request: CloneRequest): unknown {
    switch (request.kind) {
      case "clone-tree":
        return new DirectoryCloner(request.task).run();
      case "clone-remove":
        return unlinkFilesBelow(request.task);
    }
  }
}
