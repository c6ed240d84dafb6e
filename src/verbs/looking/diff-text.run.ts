import type { PathInput } from "../../contract/words.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { displayPath, normalizeTyped } from "../../fs/paths/safe-path.ts";
import { read } from "../../look/read.ts";
import { type Looking, namesOf } from "../../look/sources/operands.ts";
import { decodeText, type Hunk, textHunks } from "../../look/text-diff.ts";
import type { DiffTextOptions, DiffTextResult } from "./diff-text.ts";
import { hash } from "node:crypto";

/** The most bytes of a side that are compared. */
const MOST_BYTES = 32 << 20;

type Side = DiffTextResult["before"];
const NOTHING = new Uint8Array(0);

/** Compares a file of state `a` with the file of state `b`, or of the folder if `b` is null. */
export async function diffText(
  hand: Looking,
  path: PathInput,
  [a, b]: readonly [string, string | null],
  options: DiffTextOptions,
): Promise<DiffTextResult> {
  const named = await namesOf(hand, [a, b], options);
  const from = named.from as DiffTextResult["from"];
  const to = named.to as DiffTextResult["to"];
  const [before, after] = [await contentOf(hand, from, path, options), await contentOf(hand, to, path, options)];
  if (before === null && after === null)
    throw new CairnError(
      "not_found",
      `${displayPath(normalizeTyped(path)).path} is in neither of the two compared states`,
    );
  return {
    ...displayPath(normalizeTyped(path)),
    from,
    to,
    ...compared(before, after, options),
    before: sideOf(before),
    after: sideOf(after),
  };
}

/** Reads a file. Null: there is no file at the path. A number: the size of a file that is too large to compare. */
async function contentOf(
  hand: Looking,
  target: string | null,
  path: PathInput,
  options: DiffTextOptions,
): Promise<Uint8Array | number | null> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const piece of read(hand, target, path, options)) {
      bytes += piece.length;
      if (bytes <= MOST_BYTES) pieces.push(piece);
      else pieces.length = 0;
    }
  } catch (error) {
    if (toCairnError(error).code !== "not_found") throw error;
    return null;
  }
  return bytes > MOST_BYTES ? bytes : Buffer.concat(pieces);
}

function sideOf(content: Uint8Array | number | null): Side {
  if (content === null) return null;
  return typeof content === "number" ? { size: content } : { size: content.length, sha256: hash("sha256", content) };
}

function compared(
  before: Uint8Array | number | null,
  after: Uint8Array | number | null,
  options: DiffTextOptions,
): { kind: DiffTextResult["kind"]; hunks: Hunk[] } {
  if (typeof before === "number" || typeof after === "number") return { kind: "too_large", hunks: [] };
  if (before !== null && after !== null && Buffer.compare(before, after) === 0) return { kind: "same", hunks: [] };
  const [old, now] = [decodeText(before ?? NOTHING), decodeText(after ?? NOTHING)];
  if (old === null || now === null) return { kind: "binary", hunks: [] };
  const hunks = textHunks(old, now, options);
  return hunks === null ? { kind: "too_different", hunks: [] } : { kind: "text", hunks };
}
