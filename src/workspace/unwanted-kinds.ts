import { CairnError } from "../errors.ts";

/** What a save is told to leave out by what is found, beside patterns. */
export interface Unwanted {
  /** of folders with a valid `CACHEDIR.TAG` all but that */
  excludeCaches?: boolean | undefined;
  /** of folders with an entry of that name all but that; `NAME:HEADER`: with a file that begins so */
  excludeIfPresent?: readonly string[] | undefined;
  /** regular files of more bytes */
  excludeLargerThan?: number | undefined;
}

export function unwantedOf({ excludeCaches, excludeIfPresent, excludeLargerThan }: Unwanted): Unwanted {
  return { excludeCaches, excludeIfPresent, excludeLargerThan };
}

/** The same, checked. */
export interface UnwantedKinds {
  tags: readonly Tag[];
  largest: number;
}

/** An entry that says of the folder in which it lies that it is not wanted. */
export interface Tag {
  /** latin1 */
  name: string;
  /** how the file begins; empty: any entry of that name will do */
  header: Buffer;
}

/** The first bytes of the file are what makes it one: https://bford.info/cachedir/ */
const CACHE: Tag = { name: "CACHEDIR.TAG", header: Buffer.from("Signature: 8a477f597d28d172789f06886806bc55") };
const MAX_HEADER_BYTES = 4096;

/** Null where nothing is to be left out by what it is. Throws `usage`. */
export function unwantedKinds({ excludeCaches, excludeIfPresent, excludeLargerThan }: Unwanted): UnwantedKinds | null {
  const tags = (excludeIfPresent ?? []).map(tagOf);
  if (excludeCaches === true) tags.push(CACHE);
  if (excludeLargerThan !== undefined && !(excludeLargerThan >= 1))
    throw new CairnError("usage", "a size of less than one byte would leave every file out");
  const largest = excludeLargerThan ?? Infinity;
  return tags.length === 0 && largest === Infinity ? null : { tags, largest };
}

function tagOf(given: string): Tag {
  const colon = given.indexOf(":");
  const name = colon < 0 ? given : given.slice(0, colon);
  const header = Buffer.from(given.slice(name.length + 1));
  if (name === "" || name === "." || name === ".." || /[/\0]/.test(name))
    throw new CairnError("usage", `${JSON.stringify(given)} begins with no name of an entry in a folder`, {
      hint: "NAME, or NAME:HEADER for a file that begins so",
    });
  if (header.length > MAX_HEADER_BYTES)
    throw new CairnError("usage", `${JSON.stringify(name)}: ${header.length} bytes are too many to be a header`);
  return { name: Buffer.from(name).toString("latin1"), header };
}
