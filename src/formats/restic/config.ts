import { CairnError } from "../../errors.ts";
import { Fields, goJsonText, parseJson, type JsonObject } from "../fields.ts";

/** The config of a repository; sealed without compression and without a version byte. */
export interface RepositoryConfig {
  /** 1 or 2; new repositories have 2. */
  version: number;
  /** 64 hex digits. */
  id: string;
  /** An irreducible polynomial over GF(2) of degree 53, in hex. */
  chunker_polynomial: string;
  /** rustic's setting: true forbids removals except of locks. */
  append_only?: boolean;
  extra?: JsonObject;
}

export function encodeConfig(config: RepositoryConfig): Uint8Array {
  const { extra, version, id, chunker_polynomial, append_only } = config;
  const more = append_only === undefined ? {} : { append_only };
  return Buffer.from(goJsonText({ version, id, chunker_polynomial, ...more, ...extra }), "utf8");
}

/** Throws `damaged`, naming the field, or `newer_version`. Does not check whether the polynomial is irreducible. */
export function decodeConfig(bytes: Uint8Array): RepositoryConfig {
  const fields = new Fields(parseJson(bytes, "config"), "config");
  const version = fields.integer("version", 0xffffffff, 1);
  if (version > 2) {
    throw new CairnError("newer_version", `config: repository format ${version}; this program knows 1 and 2`, {
      hint: "a newer Cairn or restic made this repository: open it with that version or a later one",
    });
  }
  const config: RepositoryConfig = {
    version,
    id: fields.hex("id", 64),
    chunker_polynomial: fields.text("chunker_polynomial", 16),
  };
  if (!/^[0-9a-f]{1,16}$/.test(config.chunker_polynomial)) throw fields.wrong("chunker_polynomial", "hex digits");
  if (fields.has("append_only")) config.append_only = fields.boolean("append_only");
  const extra = fields.rest();
  if (Object.keys(extra).length > 0) config.extra = extra;
  return config;
}
