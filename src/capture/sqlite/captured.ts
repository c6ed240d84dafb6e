import type { SIDECARS } from "../../formats/sqlite-header.ts";
import type { Statistics } from "./image.ts";

/** `pinned`: read while a lock kept the file as it was; `backup`: by SQLite's backup; `copy`: copied as a plain file. */
export type Method = "pinned" | "backup" | "copy";
export type Label = "transaction-consistent" | "crash-consistent" | "torn-possible";

export interface CaptureRequest {
  /** Absolute raw path of the database, without links. */
  path: Uint8Array;
  /** An empty folder for the image, which is named `image` there. */
  stage: string;
  /** False: nothing is written to the database or its log. */
  checkpoint: boolean;
  /** Have SQLite check the whole image. */
  integrityCheck: boolean;
}

/** An image, and how it was made. */
export interface Captured {
  label: Label;
  method: Method;
  /** Reason why it is only a plain copy, or may be torn. */
  reason: string | null;
  bytes: number;
  /** Null if it is no database. */
  page_size: number | null;
  pages: number | null;
  /** Hash of the image, without the page at the lock byte. */
  sha256: string;
  /** Milliseconds for which a lock was held. */
  held_ms: number;
  wal_bytes_before: number;
  wal_bytes_after: number;
  /** Null for a plain copy. */
  statistics: Statistics | null;
  /** Problems that SQLite's check of the image found; null if it was not checked. */
  problems: string[] | null;
  warnings: string[];
  /** Files that belong to a plain copy, by their endings. */
  sidecars: (typeof SIDECARS)[number][];
}

/** A readable database: its own file until it is released, or the image in the request's folder. */
export type Held = Pick<Captured, "label" | "reason" | "sidecars"> & { isImage: boolean };
