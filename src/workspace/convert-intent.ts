import { readIntentLink, removeIntentLink, writeIntentLink } from "./intent-link.ts";

/** What a conversion writes down before it begins: the target of a link, as for an exchange. */
export interface ConvertIntent {
  /** name, beside the folder, of the copy and after the exchange of the original */
  name: string;
  /** of the copy's subvolume, 32 hex digits: whose it is that lies at the folder's path tells whether the exchange took place */
  uuid: string;
  /** ns since 1970: the copy was begun after it, so that what changed before is in it */
  since: bigint;
  /** ns since 1970: the copy was whole and compared before it; 0 until then */
  made: bigint;
}

/** Its name in the journal directory. */
export const CONVERT_JOURNAL = "convert";
const PREFIX = ".cairn-original-";
const NAME = new RegExp(`^\\${PREFIX}[0-9a-f]{16}$`);

/** True for a name that {@link originalName} gives. */
export function isOriginalName(name: string): boolean {
  return NAME.test(name);
}

/** The name beside a folder for 16 hex digits. */
export function originalName(digits: string): string {
  return `${PREFIX}${digits}`;
}

export function writeConvertIntent(journal: string, { name, uuid, since, made }: ConvertIntent): void {
  writeIntentLink(journal, CONVERT_JOURNAL, ["cairn.convert.1", name, uuid, since, made]);
}

export function removeConvertIntent(journal: string): void {
  removeIntentLink(journal, CONVERT_JOURNAL);
}

/** Null where there is none. Throws `damaged`. */
export function readConvertIntent(journal: string): ConvertIntent | null {
  return readIntentLink(journal, CONVERT_JOURNAL, (target) => {
    const said = /^cairn\.convert\.1:(\.cairn-original-[0-9a-f]{16}):([0-9a-f]{32}):(\d{1,20}):(\d{1,20})$/.exec(
      target,
    );
    return said && { name: said[1]!, uuid: said[2]!, since: BigInt(said[3]!), made: BigInt(said[4]!) };
  });
}
