import { existsSync, readdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { CairnError, toCairnError } from "../errors.ts";
import { sequenceOfName } from "./control-layout.ts";

/** The sequence numbers in a folder of points, read again only when the folder's time says so. */

interface Listing {
  readonly mtimeNs: bigint;
  readonly ino: bigint;
  readonly sequences: readonly number[];
}

/** By directory, for the whole process: several objects look at the same points within one command. */
const listings = new Map<string, Listing>();

// A change within one tick of the kernel's clock leaves the directory's time as it is.
const CLOCK_TICK_NS = 20_000_000n;
/** Where times have whole seconds, or two as on FAT. */
const COARSE_TICK_NS = 2_100_000_000n;

function isCoarse(mtimeNs: bigint): boolean {
  return mtimeNs % 1_000_000_000n === 0n;
}

/** Doctor makes no empty one instead: all points would be gone for good, and what the store has of them with the next cleanup. */
const LOST =
  "put it back from a copy of the control directory, or from where it was moved to: the store keeps what the save points hold until then";

/** All sequence numbers that are taken, ascending. `damaged` where it alone is gone. */
export function listSequences(directory: string): readonly number[] {
  try {
    const { mtimeNs, ino } = statSync(directory, { bigint: true });
    const known = listings.get(directory);
    if (known?.mtimeNs === mtimeNs && known.ino === ino) return known.sequences;
    const sequences = sortedSequences(readdirSync(directory));
    const age = BigInt(Date.now()) * 1_000_000n - mtimeNs;
    if (age > (isCoarse(mtimeNs) ? COARSE_TICK_NS : CLOCK_TICK_NS))
      listings.set(directory, { mtimeNs, ino, sequences });
    else listings.delete(directory);
    return sequences;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const isLost = code === "ENOTDIR" || (code === "ENOENT" && existsSync(dirname(directory)));
    if (!isLost) throw toCairnError(error, `list ${directory}`);
    const what = code === "ENOENT" ? "is not there" : "is no folder any more";
    throw new CairnError("damaged", `the save points' folder ${directory} ${what}`, { hint: LOST, cause: error });
  }
}

/** The next look reads the directory, whatever its time says. */
export function forgetListing(directory: string): void {
  listings.delete(directory);
}

/** Whoever claims a number holds the lock, so that nobody else adds one: the listing need not be read again. */
export function addToListing(directory: string, sequence: number): void {
  const known = listings.get(directory);
  const { mtimeNs, ino } = statSync(directory, { bigint: true });
  // With times in whole seconds another process's change can follow within this one.
  const fits = known?.ino === ino && !isCoarse(mtimeNs) && (known.sequences.at(-1) ?? 0) < sequence;
  if (fits) listings.set(directory, { mtimeNs, ino, sequences: [...known.sequences, sequence] });
  else listings.delete(directory);
}

function sortedSequences(names: readonly string[]): number[] {
  const sequences = new Float64Array(names.length);
  let count = 0;
  for (const name of names) {
    const sequence = sequenceOfName(name);
    if (sequence > 0) sequences[count++] = sequence;
  }
  return Array.from(sequences.subarray(0, count).sort());
}
