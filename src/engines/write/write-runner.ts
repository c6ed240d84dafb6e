import { TreeWriter } from "./tree-writer.ts";
import type { DirectoryJob, FilesJob, LargeFile, RangeJob, Share, WriteOutcome, WriteTask } from "./write-jobs.ts";
import type { NotSet } from "./node-writer.ts";

export type WriteRequest =
  | { kind: "write-begin"; task: WriteTask }
  | { kind: "write-directories"; jobs: DirectoryJob[] }
  | { kind: "write-files"; job: FilesJob }
  | { kind: "write-range"; job: RangeJob }
  | { kind: "write-finish"; file: LargeFile }
  | { kind: "write-end" };

/** Work that a thread gives away because another waits. */
export interface WriteEvent {
  kind: "share";
  work: DirectoryJob[] | FilesJob;
}

export type WriteReplies<Request extends WriteRequest> = Request extends {
  kind: "write-directories" | "write-files";
}
  ? WriteOutcome
  : Request extends { kind: "write-range" }
    ? { bytes: number; kept: number; damaged: string | null }
    : Request extends { kind: "write-finish" }
      ? NotSet[]
      : null;

/** The part of a thread that writes trees. */
export class WriteRunner {
  readonly #post: (event: WriteEvent) => void;
  readonly #share: Share = (work) => this.#post({ kind: "share", work });
  #writer: TreeWriter | null = null;

  constructor(post: (event: WriteEvent) => void) {
    this.#post = post;
  }

  handle(request: WriteRequest): unknown {
    switch (request.kind) {
      case "write-begin":
        this.#writer?.close();
        this.#writer = new TreeWriter(request.task);
        return null;
      case "write-directories":
        return this.#writer!.directories(request.jobs, this.#share);
      case "write-files":
        return this.#writer!.files(request.job, this.#share);
      case "write-range":
        return this.#writer!.range(request.job);
      case "write-finish":
        return this.#writer!.finishLarge(request.file);
      case "write-end":
        this.#writer?.close();
        this.#writer = null;
        return null;
    }
  }
}
