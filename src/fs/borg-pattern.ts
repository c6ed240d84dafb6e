import { CairnError } from "../errors.ts";

const KINDS: Readonly<Record<string, string>> = {
  pp: "write a path without a prefix",
  pf: "write a path without a prefix",
  sh: "write a pattern without a prefix",
  fm: "write the pattern without a prefix; * does not match slashes here, and ** matches any number of folders",
  re: "use *, ?, sets and **: Cairn has no regular expressions",
};

/**
 * Throws `usage` for a pattern that begins with a kind, as borg's do: here it would match nothing, without an error.
 */
export function refuseBorgPattern(pattern: string): void {
  const kind = /^(pp|pf|sh|fm|re):/.exec(pattern)?.[1];
  if (kind === undefined) return;
  throw new CairnError(
    "usage",
    `${JSON.stringify(pattern)} has a prefix of borg's patterns, and would match nothing here`,
    {
      hint: `${KINDS[kind]}; to match a name that begins with this prefix: \\${pattern}`,
    },
  );
}
