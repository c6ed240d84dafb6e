import type { ErrorCode } from "../errors.ts";
import type { CloneReplies, CloneRequest } from "./tree/clone-runner.ts";
import type { TransferRequest } from "./transfer/transfer-runner.ts";
import type { TransferEvent } from "./transfer/transfer-task.ts";
import type { ScanReply, ScanRequest } from "./scan/scan-runner.ts";
import type { ForwardEvent } from "./scan/store-sink.ts";
import type { VerifyReplies, VerifyRequest } from "./verify/verify-runner.ts";
import type { WriteEvent, WriteReplies, WriteRequest } from "./write/write-runner.ts";

/** What the worker threads can be asked, and what they answer. */
export type EngineRequest = ScanRequest | WriteRequest | VerifyRequest | CloneRequest | TransferRequest;
export type EngineEvent = WriteEvent | TransferEvent | ForwardEvent;
export type EngineReplies<Request> = Request extends ScanRequest
  ? ScanReply
  : Request extends WriteRequest
    ? WriteReplies<Request>
    : Request extends VerifyRequest
      ? VerifyReplies<Request>
      : Request extends CloneRequest
        ? CloneReplies<Request>
        : Request extends TransferRequest
          ? null
          : never;

/** Kinds of work, each with code of its own. */
export type WorkKind = "scan" | "write" | "verify" | "clone" | "transfer";

/** What a thread is started with: the folder of compiled code, and the work whose code it loads without being asked. */
export interface ThreadStart {
  compileCache: string | null;
  kind: WorkKind;
}

/** What a thread posts: that it can be asked, once; an event while it works; or the end of a request. */
export type ThreadMessage =
  | { ready: true }
  | { event: EngineEvent }
  | { reply: unknown }
  | { failure: { code: ErrorCode; message: string; hint?: string; details?: Record<string, unknown>; full: boolean } };
