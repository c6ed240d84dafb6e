import fs from "node:fs";
import { presentSource } from "../engines/scan/present-source.ts";
import { asVerifying, scan, type ScanResult } from "../engines/scan/scan.ts";
import { CairnError, throwIfAborted } from "../errors.ts";
import { NO_RULES } from "../fs/ignore.ts";
import { attributesOf } from "../fs/own-attributes.ts";
import { printablePath } from "../fs/safe-path.ts";
import { formatPolynomial, randomPolynomial } from "../repository/polynomial.ts";
import { diffTrees } from "./tree-diff.ts";
import type { WorkspaceCall } from "./workspace.ts";

const SHOWN = 5;

/**
 * Reads two folders from end to end and throws `conflict`, with what differs, unless they hold the same: both digests,
 * every extended attribute, and what their roots say of themselves.
 */
export async function requireSameTrees(one: Buffer, other: Buffer, call: WorkspaceCall): Promise<void> {
  const chunkerPolynomial = formatPolynomial(randomPolynomial());
  const [a, b] = [await read(one, chunkerPolynomial, call), await read(other, chunkerPolynomial, call)];
  const paths: string[] = [];
  // Also attributes that no digest covers are compared; trees of equal states need not have the same ids.
  for (const { path } of diffTrees(presentSource(a), presentSource(b)))
    if (paths.push(printablePath(path)) > SHOWN) break;
  const isSame =
    paths.length === 0 && equal(a.state, b.state) && equal(a.meta, b.meta) && rootFacts(one) === rootFacts(other);
  if (isSame && a.notes.torn.length === 0 && a.notes.omitted.length === 0) return;
  const named = paths.length === 0 ? "what the folder says of itself" : paths.slice(0, SHOWN).join(", ");
  throw new CairnError("conflict", `${printablePath(one)} is not what was copied of it: ${named}`, {
    hint: "somebody writes into it: try again when nobody does",
  });
}

async function read(root: Buffer, chunkerPolynomial: string, call: WorkspaceCall): Promise<ScanResult> {
  call.onProgress?.({ phase: "verifying", done: 0 });
  throwIfAborted(call.signal);
  return scan({
    root,
    cache: null,
    excludes: [],
    rules: NO_RULES,
    chunkerPolynomial,
    onProgress: (progress) => call.onProgress?.(asVerifying(progress)),
    ...(call.signal === undefined ? {} : { signal: call.signal }),
  });
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** What a folder says of itself and no tree holds: mode, owner, time and extended attributes. */
export function rootFacts(folder: Buffer): string {
  const { mode, uid, gid, mtimeNs } = fs.lstatSync(folder, { bigint: true });
  return JSON.stringify([mode, uid, gid, mtimeNs].map(String).concat(attributesOf(folder)));
}
