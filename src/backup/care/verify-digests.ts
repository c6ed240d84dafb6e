import { DigestWalk } from "../../repository/verify/digest-walk.ts";
import { CairnError } from "../../errors.ts";
import type { Structure } from "../../repository/verify/structure.ts";
import { type NearPacks, packsToProve } from "../../repository/read/near-packs.ts";
import { BlobSource } from "../../repository/read/blob-source.ts";
import type { LiveSet } from "../../repository/trees/live.ts";
import type { BackupProblem, VerifyBackupOptions } from "../../contract/index.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { isUnreadable, type PlacedDatabases } from "../../archive/databases/placed-databases.ts";
import { DatabasePages } from "../../archive/databases/stored-database.ts";
import type { OpenRepository } from "../open/open-repository.ts";
import { factsOfContent, snapshotContent, storedRoot } from "../open/content.ts";

export interface DigestsToProve {
  access: OpenRepository;
  structure: Structure;
  near: NearPacks;
  options: VerifyBackupOptions;
}

export interface ProvenDigests {
  /** Ids of snapshots whose digest is proven. */
  proven: string[];
  /** Wrong digests, and databases stored page by page that have changed. */
  problems: BackupProblem[];
  /** Digests that cannot be computed, by snapshot. Often a blob or tree is reported for the same damage. */
  unverified: Map<string, BackupProblem>;
  /** The entries that the walk needed; undefined if the walk could not follow every tree. */
  live: LiveSet | undefined;
}

export const NO_DIGESTS: ProvenDigests = { proven: [], problems: [], unverified: new Map(), live: undefined };

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
  const result: ProvenDigests = { proven: [], problems: [], unverified: new Map(), live: undefined };
  const pages = new Map<string, Set<number>>();
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
          for (const { path = new Uint8Array(0), detail } of await databaseFindings(
            { reader, near, placed, pages },
            options,
          ))
            result.problems.push(damaged(id, "database_damaged", { detail, loss: displayPath(path) }));
        const { manifest } = content;
        const recorded = manifest?.stateDigest ?? null;
        if (manifest === null || recorded === null) continue;
        const { state } = await walk.folder(
          storedRoot(content),
          factsOfContent({ ...content, manifest }),
          content.only,
        );
        const found = state === null ? null : Buffer.from(state).toString("hex");
        // Unreadable content is reported as damage elsewhere; a hash that was never recorded is no damage.
        if (found === null)
          result.unverified.set(id, unverified(id, "the hash of a large file is not recorded", "note"));
        else if (found === recorded) result.proven.push(id);
        else {
          const detail = `its state digest is ${found}, but recorded is ${recorded}`;
          // Another program rewrote one of our snapshots, which is no damage; a copy of a rewritten snapshot looks the
          // same.
          if (snapshot.original === undefined)
            result.problems.push(damaged(id, "digest_wrong", { detail, loss: { path: "" } }));
          else
            options.onWarning?.(
              `snapshot ${id.slice(0, 8)} differs from its save point: another program rewrote the snapshot, or it is a copy of a rewritten one; ${detail}`,
            );
        }
      } catch (error) {
        if (!(error instanceof CairnError)) throw error;
        if (error.code === "newer_version") result.unverified.set(id, unverified(id, error.message, "note"));
        else if (error.code === "damaged") result.unverified.set(id, unverified(id, error.message, "damage"));
        // A snapshot that was removed meanwhile is no finding.
        else if (error.code !== "not_found") throw error;
      }
    }
  } finally {
    blobs.close();
  }
  return walk.suspicious ? result : { ...result, live: walk.live };
}

/** `path`: raw, of the database; absent if it is not known. */
interface DatabaseFinding {
  detail: string;
  path?: Uint8Array;
}

/** Opens databases, and reads their pages unless only a part of the packs is to be read. */
async function databaseFindings(
  of: { reader: BlobSource; near: NearPacks; placed: PlacedDatabases; pages: Map<string, Set<number>> },
  { subset, signal }: VerifyBackupOptions,
): Promise<DatabaseFinding[]> {
  const { reader, near, placed, pages: proven } = of;
  const findings: DatabaseFinding[] = placed.damaged.map(({ name, error }) => ({
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

function damaged(
  object: string,
  kind: string,
  { detail, loss }: { detail: string; loss: { path: string; path_b64?: string } },
): BackupProblem {
  return { kind, object, detail, severity: "damage", losses: [{ snapshot_id: object, ...loss }] };
}

function unverified(object: string, why: string, severity: "note" | "damage"): BackupProblem {
  const detail = `its state digest was not verified: ${why}`;
  const losses = severity === "note" ? [] : [{ snapshot_id: object, path: "" }];
  return { kind: "digest_unverified", object, detail, severity, losses };
}
