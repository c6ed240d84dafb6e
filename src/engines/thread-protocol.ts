import type { ErrorCode } from "../errors.ts";
import type { ScanReply, ScanRequest } from "./scan/scan-runner.ts";
import type { VerifyReplies, VerifyRequest } from "./verify/verify-runner.ts";
import type { WriteEvent, WriteReplies, WriteRequest } from "./write/write-runner.ts";

/** What the worker threads can be asked, and what they answer. */
export type EngineRequest = ScanRequest | WriteRequest | VerifyRequest;
export type EngineEvent = WriteEvent;
export type EngineReplies<Request> = Request extends ScanRequest
  ? ScanReply
  : Request extends WriteRequest
    ? WriteReplies<Request>
    : Request extends VerifyRequest
      ? VerifyReplies<Request>
      : never;

/** What a thread posts: an event while it works, or the end of a request. */
export type ThreadMessage =
  | { event: EngineEvent }
  | { reply: unknown }
  | { failure: { code: ErrorCode; message: string; hint?: string; details?: Record<string, unknown>; full: boolean } };
