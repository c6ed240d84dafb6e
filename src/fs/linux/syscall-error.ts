import { CairnError, codeOfErrno, hintOfErrno } from "../../errors.ts";

const ERRNO_NAMES = new Map<number, string>();

/** The name of an errno value, e.g. 2 → `ENOENT`. */
export function errnoName(errno: number): string {
  if (ERRNO_NAMES.size === 0) {
    for (const [name, value] of Object.entries(osErrno())) if (!ERRNO_NAMES.has(value)) ERRNO_NAMES.set(value, name);
  }
  return ERRNO_NAMES.get(errno) ?? `errno ${errno}`;
}

function osErrno(): Record<string, number> {
  return (process.getBuiltinModule("node:os").constants.errno as unknown as Record<string, number>) ?? {};
}

/** A CairnError for a negative result. */
export function syscallError(
  result: number,
  doing: string,
  hint: string | undefined = hintOfErrno(errnoName(-result)),
): CairnError {
  const name = errnoName(-result);
  return new CairnError(codeOfErrno(name), `${doing}: ${name}`, {
    ...(hint === undefined ? {} : { hint }),
    details: { errno: name },
  });
}
