import type { PathPattern } from "../../contract/index.ts";
import { advice, CairnError, call, option, word } from "../../errors.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { TakenEntries } from "../../repository/trees/tree-mender.ts";
import { type Fitting, fitting } from "../open/paths.ts";

/** Matches the entries to remove by their paths, in latin1 with a leading slash. */
export interface TakesOut extends Fitting {
  /** Throws if the saved folder, or a folder above it, would be taken out. */
  requireNot(path: string): void;
  /** Throws if one pattern has matched both below the folder and as a whole path: only one meaning can be intended. */
  requireOneWay(): void;
}

export function takesOutOf(exclude: readonly PathPattern[]): TakesOut {
  const patterns = exclude.map((given) => {
    const pattern = fitting(given);
    const text = typeof given === "string" ? given : given.pattern;
    if (pattern.fits("/")) throw everything(`the pattern ${JSON.stringify(text)} fits every path`);
    return { ...pattern, text, met: { below: false, whole: false } };
  });
  if (patterns.length === 0)
    throw new CairnError("usage", "no pattern says which entries to take out", {
      hint: advice`name them with ${option("exclude", "--exclude PATTERN")}`,
    });
  return {
    isName: patterns.every(({ isName }) => isName),
    fits: (path) => patterns.some(({ fits, met }) => fits(path) && (met.below = true)),
    fitsWhole: (path) => patterns.some(({ fitsWhole, met }) => fitsWhole(path) && (met.whole = true)),
    requireNot(path) {
      if (!patterns.some(({ fitsWhole }) => fitsWhole(path))) return;
      throw everything(`${printablePath(Buffer.from(path, "latin1"))} is the saved folder, or a folder above it`);
    },
    requireOneWay() {
      const both = patterns.find(({ met }) => met.below && met.whole);
      if (both === undefined) return;
      const text = JSON.stringify(both.text);
      throw new CairnError("usage", `${text} fits one path below the saved folder, and another path from the root`, {
        hint: "leave out the slash at its start: then the pattern fits the end of a path",
      });
    },
  };
}

function everything(why: string): CairnError {
  return new CairnError("usage", `${why}: nothing would be left`, {
    hint: advice`to remove a whole snapshot, run ${call("backup forget SNAPSHOT", "forget", { snapshots: [word("snapshot")] })}`,
  });
}

/** Chooses entries to take out by their paths from the topmost tree. A path also fits as a whole, as lists print it. */
export function belowDepth({ fits, fitsWhole, isName, requireNot }: TakesOut, depth: number | null): TakenEntries {
  if (depth === null) return { fits: (path) => fits(`/${path}`), isAnywhere: () => isName };
  return {
    fits(path) {
      const parts = path.split("/");
      if (parts[0] === ".cairn") return false;
      if (parts.length > depth) return fits(`/${parts.slice(depth).join("/")}`) || fitsWhole(`/${path}`);
      requireNot(`/${path}`);
      return false;
    },
    isAnywhere(at) {
      const parts = at === "" ? [] : at.split("/");
      return isName && parts.length >= depth && parts[0] !== ".cairn";
    },
  };
}
