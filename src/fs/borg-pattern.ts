import { CairnError } from "../errors.ts";

const KINDS: Readonly<Record<string, string>> = {
  pp: "a path is written as it is",
  pf: "a path is written as it is",
  sh: "a pattern is written as it is",
  fm: "* stops at slashes here, and ** is any number of folders",
  re: "there are no regular expressions here: *, ?, sets and ** are what there is",
};

/** Throws `usage` for a pattern that names its kind first, as borg's do: it would fit nothing here, in silence. */
export function refuseBorgPattern(pattern: string): void {
  const kind = /^(pp|pf|sh|fm|re):/.exec(pattern)?.[1];
  if (kind === undefined) return;
  throw new CairnError("usage", `${JSON.stringify(pattern)} is written as for borg, and would fit nothing here`, {
    hint: `${KINDS[kind]}; for a name that begins so: \\${pattern}`,
  });
}
