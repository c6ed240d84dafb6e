import { fstatSync, readSync } from "node:fs";
import { basename } from "node:path";
import { configOf, MsgvaultRepository, sha256 } from "../../bundle/msgvault/repository.ts";
import { CairnError } from "../../errors.ts";
import { hex } from "../../formats/bytes.ts";
import { decodeManifest, idOfManifest } from "../../formats/msgvault/manifest.ts";
import { decodeIndex, decodePack } from "../../formats/msgvault/objects.ts";
import type { Inspected } from "./inspected.ts";
import type { FileToInspect } from "./repository-file.ts";

/** Shows a msgvault repository with its snapshots; null for any other folder. */
export function inspectMsgvaultFolder(path: string): Inspected | null {
  const config = configOf(path);
  if (config === null) return null;
  using repository = MsgvaultRepository.open(path);
  const snapshots = repository.list().map((each) => {
    if ("problem" in each) return { snapshot_id: each.id, problem: each.problem.message };
    const { createdAt, parentId, tag, program, database, metadata, attachments, auxiliary } = each.manifest;
    return {
      snapshot_id: each.id,
      created_at: createdAt,
      parent_id: parentId,
      tag,
      program_version: program,
      database,
      metadata,
      auxiliary: auxiliary.map(({ name }) => name),
      attachments: { rows: attachments.rows, blobs: attachments.blobs, bytes: attachments.bytes },
    };
  });
  return {
    format: "msgvault-repository",
    version: config.formatVersion,
    content: { repository_id: config.repositoryId, snapshots },
  };
}

/** Shows a manifest, an index or a pack of a msgvault repository; null for any other file. */
export function inspectMsgvaultFile(file: FileToInspect, magic: string): Inspected | null {
  if (magic.startsWith("MVPK")) {
    const read = (at: number, length: number): Buffer => {
      const bytes = Buffer.alloc(length);
      if (readSync(file.descriptor, bytes, 0, length, at) === length) return bytes;
      throw new CairnError("damaged", `the pack is truncated at ${fstatSync(file.descriptor).size}`);
    };
    const entries = decodePack("the pack", { size: file.size, read, sha256 });
    const blobs = [...entries].map(([id, { offset, stored, raw, isCompressed }]) => ({
      id: hex(Buffer.from(id, "latin1")),
      offset,
      length: stored,
      uncompressed_length: isCompressed ? raw : null,
    }));
    return { format: "msgvault-pack", version: 1, content: { blobs } };
  }
  if (magic.startsWith("MVIX")) {
    const blobs: unknown[] = [];
    decodeIndex(file.read(), sha256, (id, { pack, offset, stored }) =>
      blobs.push({ id: hex(Buffer.from(id, "latin1")), pack, offset, length: stored }),
    );
    return { format: "msgvault-index", version: 1, content: { blobs } };
  }
  const id = idOfManifest(basename(file.path));
  if (id === null) return null;
  const bytes = file.read();
  const { formatVersion } = decodeManifest(bytes, id, sha256);
  return {
    format: "msgvault-snapshot",
    version: formatVersion,
    content: JSON.parse(Buffer.from(bytes).toString("utf8")) as unknown,
  };
}
