import { hash } from "node:crypto";
import { adviceOf, CairnError, reworded, see, toCairnError } from "../../errors.ts";
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
import { isSavePointId, type SavePointId } from "../../ids.ts";
import type { PointPaths } from "../place/control-layout.ts";
import { isReverting, type OperationKind } from "./operation-log.ts";
import { type IgnoreRecord, NO_RULES } from "../../fs/ignore.ts";

/** Reads the files of one point: its descriptor, its claim, its seal, and the small files beside them. */

const MAX_SIDECAR_BYTES = 16 << 20;

/** A point and the small files beside its descriptor. */
export interface Point {
  readonly sequence: number;
  /** With what its seal adds. */
  readonly descriptor: Descriptor;
  /** As it was written when the point was made; the same where there is no seal. */
  readonly made: Descriptor;
  /** SHA-256 of the descriptor's bytes, 64 hex digits. */
  readonly checksum: string;
  /** False while only a held tree has its content: digests, ids and counts of the descriptor are empty then. */
  readonly sealed: boolean;
  readonly pin: PinFile | null;
  /** The edited tags, or those it was made with. */
  readonly tags: readonly string[];
  readonly verification: VerificationFile | null;
  /** Sidecars that could not be read; the point itself is well. */
  readonly problems: readonly CairnError[];
}

/** A number that no point has: the tree that a point of another workspace holds is not among this workspace's points. */
export const NO_SEQUENCE = 9_999_999_999;

/** True for a point of another workspace. */
export function isSibling({ sequence }: Pick<Point, "sequence">): boolean {
  return sequence === NO_SEQUENCE;
}

/** A number that was claimed, and what for. */
export interface Claim {
  readonly sequence: number;
  /** Null where the claim says nothing. */
  readonly id: SavePointId | null;
  /** Descriptor of the point that it becomes, if the tree beside it is the one that was announced. */
  readonly announced: Descriptor | null;
}

/** Returns what a claim's file says. */
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

/**
 * Tells whether its seal lacks something that is part of the point: whoever sealed it could not read that, and only the
 * held tree has it.
 */
export function isSealedInPart({ descriptor, made }: Point): boolean {
  const lacks = ({ labels }: Descriptor): boolean => labels.some((label) => lackingAspects(label).length > 0);
  return descriptor.omitted_count > made.omitted_count || (lacks(descriptor) && !lacks(made));
}

const UNREADABLE_PIN: PinFile = { at: new Date(0).toISOString(), reason: "its pin file cannot be read" };

/** The descriptor with what its seal adds. Throws `damaged` when there is a seal that cannot be read. */
function sealedOrNot(paths: PointPaths, descriptor: Descriptor, names: readonly string[]): Descriptor {
  if (descriptor.content.tree !== "" || !names.includes("seal.json")) return descriptor;
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

/** A point of its descriptor's bytes and of the files beside it, of which there are those with `names`. */
export function pointOf(
  paths: PointPaths,
  bytes: Uint8Array,
  { sequence, names }: { sequence: number; names: readonly string[] },
): Point {
  const made = checkedDescriptor(paths.descriptor, bytes, sequence);
  const descriptor = sealedOrNot(paths, made, names);
  const problems: CairnError[] = [];
  let pinIsUnreadable = false;
  const sidecar = <T>(path: string, decode: (content: Uint8Array) => T): T | null => {
    if (!names.includes(path.slice(paths.root.length + 1))) return null;
    try {
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
  // A pin that cannot be read still pins: the doubt is the point's benefit.
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

/** Message of the point that a restore makes of what was there, by which such a point is known. */

export function beforeRestore(
  kind: OperationKind,
  target: SavePointId,
  cause: Cause | undefined,
): { message: string; cause: Cause } {
  const words = { restore: "restore of", rewind: "rewind to", adopt: "adoption of", undo: "undo", redo: "redo" };
  const message = `before ${words[kind]}${isReverting(kind) ? "" : ` ${target.slice(0, 8)}`}`;
  return { message, cause: { ...cause, kind, restored_to: target } };
}

/**
 * Tells whether a point holds all of its tree, whatever ignore files lie in it: what a restore displaced is held whole.
 * Earlier versions wrote of such a point too that ignore files have a part in it.
 */
export function isOfAll({ undo, content }: Pick<Descriptor, "undo" | "content">): boolean {
  return undo && content.held !== undefined;
}

/** The rules by which a point was made, and if what was mounted inside was part of it. */
export function rulesOf({ descriptor }: Point): IgnoreRecord & { crossMounts: boolean } {
  const { exclude, files, cross_mounts: crossMounts } = descriptor.rules;
  return { excludes: exclude, files: files ?? [], crossMounts: crossMounts ?? false };
}

/** The rules by which what a point stands for is read again: those of the ignore files that lie there where this is null. */
export function rulesToReadBy(descriptor: Pick<Descriptor, "undo" | "content">): IgnoreRecord | null {
  return isOfAll(descriptor) ? NO_RULES : null;
}

/** The rules of a point that {@link isOfAll}. */
export function noRules(): IgnoreRules {
  return { ignore_file: false, exclude: [], files: [], ignored_count: 0, ignored_sample: [] };
}

/**
 * A descriptor as its file holds it: the last member, `checksum`, is the SHA-256 of all bytes before it, so that no
 * flipped bit passes for another message, parent or time.
 */

const HEAD = ',"checksum":"';
const TAIL = '"}\n';
const LENGTH = HEAD.length + 64 + TAIL.length;

/** Most bytes of a descriptor: nobody reads a longer one. */
export const MAX_DESCRIPTOR_BYTES = 64 << 20;

/** Throws `unsupported` where it would be too long to be read, as with ignore files of many megabytes: {@link isTooLong}. */
export function encodeDescriptorFile(descriptor: Descriptor): Uint8Array {
  return bounded(descriptor, encodeDescriptor);
}

/** With its checksum; the text is asked for first. */
function bounded<T extends Pick<Descriptor, "rules">>(record: T, encode: (record: T) => Uint8Array): Uint8Array {
  requireLength(textOf(record));
  const bytes = withChecksum(encode(record));
  requireLength(bytes.length);
  return bytes;
}

/** The text of all ignore files, which is more than any string can be at worst. */
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

/** A seal as its file holds it, with a checksum likewise. Throws as {@link encodeDescriptorFile} does. */
export function encodeSealFile(seal: SealFile): Uint8Array {
  return bounded(seal, encodeSeal);
}

/** Throws `damaged`, `newer_version`. */
export function decodeSealFile(bytes: Uint8Array): SealFile {
  const { checksum: _checksum, ...seal } = decodeSeal(bytes) as SealFile & { checksum?: unknown };
  requireChecksum(bytes);
  return seal;
}

/** A JSON object's bytes with the checksum as one more member. */
function withChecksum(bytes: Uint8Array): Uint8Array {
  const body = Buffer.from(bytes.subarray(0, bytes.length - 2));
  return Buffer.concat([body, Buffer.from(`${HEAD}${checksumOf(body)}${TAIL}`)]);
}

function requireChecksum(bytes: Uint8Array): void {
  const length = Math.max(bytes.length - LENGTH, 0);
  const found = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1", length);
  if (found !== `${HEAD}${checksumOf(bytes.subarray(0, length))}${TAIL}`)
    throw new CairnError("damaged", "its checksum does not match its content");
}

function checksumOf(body: Uint8Array): string {
  return hash("sha256", body, "hex");
}
