import { hash } from "node:crypto";
import { CairnError, toCairnError } from "../errors.ts";
import { decodePin, decodeTags, decodeVerification } from "../formats/control.ts";
import type { PinFile, TagsFile, VerificationFile } from "../formats/control.ts";
import { type Descriptor, lackingAspects } from "../formats/descriptor.ts";
import { sealedDescriptor } from "../formats/seal-file.ts";
import { readSmallFile } from "../fs/durable.ts";
import { isSavePointId, type SavePointId } from "../ids.ts";
import type { PointPaths } from "./control-layout.ts";
import { decodeDescriptorFile, decodeSealFile, MAX_DESCRIPTOR_BYTES } from "./descriptor-file.ts";

/** What the files of one point say: its descriptor, its claim, its seal, and the small files beside them. */

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

/** A number that was claimed, and what for. */
export interface Claim {
  readonly sequence: number;
  /** Null where the claim says nothing. */
  readonly id: SavePointId | null;
  /** What it becomes, if the tree beside it is the one that was announced. */
  readonly announced: Descriptor | null;
}

/** What a claim's file says. */
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
 * Whether its seal lacks something that was made part of the point: whoever sealed it could not read that, and only the
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
    if (seal.save_point_id !== descriptor.save_point_id) throw new CairnError("damaged", "it is another point's");
    return sealedDescriptor(descriptor, seal);
  } catch (error) {
    const failed = toCairnError(error);
    throw new CairnError(failed.code, `${paths.seal}: ${failed.message}`, {
      hint: failed.hint ?? "remove that file: the point is sealed again from its tree",
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
    throw new CairnError(failed.code, `${path}: ${failed.message}`, {
      hint: failed.hint ?? "see `cairn doctor`",
      cause: error,
    });
  }
  if (descriptor.sequence === sequence) return descriptor;
  throw new CairnError("damaged", `${path} says it is number ${descriptor.sequence}`, { hint: "see `cairn doctor`" });
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
