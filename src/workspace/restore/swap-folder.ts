import { lstatSync } from "node:fs";
import { changedAfter } from "../../clones/walk-entries.ts";
import { exchangePlaces } from "../../fs/linux/exchange-folders.ts";

/**
 * Exchanges a folder with the entry `beside` that replaces it, in one call: the commit point of every replacement of a
 * whole folder. Then `look` searches the displaced folder for a reason against the exchange, such as a process with an
 * open file. With a reason both change places again, and the reason is returned. If `look` throws, both stay exchanged.
 */
export async function swapFolder<T>(
  folder: Buffer,
  beside: Buffer,
  look: () => T | null | Promise<T | null>,
): Promise<T | null> {
  exchangePlaces(folder, beside);
  const reason = await look();
  if (reason !== null) exchangePlaces(folder, beside);
  return reason;
}

/** Tells if a copy has entries that changed at or after a moment (ns since 1970). */
export async function isWrittenSince(copy: Buffer, moment: bigint): Promise<boolean> {
  return lstatSync(copy, { bigint: true }).mtimeNs >= moment || (await changedAfter(copy, moment)) !== null;
}
