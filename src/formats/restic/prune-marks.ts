import { CairnError } from "../../errors.ts";
import { Fields, type JsonObject } from "../fields.ts";
import { IndexWriter } from "./index-file.ts";

/** The member of an index file without packs in which a prune marks packs for the next prune. Other programs ignore it. */
const MEMBER = "cairn_marks";
const VERSION = 1;
const MAX_TEXT = 100;

/** Packs that a prune found unneeded, and the facts that a later prune needs to free them. */
export interface PruneMarks {
  /** The storage's own time before the look listed the snapshots, in milliseconds since 1970; null if unknown. */
  readonly lookedAt: number | null;
  /** The boot of the machine that looked, and its uptime at the look in milliseconds. */
  readonly bootId: string;
  readonly uptimeMs: number;
  /** Root trees of the snapshots that the look counted, 64 hex digits each. */
  readonly trees: ReadonlySet<string>;
  /** Names of the marked packs. */
  readonly packs: readonly string[];
  /** Bytes of the marked packs. */
  readonly bytes: number;
}

/** Returns the plain bytes of the index file. */
export function encodeMarks({ lookedAt, bootId, uptimeMs, trees, packs, bytes }: PruneMarks): Uint8Array {
  const member = {
    version: VERSION,
    looked_at: lookedAt === null ? null : new Date(lookedAt).toISOString(),
    boot_id: bootId,
    uptime_ms: Math.floor(uptimeMs),
    trees: [...trees],
    packs,
    bytes,
  };
  return new IndexWriter().finish([], { [MEMBER]: member });
}

/**
 * Returns the marks in the other members of an index file: undefined if it has none, and an error instead of marks that
 * are damaged or of a newer version.
 */
export function marksIn(extra: JsonObject, label: string): PruneMarks | CairnError | undefined {
  if (!Object.hasOwn(extra, MEMBER)) return undefined;
  try {
    const fields = new Fields(extra[MEMBER], `${label}: ${MEMBER}`);
    fields.requireVersion(VERSION);
    return {
      lookedAt: fields.isNull("looked_at") ? null : Date.parse(fields.time("looked_at")),
      bootId: fields.text("boot_id", MAX_TEXT),
      uptimeMs: fields.integer("uptime_ms"),
      trees: new Set(ids(fields, "trees")),
      packs: ids(fields, "packs"),
      bytes: fields.integer("bytes"),
    };
  } catch (error) {
    if (error instanceof CairnError) return error;
    throw error;
  }
}

function ids(fields: Fields, key: string): string[] {
  return fields.texts(key).map((text) => {
    if (!/^[0-9a-f]{64}$/.test(text)) throw fields.wrong(key, "a list of ids");
    return text;
  });
}
