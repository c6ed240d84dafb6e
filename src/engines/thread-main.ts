import { parentPort, workerData } from "node:worker_threads";
import { toCairnError } from "../errors.ts";
import { TableFull } from "../fs/scan-table.ts";
import type { ScanRequest } from "./scan/scan-runner.ts";
import type { EngineRequest, ThreadMessage, ThreadStart, WorkKind } from "./thread-protocol.ts";
import type { TransferRequest } from "./transfer/transfer-runner.ts";
import type { CloneRequest } from "./tree/clone-runner.ts";
import type { VerifyRequest } from "./verify/verify-runner.ts";
import type { WriteRequest } from "./write/write-runner.ts";

/** What a worker thread does: a request at a time, then its reply. Each kind of work is loaded when it is first asked for. */
type Handle = (request: EngineRequest) => unknown;

/** Work that takes so long has run most of what such work runs, milliseconds. */
const LONG_MS = 20;

/** `onWorked`: called after each piece of work that was not short. */
export async function main(onWorked: () => void = () => undefined): Promise<void> {
  const port = parentPort;
  if (port === null) return;
  const handles = new Map<WorkKind, Promise<Handle>>();
  const load = async (kind: WorkKind): Promise<Handle> => {
    if (kind === "scan") {
      const { ScanRunner } = await import("./scan/scan-runner.ts");
      const runner = new ScanRunner((event) => port.postMessage({ event } satisfies ThreadMessage));
      return (request) => runner.handle(request as ScanRequest);
    }
    if (kind === "write") {
      const { WriteRunner } = await import("./write/write-runner.ts");
      const runner = new WriteRunner((event) => port.postMessage({ event } satisfies ThreadMessage));
      return (request) => runner.handle(request as WriteRequest);
    }
    if (kind === "clone") {
      const { CloneRunner } = await import("./tree/clone-runner.ts");
      const runner = new CloneRunner();
      return (request) => runner.handle(request as CloneRequest);
    }
    if (kind === "transfer") {
      const { TransferRunner } = await import("./transfer/transfer-runner.ts");
      const runner = new TransferRunner((event) => port.postMessage({ event } satisfies ThreadMessage));
      return (request) => runner.handle(request as TransferRequest);
    }
    const { VerifyRunner } = await import("./verify/verify-runner.ts");
    const runner = new VerifyRunner();
    return (request) => runner.handle(request as VerifyRequest);
  };
  const loaded = async (kind: WorkKind): Promise<Handle> => {
    let handle = handles.get(kind);
    if (handle === undefined) handles.set(kind, (handle = load(kind)));
    return handle;
  };
  const answer = async (request: EngineRequest): Promise<ThreadMessage> => {
    const handle = await loaded(kindOf(request));
    return { reply: handle(request) };
  };
  const work = async (request: EngineRequest): Promise<void> => {
    const started = performance.now();
    port.postMessage(await answer(request).catch(failureOf));
    if (performance.now() - started >= LONG_MS) onWorked();
  };
  const { kind } = workerData as ThreadStart;
  await loaded(kind);
  port.postMessage({ ready: true } satisfies ThreadMessage);
  port.on("message", (request: EngineRequest) => void work(request));
}

function kindOf({ kind }: EngineRequest): WorkKind {
  if (kind.startsWith("write-")) return "write";
  if (kind.startsWith("clone-")) return "clone";
  if (kind.startsWith("transfer-")) return "transfer";
  return kind.startsWith("verify-") ? "verify" : "scan";
}

function failureOf(error: unknown): ThreadMessage {
  const { code, message, hint, details } = toCairnError(error);
  return {
    failure: {
      code,
      message,
      full: error instanceof TableFull,
      ...(hint === undefined ? {} : { hint }),
      ...(details === undefined ? {} : { details }),
    },
  };
}
