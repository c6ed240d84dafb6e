import { CairnError } from "../../errors.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { BlobMover } from "./blob-mover.ts";
import { packFolder } from "../read/near-packs.ts";
import { T, type TransferEvent, type TransferTask, type TransferWork } from "./transfer-task.ts";

const WAIT_MS = 20;

/** Moves blobs in one thread: takes groups of entries until none is left. */
export class TransferRunner {
  readonly #tell: (event: TransferEvent) => void;

  constructor(tell: (event: TransferEvent) => void) {
    this.#tell = tell;
  }

  handle({ task }: TransferWork["requests"]): null {
    const control = new Int32Array(task.control);
    const mover = new BlobMover({
      from: {
        keys: task.from.keys,
        index: BlobIndex.fromShared(task.from.index),
        packs: packFolder(task.from.packs),
      },
      to: task.to,
      directory: task.directory,
      onPack: (pack) => {
        Atomics.add(control, T.WAITING, 1);
        this.#tell({ pack });
      },
      onDamagedPack: (damaged, isElsewhere) => this.#tell({ damaged, isElsewhere }),
    });
    try {
      this.#groups(task, control, mover);
      mover.finish();
      return null;
    } catch (error) {
      mover.abort();
      throw error;
    }
  }

  #groups(task: TransferTask, control: Int32Array, mover: BlobMover): void {
    const groups = new Uint32Array(task.groups);
    const entries = new Uint32Array(task.entries);
    const { table } = BlobIndex.fromShared(task.from.index);
    for (
      let group = Atomics.add(control, T.NEXT, 1);
      group + 1 < groups.length;
      group = Atomics.add(control, T.NEXT, 1)
    ) {
      const own = entries.subarray(0, groups[group + 1]!);
      for (let at = groups[group]!; at < own.length;) {
        waitForRoom(control, task.mostWaiting);
        const next = mover.moveSome(own, at);
        let bytes = 0;
        for (const entry of own.subarray(at, next)) bytes += table.lengthOf[entry]!;
        Atomics.add(control, T.BLOBS_DONE, next - at);
        Atomics.add(control, T.KIB_DONE, Math.round(bytes / 1024));
        at = next;
      }
    }
  }
}

/** Waits while too many packs wait for their upload. Throws `interrupted` once the transfer is stopped. */
function waitForRoom(control: Int32Array, most: number): void {
  for (;;) {
    if (Atomics.load(control, T.STOP) !== 0) throw new CairnError("interrupted", "the transfer was stopped");
    const waiting = Atomics.load(control, T.WAITING);
    if (waiting < most) return;
    Atomics.wait(control, T.WAITING, waiting, WAIT_MS);
  }
}
