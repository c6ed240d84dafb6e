import type { BlobType } from "../../formats/restic/pack-header.ts";
import type { CompressionLevel } from "./compression.ts";

/** Restic's words for how closely content is compressed. */
export type Compression = "auto" | "off" | "fastest" | "better" | "max";

/** Form of new packs of a repository. */
export interface PackStyle {
  /** Version 1 knows no compression. */
  readonly version: 1 | 2;
  /** Default `auto`. */
  readonly compression?: Compression | undefined;
  /** A pack is closed once it reaches this many bytes; default 16 MiB. */
  readonly packSize?: number | undefined;
}

/** Levels: of 48 MB of programs and texts level 1 leaves 36 %, 7 leaves 32, 15 leaves 31 for seven times the time of 7. */
const LEVELS: Readonly<Partial<Record<Compression, CompressionLevel>>> = { better: 7, max: 15 };

/** Options of the pack writer of a style; as restic does, `off` compresses trees all the same. */
export function writerOptions(
  { version, compression = "auto", packSize }: PackStyle,
  type: BlobType,
): { level?: CompressionLevel; packSize?: number } {
  const level = version === 1 || (compression === "off" && type === "data") ? 0 : LEVELS[compression];
  return { ...(level === undefined ? {} : { level }), ...(packSize === undefined ? {} : { packSize }) };
}

/** False where a frame of another repository or of a store can be taken as it is. */
export function isCompressedAnew({ version, compression = "auto" }: PackStyle): boolean {
  return version === 1 || compression === "off" || compression in LEVELS;
}
