import { OriginFinder, type Origins } from "../cache/origins.ts";
import { signedWide, STAT, type StatBuffer, type Syscalls, TYPE } from "../../fs/linux/syscalls.ts";

/** Facts of the folder that a tree is a clone of. */
export interface ClonedFrom extends Origins {
  /** when the clone was complete, in milliseconds since 1970: what was changed later is no clone any more */
  readonly until: number;
}

/**
 * System calls that show a clone's entries as those of its source at the moment when each was cloned: a scan then takes
 * over what a scan of the source left in the stat cache, by the same rules, and leaves there what holds for the source.
 * An entry of which nothing is known, or that was changed after it was made, is shown as it is.
 */
export function asSource(sys: Syscalls, from: ClonedFrom): Syscalls {
  const finder = new OriginFinder(from);
  const show = (result: number, { words }: StatBuffer): number => {
    if (result < 0 || signedWide(words, STAT.CTIME) * 1000 + words[STAT.CTIME_NS]! / 1e6 > from.until) return result;
    finder.apply(words, (words[STAT.MODE]! & 0xf000) >>> 12 === TYPE.DIRECTORY);
    return result;
  };
  return {
    ...sys,
    stat: (dirfd, names, name, out) => show(sys.stat(dirfd, names, name, out), out),
    fstat: (fd, out) => show(sys.fstat(fd, out), out),
  };
}
