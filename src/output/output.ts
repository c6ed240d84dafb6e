import type { TreeNode } from "../formats/restic/tree.ts";

/** An entry that an {@link Output} is ready to write. */
export interface OutputEntry {
  /** False if `write` takes no content, for example for a second name of a file. */
  readonly needsContent: boolean;
  write(content?: AsyncIterable<Uint8Array>): Promise<void>;
}

/** A place that takes the entries of a tree, each folder before its entries. */
export interface Output<N = TreeNode> {
  /** Names the entries that the output cannot hold, for a warning. */
  readonly lacks: string;
  /** Prepares the next entry; null if the output cannot hold it. Entries are written in the order of their preparation. */
  next(path: Uint8Array, node: N): OutputEntry | null;
  /** Writes the end. Without it the output is incomplete. */
  end(): Promise<void>;
}

/** Takes the bytes of an archive, in order. */
export interface ByteSink {
  readonly write: (bytes: Uint8Array) => Promise<void> | void;
  /** Replaces bytes that were written. Absent for a stream. */
  readonly patch?: (bytes: Uint8Array, at: number) => void;
}
