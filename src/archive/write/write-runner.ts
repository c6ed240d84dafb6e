import { TreeWriter } from "./tree-writer.ts";
import type { Share, WriteEvent, WriteRequest } from "./write-jobs.ts";

/** The part of a thread that writes trees. */
export class WriteRunner {
  readonly #post: (event: WriteEvent) => void;
  readonly #share: Share = (work) => this.#post({ work });
  #writer: TreeWriter | null = null;

  constructor(post: (event: WriteEvent) => void) {
    this.#post = post;
  }

  handle(request: WriteRequest): unknown {
    switch (request.kind) {
      case "write-begin":
        this.#writer?.close();
        this.#writer = new TreeWriter(request.task, (elsewhere) => this.#post({ elsewhere }));
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
