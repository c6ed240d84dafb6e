import { type KindsOfWork, serve } from "./threads/serve.ts";

const KINDS: KindsOfWork = {
  scan: async () => (await import("./archive/scan/scan-runner.ts")).ScanRunner,
  write: async () => (await import("./archive/write/tree-writer.ts")).WriteRunner,
  clone: async () => (await import("./clones/clone-runner.ts")).CloneRunner,
  transfer: async () => (await import("./repository/transfer/transfer-runner.ts")).TransferRunner,
  verify: async () => (await import("./repository/verify/pack-thread.ts")).VerifyRunner,
};

/** Serves the kinds of work in a worker thread. `onWorked`: see `serve`. */
export async function main(onWorked: () => void = () => undefined): Promise<void> {
  await serve(KINDS, onWorked);
}
