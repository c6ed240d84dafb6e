import { type Descriptor, type DescriptorContent, checkState, checkTrees } from "./descriptor.ts";
import { decodeRecord, encodeChecked, encodeRecord } from "./record.ts";

/**
 * `seal.json` beside a descriptor: the facts that sealing found about a point that was made without being read. The
 * descriptor stays as it was written.
 */

const FORMAT = "cairn.seal";
/** Version of seals with databases by pages; others have version 1. */
const VERSION = 2;

/** The members of a descriptor that need a reading of the tree. */
export type SealedState = Pick<
  Descriptor,
  | "state_digest"
  | "metadata_digest"
  | "complete"
  | "entries"
  | "bytes"
  | "bytes_stored"
  | "unchanged"
  | "labels"
  | "omitted"
  | "omitted_count"
  | "rules"
  | "rewritten"
>;

export interface SealFile extends SealedState {
  save_point_id: Descriptor["save_point_id"];
  sealed_at: string;
  content: Pick<DescriptorContent, "tree" | "snapshot_tree" | "stored_tree" | "snapshot">;
}

/** Encodes a seal and reads it back. Throws `internal` if a field has an impossible value. */
export function encodeSeal(seal: SealFile): Uint8Array {
  return encodeChecked(
    seal,
    (value) => encodeRecord(value, FORMAT, value.content.stored_tree === undefined ? 1 : VERSION),
    decodeSeal,
  );
}

/** Throws `damaged`, naming the field, or `newer_version`. */
export function decodeSeal(bytes: Uint8Array): SealFile {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  fields.hex("save_point_id", 32);
  fields.time("sealed_at");
  checkTrees(fields.object("content"));
  checkState(fields);
  return value as unknown as SealFile;
}

/** Returns the descriptor as if the point had been read when it was made. */
export function sealedDescriptor(descriptor: Descriptor, seal: SealFile): Descriptor {
  const { content, sealed_at: _at, save_point_id: _id, ...state } = seal;
  const {
    format: _format,
    version: _version,
    ...known
  } = state as typeof state & { format?: string; version?: number };
  return { ...descriptor, ...known, content: { ...descriptor.content, ...content } };
}
