import fs from "node:fs";
import { openDirectory, syscallError, syscalls } from "../../fs/syscalls.ts";
import { DirectoryCloner } from "./clone-directories.ts";
import type { CloneOutcome } from "./clone-entry.ts";
import type { CloneTask } from "./clone-task.ts";
import { DirectoryRemover, type RemoveOutcome } from "./remove-directories.ts";

export type CloneRequest =
  | { kind: "clone-tree"; task: CloneTask }
  | { kind: "clone-remove"; place: Uint8Array; pool: SharedArrayBuffer }
  | { kind: "clone-settle"; folder: Uint8Array };

export type CloneReplies<Request extends CloneRequest> = Request extends { kind: "clone-tree" }
  ? CloneOutcome
  : Request extends { kind: "clone-remove" }
    ? RemoveOutcome
    : null;

/** The part of a thread that clones and removes whole trees. */
export class CloneRunner {
  handle(request: CloneRequest): unknown {
    switch (request.kind) {
      case "clone-tree":
        return new DirectoryCloner(request.task).run();
      case "clone-remove":
        return new DirectoryRemover(request.place, request.pool).run();
      case "clone-settle":
        return settle(request.folder);
    }
  }
}

/** Has everything that waits to be written on the folder's file system written. */
function settle(folder: Uint8Array): null {
  const fd = openDirectory(Buffer.from(folder));
  const result = syscalls().syncfs(fd);
  fs.closeSync(fd);
  if (result < 0 && syscalls().native) throw syscallError(result, "writing the file system back");
  return null;
}
