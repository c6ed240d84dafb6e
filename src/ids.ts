import { randomBytes } from "node:crypto";
import { CairnError } from "./errors.ts";

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** 32 lower-case hex digits: one save point. */
export type SavePointId = Branded<"SavePointId">;
/** 32 lower-case hex digits: one workspace. */
export type WorkspaceId = Branded<"WorkspaceId">;
/** 32 lower-case hex digits: one control directory. */
export type ControlId = Branded<"ControlId">;
/** 64 lower-case hex digits: the SHA-256 that names a blob, pack, index, snapshot, key or lock of a repository. */
export type ObjectId = Branded<"ObjectId">;

const SHORT = /^[0-9a-f]{32}$/;
const LONG = /^[0-9a-f]{64}$/;

function randomHexId(): string {
  return randomBytes(16).toString("hex");
}

export function newSavePointId(): SavePointId {
  return randomHexId() as SavePointId;
}

export function newWorkspaceId(): WorkspaceId {
  return randomHexId() as WorkspaceId;
}

export function newControlId(): ControlId {
  return randomHexId() as ControlId;
}

export function isSavePointId(text: string): text is SavePointId {
  return SHORT.test(text);
}

export function parseObjectId(text: string): ObjectId {
  if (!LONG.test(text)) throw new CairnError("invalid_id", `not an object id: ${JSON.stringify(text.slice(0, 80))}`);
  return text as ObjectId;
}

/** Returns the id of 32 raw bytes. */
export function objectIdOf(bytes: Uint8Array): ObjectId {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex") as ObjectId;
}
