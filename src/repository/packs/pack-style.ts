import type { BlobType } from "../../formats/restic/pack-header.ts";
import type { CompressionLevel } from "./compression.ts";

/** restic's names of compression levels. */
export type Compression = "auto" | "off" | "fastest" | "better" | "max";

/** The form of a repository's new packs. */
export interface PackStyle {
  /** Version 1 has no compression. */
  readonly version: 1 | 2;
  /** Default `auto`. */
  readonly compression?: Compression | undefined;
  /** A pack is closed once it reaches this many bytes; default 16 MiB. */
  readonly packSize?: number | undefined;
}

/**
 * Level 1 reduces 48 MB of programs and texts to 36 %, level 7 to 32 %, level 15 to 31 % in seven times the time of 7.
 */
const LEVELS: Readonly<Partial<Record<Compression, CompressionLevel>>> = { better: 7, max: 15 };

/** Returns the pack writer's options for a style. `off` still compresses trees, as in restic. */
export function writerOptions(
  { version, compression = "auto", packSize }: PackStyle,
  type: BlobType,
): { level?: CompressionLevel; packSize?: number } {
  const level = version === 1 || (compression === "off" && type === "data") ? 0 : LEVELS[compression];
  return { ...(level === undefined ? {} : { level }), ...(packSize === undefined ? {} : { packSize }) };
}

/** False if compressed blobs of a store or another repository can be copied as they are. */
export function isCompressedAnew({ version, compression = "auto" }: PackStyle): boolean {
  return version === 1 || compression === "off" || compression in LEVELS;
}
