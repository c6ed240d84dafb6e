import { CairnError } from "../../errors.ts";
import { Fields, type JsonObject, parseJson } from "../fields.ts";

/** The envelope of an export directory: docs/formats/export-directory.md. */

export const ENVELOPE = "snapshot.json";
/** Folder of the content, below the directory. */
export const CONTENT = "content";
const ENVELOPE_VERSION = 1;

export type Kind = "workspace" | "vm";

/** A file of the export directory. */
export interface EnvelopeFile {
  /** Path below the directory; raw bytes as latin1, so that any name is a text. */
  name: string;
  size: number;
  /** Bytes on the disk; fewer than `size` for a file with holes. */
  allocated: number;
  sha256: string;
  role: string;
}

/** An entry without content. */
export interface EnvelopeEntry {
  name: string;
  kind: "directory" | "symlink" | "fifo" | "socket" | "device";
  /** The target of a link, as latin1. */
  target?: string;
}

export interface Envelope {
  kind: Kind;
  config: JsonObject & { id: string; name: string };
  /** State digest of a workspace, to verify a copy. */
  stateDigest: string | null;
  files: EnvelopeFile[];
  entries: EnvelopeEntry[];
}

const ENTRY_KINDS = ["directory", "symlink", "fifo", "socket", "device"] as const;

/** A name that is not UTF-8 is also given in base64, since JSON has no bytes. */
function named(name: string): JsonObject {
  const bytes = Buffer.from(name, "latin1");
  const text = bytes.toString("utf8");
  return Buffer.from(text, "utf8").equals(bytes) ? { name: text } : { name: text, name_b64: bytes.toString("base64") };
}

export function encodeEnvelope({ kind, config, stateDigest, files, entries }: Envelope): Uint8Array {
  const value = {
    version: ENVELOPE_VERSION,
    kind,
    config,
    ...(stateDigest === null ? {} : { state_digest: stateDigest }),
    files: files.map(({ name, ...rest }) => ({ ...named(name), ...rest })),
    entries: entries.map(({ name, kind: what, target }) => ({
      ...named(name),
      kind: what,
      ...(target === undefined ? {} : { target_b64: Buffer.from(target, "latin1").toString("base64") }),
    })),
  };
  return Buffer.from(`${JSON.stringify(value, null, 1)}\n`);
}

/** Throws `damaged` with the wrong field, `newer_version` for any version but 1. */
export function decodeEnvelope(bytes: Uint8Array): Envelope {
  const fields = new Fields(parseJson(bytes, ENVELOPE), ENVELOPE);
  fields.requireVersion(ENVELOPE_VERSION);
  if (!fields.has("kind") && fields.has("config") && fields.object("config").has("hypervisor"))
    throw new CairnError(
      "refused",
      "it is a snapshot of cocoon: its machine runs under another hypervisor, which Cairn does not use",
    );
  const kind = (["workspace", "vm"] as const).find((each) => fields.isText("kind", each));
  if (kind === undefined) throw fields.wrong("kind", "workspace or vm");
  const config = fields.object("config");
  const [id, name] = [config.text("id"), config.text("name")];
  const files = fields.list("files", (value, label): EnvelopeFile => {
    const file = new Fields(value, label);
    return {
      name: nameOf(file),
      size: file.integer("size"),
      allocated: file.integer("allocated"),
      sha256: file.hex("sha256", 64),
      role: file.text("role"),
    };
  });
  const entries = !fields.has("entries")
    ? []
    : fields.list("entries", (value, label): EnvelopeEntry => {
        const entry = new Fields(value, label);
        const what = ENTRY_KINDS.find((each) => entry.isText("kind", each));
        if (what === undefined) throw entry.wrong("kind", `one of ${ENTRY_KINDS.join(", ")}`);
        const target = what === "symlink" ? Buffer.from(entry.base64("target_b64")).toString("latin1") : undefined;
        return { name: nameOf(entry), kind: what, ...(target === undefined ? {} : { target }) };
      });
  return {
    kind,
    config: { ...config.rest(), id, name },
    stateDigest: fields.has("state_digest") ? fields.hex("state_digest", 64) : null,
    files,
    entries,
  };
}

/** Returns a path within the directory. Throws `damaged` if it leads out of it. */
function nameOf(fields: Fields): string {
  const text = fields.text("name", 1 << 16);
  const name = fields.has("name_b64")
    ? Buffer.from(fields.base64("name_b64")).toString("latin1")
    : Buffer.from(text).toString("latin1");
  const names = name.split("/");
  if (name.includes("\0") || names.some((each) => each === "" || each === "." || each === ".."))
    throw fields.wrong("name", "a path inside the directory");
  return name;
}
