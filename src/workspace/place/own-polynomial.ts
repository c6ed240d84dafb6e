import { existsSync } from "node:fs";
import { join } from "node:path";
import { durableMkdir, durableWrite, readSmallFile } from "../../fs/durable.ts";
import { formatPolynomial, isUsable, randomPolynomial } from "../../repository/packs/polynomial.ts";
import { userStateDirectory } from "./registry.ts";

/** The file in the user's state directory. */
export const OWN_POLYNOMIAL = "chunker-polynomial";

/**
 * The chunker polynomial by which this user's new stores and repositories cut large files, so that what several
 * workspaces hold alike is stored once in a repository. Made when there is none; in hex, as configs have it.
 */
export function ownPolynomial(): string {
  return known() ?? noted(formatPolynomial(randomPolynomial()));
}

/** Takes over a repository's, where this user has none yet: what a new machine saves is cut as what it got back. */
export function learnPolynomial(polynomial: string): void {
  // The usual case, told without asking whether it is usable.
  if (written() === polynomial) return;
  if (known() === null && isUsable(polynomial)) noted(polynomial);
}

function file(): string {
  return join(userStateDirectory(), OWN_POLYNOMIAL);
}

/** Reads the file; empty where it cannot be read. */
function written(): string {
  try {
    return readSmallFile(file(), 100)?.toString("latin1").trim() ?? "";
  } catch {
    return "";
  }
}

/** Null where there is none, or nothing of use. */
function known(): string | null {
  const text = written();
  return isUsable(text) ? text : null;
}

/** Best effort: without it the next store is cut otherwise. What somebody else wrote at the same moment counts. */
function noted(polynomial: string): string {
  try {
    durableMkdir(userStateDirectory());
    // What is there and of no use is replaced.
    const exclusive = !existsSync(file());
    durableWrite(file(), Buffer.from(`${polynomial}\n`), { mode: 0o600, exclusive });
  } catch {
    // Somebody else was first, or nobody may write there.
  }
  return known() ?? polynomial;
}
