import { hash } from "node:crypto";
import { lstatSync } from "node:fs";
import { advice, adviceOf, CairnError, call, reworded, see, toCairnError } from "../../errors.ts";
import {
  decodePin,
  decodeTags,
  decodeVerification,
  type PinFile,
  type TagsFile,
  type VerificationFile,
} from "../../formats/records/control.ts";
import {
  type Cause,
  decodeDescriptor,
  type Descriptor,
  encodeDescriptor,
  type IgnoreRules,
  lackingAspects,
} from "../../formats/records/descriptor.ts";
import { decodeSeal, encodeSeal, sealedDescriptor, type SealFile } from "../../formats/records/seal-file.ts";
import { readSmallFile } from "../../fs/durable.ts";
import { requireChecksum, withChecksum } from "../../fs/unfinished.ts";
import { isSavePointId, type SavePointId } from "../../ids.ts";
import type { PointPaths } from "../place/control-layout.ts";
import { isReverting, type OperationKind } from "./operation-log.ts";
import { type IgnoreRecord, NO_RULES } from "../../fs/ignore.ts";

/** Reads the files of one point: its descriptor, its claim, its seal, and the small files beside them. */

const MAX_SIDECAR_BYTES = 16 << 20;

/** A point and the small files beside its descriptor. */
export interface Point {
  readonly sequence: number;
  /** The descriptor, completed by the point's seal. */
  readonly descriptor: Descriptor;
  /** The descriptor as it was written when the point was made; `descriptor` is the same until the point is sealed. */
  readonly made: Descriptor;
  /** SHA-256 of the descriptor's bytes, 64 hex digits. */
  readonly checksum: string;
  /** False while only a held tree has the content: the descriptor's digests, ids and counts are empty then. */
  readonly sealed: boolean;
  readonly pin: PinFile | null;
  /** The edited tags, or those that the point was made with. */
  readonly tags: readonly string[];
  readonly verification: VerificationFile | null;
  /** Errors of unreadable sidecar files; the point itself is sound. */
  readonly problems: readonly CairnError[];
}

/** Number of points of another workspace: this workspace has no directory for their trees. */
export const NO_SEQUENCE = 9_999_999_999;

/** True for a point of another workspace. */
export function isSibling({ sequence }: Pick<Point, "sequence">): boolean {
  return sequence === NO_SEQUENCE;
}

/** A claimed number, and the point that it was claimed for. */
export interface Claim {
  readonly sequence: number;
  /** Null if the claim has no valid id. */
  readonly id: SavePointId | null;
  /** Descriptor of the point that the claim becomes, if the tree beside it is the announced one. */
  readonly announced: Descriptor | null;
}

/** Decodes the file of a claim. */
export function claimOf(sequence: number, bytes: Buffer | null): Claim {
  const text = bytes?.toString("latin1") ?? "";
  if (isSavePointId(text)) return { sequence, id: text, announced: null };
  try {
    const announced = bytes === null ? null : checkedDescriptor("the claim", bytes, sequence);
    return { sequence, id: announced?.save_point_id ?? null, announced };
  } catch {
    return { sequence, id: null, announced: null };
  }
}

/** Tells if the seal is incomplete: the user who sealed the point could not read some entries, and only the held tree has them. */
export function isSealedInPart({ descriptor, made }: Point): boolean {
  const lacks = ({ labels }: Descriptor): boolean => labels.some((label) => lackingAspects(label).length > 0);
  return descriptor.omitted_count > made.omitted_count || (lacks(descriptor) && !lacks(made));
}

const UNREADABLE_PIN: PinFile = { at: new Date(0).toISOString(), reason: "its pin file cannot be read" };

/** Completes a descriptor by the point's seal. Throws `damaged` if there is a seal that is unreadable. */
function sealedOrNot(paths: PointPaths, descriptor: Descriptor): Descriptor {
  if (descriptor.content.tree !== "") return descriptor;
  const bytes = readSmallFile(paths.seal, MAX_DESCRIPTOR_BYTES);
  if (bytes === null) return descriptor;
  try {
    const seal = decodeSealFile(bytes);
    if (seal.save_point_id !== descriptor.save_point_id) throw new CairnError("damaged", "it belongs to another point");
    return sealedDescriptor(descriptor, seal);
  } catch (error) {
    const failed = toCairnError(error);
    throw new CairnError(failed.code, `${paths.seal}: ${failed.message}`, {
      hint: adviceOf(failed) ?? "remove that file: the next seal reads the point's clone again",
      cause: error,
    });
  }
}

function checkedDescriptor(path: string, bytes: Uint8Array, sequence: number): Descriptor {
  let descriptor: Descriptor;
  try {
    descriptor = decodeDescriptorFile(bytes);
  } catch (error) {
    const failed = toCairnError(error);
    throw reworded(failed, { message: `${path}: ${failed.message}`, hint: adviceOf(failed) ?? see("doctor") });
  }
  if (descriptor.sequence === sequence) return descriptor;
  throw new CairnError("damaged", `${path} has the wrong sequence number, ${descriptor.sequence}`, {
    hint: see("doctor"),
  });
}

/** Makes a point from the bytes of its descriptor and from the sidecar files beside it. */
export function pointOf(paths: PointPaths, bytes: Uint8Array, sequence: number): Point {
  const made = checkedDescriptor(paths.descriptor, bytes, sequence);
  const descriptor = sealedOrNot(paths, made);
  const problems: CairnError[] = [];
  let pinIsUnreadable = false;
  const sidecar = <T>(path: string, decode: (content: Uint8Array) => T): T | null => {
    try {
      // Three of these take less time than a listing of the directory, and most points have no such file.
      if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return null;
      const content = readSmallFile(path, MAX_SIDECAR_BYTES);
      return content === null ? null : decode(content);
    } catch (error) {
      const failed = toCairnError(error);
      problems.push(new CairnError(failed.code, `${path}: ${failed.message}`, { cause: error }));
      pinIsUnreadable ||= path === paths.pin;
      return null;
    }
  };
  const tags = sidecar<TagsFile>(paths.tags, decodeTags)?.tags ?? descriptor.tags;
  // An unreadable pin still pins: it is safer to keep a point than to remove it.
  const pin = sidecar<PinFile>(paths.pin, decodePin) ?? (pinIsUnreadable ? UNREADABLE_PIN : null);
  const verification = sidecar<VerificationFile>(paths.verification, decodeVerification);
  return {
    sequence,
    descriptor,
    made,
    checksum: hash("sha256", bytes, "hex"),
    sealed: descriptor.content.tree !== "",
    pin,
    tags,
    verification,
    problems,
  };
}

/** Returns the message and cause of the undo point that an operation makes. A backup's `cause` names its snapshot. */
export function beforeRestore(
  kind: OperationKind,
  target: SavePointId,
  cause: Cause | undefined,
): { message: string; cause: Cause } {
  const words = { restore: "restore of", rewind: "rewind to", adopt: "adoption of", undo: "undo", redo: "redo" };
  const { snapshot_id: snapshot } = (cause?.["backup"] ?? {}) as { snapshot_id?: unknown };
  const state = typeof snapshot === "string" ? `backup ${snapshot.slice(0, 8)}` : target.slice(0, 8);
  const message = `before ${words[kind]}${isReverting(kind) ? "" : ` ${state}`}`;
  return { message, cause: { ...cause, kind, restored_to: target } };
}

/**
 * Tells whether a point holds its whole tree, whatever ignore files lie in it: true for undo points with a held tree.
 * Descriptors of earlier versions wrongly say that ignore files apply to these.
 */
export function isOfAll({ undo, content }: Pick<Descriptor, "undo" | "content">): boolean {
  return undo && content.held !== undefined;
}

/** The rules by which a point was made. `crossMounts`: mounted file systems were part of it. */
export function rulesOf({ descriptor }: Point): IgnoreRecord & { crossMounts: boolean } {
  const { exclude, files, cross_mounts: crossMounts } = descriptor.rules;
  return { excludes: exclude, files: files ?? [], crossMounts: crossMounts ?? false };
}

/** The rules for reading a point's tree again; null: the rules of the ignore files in the tree. */
export function rulesToReadBy(descriptor: Pick<Descriptor, "undo" | "content">): IgnoreRecord | null {
  return isOfAll(descriptor) ? NO_RULES : null;
}

/** The rules of a point for which {@link isOfAll} is true. */
export function noRules(): IgnoreRules {
  return { ignore_file: false, exclude: [], files: [], ignored_count: 0, ignored_sample: [] };
}

/**
 * Encodes and decodes descriptor files. The last member, `checksum`, is the SHA-256 of all bytes before it, so that a
 * flipped bit in a message, parent or time is found.
 */

/** Most bytes of a descriptor; a longer one is never read. */
export const MAX_DESCRIPTOR_BYTES = 64 << 20;

/** Throws `unsupported` if the record would be too long to be read, as with ignore files of many megabytes: {@link isTooLong}. */
export function encodeDescriptorFile(descriptor: Descriptor): Uint8Array {
  return bounded(descriptor, encodeDescriptor);
}

/** Encodes a record with its checksum. Checks the length of the text first. */
function bounded<T extends Pick<Descriptor, "rules">>(record: T, encode: (record: T) => Uint8Array): Uint8Array {
  requireLength(textOf(record));
  const bytes = withChecksum(encode(record));
  requireLength(bytes.length);
  return bytes;
}

/** The length of all ignore files together, which may exceed the longest possible string. */
function textOf({ rules }: Pick<Descriptor, "rules">): number {
  return (rules.files ?? []).reduce((sum, { text }) => sum + text.length, 0);
}

function requireLength(bytes: number): void {
  if (bytes <= MAX_DESCRIPTOR_BYTES) return;
  const message = `the save point's record would need ${bytes} bytes or more; the limit is ${MAX_DESCRIPTOR_BYTES}`;
  throw new CairnError("unsupported", message, {
    hint: "make the ignore files (.cairnignore) smaller: the record contains all of them",
    details: { record_bytes: bytes },
  });
}

/** Tells whether the error is about a record that would be too long to be read. */
export function isTooLong({ details }: CairnError): boolean {
  return details?.["record_bytes"] !== undefined;
}

/** Throws `damaged`, `newer_version`. */
export function decodeDescriptorFile(bytes: Uint8Array): Descriptor {
  const { checksum: _checksum, ...descriptor } = decodeDescriptor(bytes) as Descriptor & { checksum?: unknown };
  requireChecksum(bytes);
  return descriptor;
}

/** Encodes a seal file with its checksum. Throws like {@link encodeDescriptorFile}. */
export function encodeSealFile(seal: SealFile): Uint8Array {
  return bounded(seal, encodeSeal);
}

/** Throws `damaged`, `newer_version`. */
export function decodeSealFile(bytes: Uint8Array): SealFile {
  const { checksum: _checksum, ...seal } = decodeSeal(bytes) as SealFile & { checksum?: unknown };
  requireChecksum(bytes);
  return seal;
}

/** Makes the error for a point that is not sealed. Callers that seal and try again recognize it by its details. */
export function neverRead({ descriptor: { save_point_id: id, workspace_name: name } }: Point): CairnError {
  return new CairnError("damaged", `point ${id} is not sealed: its content is only in its clone, not in the store`, {
    hint: advice`run ${call("seal")}: it copies the clone into the store, or says why it cannot`,
    details: { unsealed: id, workspace: name },
  });
}
