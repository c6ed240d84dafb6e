import { CairnError } from "../../errors.ts";
import type { MoveBlobs, MoveJob } from "./transfer.ts";
import { trimMemory } from "../../native.ts";
import type { Thread } from "../../threads/worker-thread.ts";
import { firstFailure, withThreads } from "../../threads/threads.ts";
import { mostWaiting } from "../packs/pack-uploader.ts";
import { CONTROL_WORDS, T, TRANSFER, type TransferTask, type TransferWork } from "./transfer-task.ts";

const PROGRESS_MS = 50;

/** Moves blobs by all threads, each with its own packs. The source's packs are local. See `runTransfer`. */
export const moveByThreads: MoveBlobs = async (job) => {
  // A backup often follows a save, whose memory is free now.
  trimMemory();
  const isFar = job.to.repository.storage.localPath === undefined;
  await withThreads({ kind: TRANSFER, isFar, signal: job.signal }, async (threads) => moveBy(threads, job));
};

async function moveBy(threads: readonly Thread<TransferWork>[], job: MoveJob): Promise<void> {
  const { from, to, entries, signal } = job;
  const control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));
  const task: TransferTask = {
    from: { keys: from.repository.keys, index: from.index.shared, packs: job.packs },
    to: { keys: to.repository.keys, style: to.repository.style },
    directory: job.directory,
    mostWaiting: mostWaiting(),
    entries: shared(entries),
    groups: shared(groupsOf(entries, from.index.table.packOf)),
    control: control.buffer as SharedArrayBuffer,
  };
  const stop = (): void => void Atomics.store(control, T.STOP, 1);
  signal?.addEventListener("abort", stop, { once: true });
  let failure: { readonly error: unknown } | null = null;
  const fail = (error: unknown): void => {
    failure ??= { error };
    stop();
  };
  const arrived = (): void => {
    Atomics.sub(control, T.WAITING, 1);
    Atomics.notify(control, T.WAITING);
  };
  let telling: Promise<void> | null = null;
  const tell = (): void => {
    // Writing an index takes time: skip the calls meanwhile.
    telling ??= job
      .onMoved(control[T.BLOBS_DONE]!, control[T.KIB_DONE]! * 1024)
      .catch(fail)
      .finally(() => (telling = null));
  };
  const timer = setInterval(tell, PROGRESS_MS);
  try {
    const settled = await Promise.allSettled(
      threads.map(async (thread) => {
        thread.onEvent = (event) => {
          if ("pack" in event) void job.onPack(event.pack).then(arrived, fail);
          else job.onDamagedPack?.(event.damaged, event.isElsewhere);
        };
        try {
          await thread.ask({ kind: "transfer-move", task });
        } catch (error) {
          stop();
          throw error;
        }
      }),
    );
    clearInterval(timer);
    await (telling as Promise<void> | null);
    const known = failure as { readonly error: unknown } | null;
    if (known !== null) throw known.error;
    if (signal?.aborted === true) throw new CairnError("interrupted", "stopped by the caller");
    firstFailure(settled);
    await job.onMoved(entries.length, control[T.KIB_DONE]! * 1024);
  } finally {
    clearInterval(timer);
    signal?.removeEventListener("abort", stop);
    for (const thread of threads) thread.onEvent = null;
  }
}

/** Returns the begin of each pack's entries, and the end of the last ones. */
function groupsOf(entries: Uint32Array, packOf: Uint32Array): Uint32Array {
  const starts: number[] = [];
  for (let at = 0; at < entries.length; at++)
    if (at === 0 || packOf[entries[at]!] !== packOf[entries[at - 1]!]) starts.push(at);
  starts.push(entries.length);
  return Uint32Array.from(starts);
}

function shared(words: Uint32Array): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(words.length * 4);
  new Uint32Array(buffer).set(words);
  return buffer;
}
