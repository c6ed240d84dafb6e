import { parentPort } from "node:worker_threads";
import { toCairnError } from "../errors.ts";
import { TableFull } from "../fs/scan-table.ts";
import { ScanRunner } from "./scan/scan-runner.ts";
import type { EngineRequest, ThreadMessage } from "./thread-protocol.ts";
import { type VerifyRequest, VerifyRunner } from "./verify/verify-runner.ts";
import { type WriteRequest, WriteRunner } from "./write/write-runner.ts";

/** What a worker thread does: a request at a time, then its reply. */
const port = parentPort;
if (port !== null) {
  const scanner = new ScanRunner();
  const writer = new WriteRunner((event) => port.postMessage({ event } satisfies ThreadMessage));
  const verifier = new VerifyRunner();
  const handle = (request: EngineRequest): unknown => {
    if (isWrite(request)) return writer.handle(request);
    return isVerify(request) ? verifier.handle(request) : scanner.handle(request);
  };
  port.on("message", (request: EngineRequest) => {
    let message: ThreadMessage;
    try {
      message = { reply: handle(request) };
    } catch (error) {
      const { code, message: text, hint, details } = toCairnError(error);
      message = {
        failure: { code, message: text, full: error instanceof TableFull, ...(hint === undefined ? {} : { hint }), ...(details === undefined ? {} : { details }) },
      };
    }
    port.postMessage(message);
  });
}

function isWrite(request: EngineRequest): request is WriteRequest {
  return request.kind.startsWith("write-");
}

function isVerify(request: EngineRequest): request is VerifyRequest {
  return request.kind.startsWith("verify-");
}
