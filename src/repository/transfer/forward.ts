import { type MasterKeys, SEAL_OVERHEAD } from "../../crypto/seal.ts";
import { BlobIndex, blobTypeOf, type SharedIndex } from "../index/blob-index.ts";
import { type PackStyle, writerOptions } from "../packs/pack-style.ts";
import { type FinishedPack, type PackTail, PackWriter, type StoredBytes } from "../packs/pack-writer.ts";

/**
 * Another repository, which gets what a save stores anew, sealed with its own keys in the same pass. Nothing waits for it:
 * what finds no room on the way, or fails, is left to the transfer that follows.
 */
export interface ForwardTarget {
  readonly task: ForwardTask;
  /** Threads of the save; default as many as any operation has. */
  readonly jobs: number | undefined;
  /** Takes over a pack that a thread has finished; `current`: about where in the folder its content is from. Never throws. */
  onPack(pack: FinishedPack, current: string): void;
  /** Called once nothing more comes. Never throws. */
  onEnd(): void;
}

/** A task that every thread that forwards gets. */
export interface ForwardTask {
  keys: MasterKeys;
  style: PackStyle;
  /** While so many packs wait no other is begun: they take room on a disk. */
  mostWaiting: number;
  /** Index of the other repository; it grows meanwhile, so that a blob may go there twice. */
  index: SharedIndex;
  /** where unfinished packs lie; there already */
  directory: string;
  /** words as in {@link F} */
  control: SharedArrayBuffer;
}

/** Words of the control block. */
export const F = {
  /** packs that are finished and have not arrived; whoever takes them counts down */
  WAITING: 0,
  STOP: 1,
  /** blobs that found no room, and KiB of them */
  LEFT: 2,
  LEFT_KIB: 3,
} as const;
export const FORWARD_WORDS = 4;

type BlobKind = "data" | "tree";

/** The part of a thread that forwards: packs of its own for the other repository. A failure ends the forwarding only. */
export class BlobForwarder {
  readonly #task: ForwardTask;
  readonly #tell: (pack: FinishedPack) => void;
  readonly #index: BlobIndex;
  readonly #control: Int32Array;
  readonly #writers: Readonly<Record<BlobKind, PackWriter>>;
  #failed = false;
  /** bytes */
  #uncounted = 0;

  constructor(task: ForwardTask, tell: (pack: FinishedPack) => void) {
    this.#task = task;
    this.#tell = tell;
    this.#index = BlobIndex.fromShared(task.index);
    this.#control = new Int32Array(task.control);
    this.#writers = { data: this.#newWriter("data"), tree: this.#newWriter("tree") };
  }

  #newWriter(type: BlobKind): PackWriter {
    const { keys, directory, style } = this.#task;
    const onPack = (pack: FinishedPack): void => {
      Atomics.add(this.#control, F.WAITING, 1);
      this.#tell(pack);
    };
    return new PackWriter({ type, keys, directory, onPack, ...writerOptions(style, type) });
  }

  /** A blob as it was stored, unless the other repository has it. */
  add(type: BlobKind, id: Uint8Array, idOffset: number, stored: StoredBytes): void {
    if (this.#failed) return;
    const writer = this.#writers[type];
    if (this.#index.lookup(id, idOffset, blobTypeOf(type)) >= 0) return;
    if (writer.isEmpty && !this.#hasRoom()) this.#leave(stored.length);
    else this.#attempt(() => writer.addStored(id, idOffset, stored));
  }

  #leave(bytes: number): void {
    Atomics.add(this.#control, F.LEFT, 1);
    this.#uncounted += bytes + SEAL_OVERHEAD;
    Atomics.add(this.#control, F.LEFT_KIB, Math.floor(this.#uncounted / 1024));
    this.#uncounted %= 1024;
  }

  #hasRoom(): boolean {
    return Atomics.load(this.#control, F.STOP) === 0 && Atomics.load(this.#control, F.WAITING) < this.#task.mostWaiting;
  }

  /** The unfinished packs, for another thread's `finish`. */
  takeTails(): PackTail[] {
    const tails: PackTail[] = [];
    this.#attempt(() => {
      for (const writer of Object.values(this.#writers)) {
        const tail = writer.takeTail();
        if (tail !== null) tails.push(tail);
      }
    });
    return tails;
  }

  /** Takes other threads' unfinished packs in, and completes all. */
  finish(tails: readonly PackTail[]): void {
    this.#attempt(() => {
      for (const tail of tails) this.#writers[tail.type].appendTail(tail);
      for (const writer of Object.values(this.#writers)) writer.finish();
    });
  }

  abort(): void {
    this.#failed = true;
    for (const writer of Object.values(this.#writers)) writer.abort();
  }

  /** The disk that the packs lie on may be full, and that is no reason for a save to fail. */
  #attempt(work: () => void): void {
    if (this.#failed) return;
    try {
      work();
    } catch {
      this.abort();
    }
  }
}
