import { PackThread } from "./pack-thread.ts";
import type { PacksOutcome, VerifyTask } from "./verify-task.ts";

export type VerifyRequest =
  | { kind: "verify-packs"; task: VerifyTask }
  | { kind: "verify-file"; content: Uint8Array }
  | { kind: "verify-end" };

export type VerifyReplies<Request extends VerifyRequest> = Request extends { kind: "verify-packs" }
  ? PacksOutcome
  : Request extends { kind: "verify-file" }
    ? Uint8Array | null
    : null;

/** The part of a thread that verifies. */
export class VerifyRunner {
  #thread: PackThread | null = null;

  handle(request: VerifyRequest): unknown {
    switch (request.kind) {
      case "verify-packs":
        this.#thread?.close();
        this.#thread = new PackThread(request.task);
        return this.#thread.packs();
      case "verify-file":
        return this.#thread!.hashFile(request.content);
      case "verify-end":
        this.#thread?.close();
        this.#thread = null;
        return null;
    }
  }
}
