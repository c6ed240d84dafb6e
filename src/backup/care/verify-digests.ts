import { DigestWalk } from "../../repository/verify/digest-walk.ts";
import { CairnError } from "../../errors.ts";
import type { Structure } from "../../repository/verify/structure.ts";
import { type NearPacks, packsToProve } from "../../repository/read/near-packs.ts";
import { BlobSource } from "../../repository/read/blob-source.ts";
import type { LiveSet } from "../../repository/trees/live.ts";
import type { VerifyBackupOptions } from "../../contract/index.ts";
import { isUnreadable, type PlacedDatabases } from "../databases/placed-databases.ts";
import { DatabasePages } from "../databases/stored-database.ts";
import type { OpenRepository } from "../open/open-repository.ts";
import { factsOfContent, snapshotContent, storedRoot } from "../open/content.ts";

export interface DigestsToProve {
  access: OpenRepository;
  structure: Structure;
  near: NearPacks;
  options: VerifyBackupOptions;
}

/**
 * Finding about the digest of a save point's snapshot. `unknown`: the digest cannot be computed, which alone is no
 * damage. `unread`: content cannot be read or understood; often a blob or tree is reported for the same damage.
 * `database`: a database stored page by page has changed.
 */
export interface DigestFinding {
  snapshot: string;
  kind: "proven" | "wrong" | "unknown" | "unread" | "database";
  /** Empty if the digest is proven. */
  detail: string;
  /** Raw path of a database. */
  path?: Uint8Array;
}

export interface ProvenDigests {
  findings: DigestFinding[];
  /** The entries that the walk needed; undefined if the walk could not follow every tree. */
  live: LiveSet | undefined;
}

/**
 * Computes the state digests of all snapshots of save points anew, from their trees and the hashes that are recorded of
 * large files, whose blobs are proven elsewhere.
 */
export async function provenPointDigests(what: DigestsToProve): Promise<ProvenDigests> {
  const { access, structure, near, options } = what;
  const { index, blobs: reader } = structure;
  // A tree that does not match its id could lead back to itself.
  const blobs = new BlobSource({ keys: access.repository.keys, index, packs: packsToProve(near.folder) });
  const walk = new DigestWalk({ blobs, signal: options.signal });
  const findings: DigestFinding[] = [];
  const proven = new Map<string, Set<number>>();
  try {
    for (const { label } of structure.roots) {
      const id = label.replace(/^snapshot /, "");
      try {
        const snapshot = await access.repository.loadSnapshot(id);
        const content = await snapshotContent(reader, snapshot);
        if (content.manifestDamage !== null) throw content.manifestDamage;
        const { placed } = content;
        placed?.takeBackFrom(reader);
        if (placed !== undefined)
          for (const found of await databaseFindings({ reader, near, placed, proven }, options))
            findings.push({ snapshot: id, kind: "database", ...found });
        const { manifest } = content;
        const recorded = manifest?.stateDigest ?? null;
        if (manifest === null || recorded === null) continue;
        const { state } = await walk.folder(
          storedRoot(content),
          factsOfContent({ ...content, manifest }),
          content.only,
        );
        const finding = compared(state, recorded);
        // Another program rewrote one of our snapshots, which is no damage; a copy of a rewritten snapshot looks the
        // same.
        if (finding.kind === "wrong" && snapshot.original !== undefined) {
          options.onWarning?.(
            `snapshot ${id.slice(0, 8)} differs from its save point: another program rewrote the snapshot, or it is a copy of a rewritten one; ${finding.detail}`,
          );
          continue;
        }
        findings.push({ snapshot: id, ...finding });
      } catch (error) {
        if (!(error instanceof CairnError)) throw error;
        if (error.code === "newer_version") findings.push({ snapshot: id, kind: "unknown", detail: error.message });
        else if (error.code === "damaged") findings.push({ snapshot: id, kind: "unread", detail: error.message });
        // A snapshot that was removed meanwhile is no finding.
        else if (error.code !== "not_found") throw error;
      }
    }
  } finally {
    blobs.close();
  }
  return { findings, live: walk.suspicious ? undefined : walk.live };
}

/** Opens databases, and reads their pages unless only a part of the packs is to be read. */
async function databaseFindings(
  of: { reader: BlobSource; near: NearPacks; placed: PlacedDatabases; proven: Map<string, Set<number>> },
  { subset, signal }: VerifyBackupOptions,
): Promise<Pick<DigestFinding, "detail" | "path">[]> {
  const { reader, near, placed, proven } = of;
  const findings: Pick<DigestFinding, "detail" | "path">[] = placed.damaged.map(({ name, error }) => ({
    detail: `.cairn/databases/${name} cannot be restored: ${error.message}`,
  }));
  for (const { path, database } of placed.below(placed.root)) {
    try {
      const pages = await DatabasePages.open(reader, database);
      const damaged = subset === undefined ? await pages.prove(near, proven, signal) : [];
      if (damaged.length === 0) continue;
      const shown = `${damaged.slice(0, 10).join(", ")}${damaged.length > 10 ? ", …" : ""}`;
      findings.push({ path, detail: `${damaged.length} of its pages are damaged: ${shown}` });
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      findings.push({ path, detail: error.message });
    }
  }
  return findings;
}

function compared(state: Uint8Array | null, recorded: string): Pick<DigestFinding, "kind" | "detail"> {
  // Unreadable content is reported as damage elsewhere; a hash that was never recorded is no damage.
  if (state === null) return { kind: "unknown", detail: "the hash of a large file is not recorded" };
  const found = Buffer.from(state).toString("hex");
  if (found === recorded) return { kind: "proven", detail: "" };
  return { kind: "wrong", detail: `its state digest is ${found}, but recorded is ${recorded}` };
}
