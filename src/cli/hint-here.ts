import { adviceOf, type CairnError, reworded, worded } from "../errors.ts";
import type { Context } from "./context.ts";
import type { Input } from "./input.ts";
import { shellQuote } from "./render/format.ts";

/** Password in an address: it is not repeated. */
const SECRET = /:\/\/[^/]*:[^/]*@/;

/**
 * Completes the commands of an error's hint with the folder and the repository that the failed command named, so that
 * they can be copied: `cairn history` becomes `cairn -C /a/docs history`.
 */
export async function hintHere(error: CairnError, context: Context, input: Input): Promise<CairnError> {
  const advice = adviceOf(error);
  if (typeof advice !== "object") return error;
  let place: string[];
  try {
    place = context.placeWords().map(shellQuote);
  } catch {
    // The name of the folder was wrong.
    return error;
  }
  const [repo, passwordFile] = [input.text("repo"), input.text("passwordFile")];
  const named = repo === undefined || SECRET.test(repo) ? [] : ["-r", shellQuote(repo)];
  const password = passwordFile === undefined ? [] : ["--password-file", shellQuote(passwordFile)];
  if (place.length + named.length + password.length === 0) return error;
  const { CLIENT_VERBS } = await import("../verbs/index.ts");
  const hint = worded(advice, ({ typed, verbs = [] }) => {
    const isPlaced = / (?:-C|--control-dir|-r) |^`?cairn(?: [\w-]+)+ ['~/]/.test(typed);
    const isBackup = /^`?cairn backup /.test(typed);
    const isHere = isBackup ? named.length === 0 : verbs.some((verb) => verb in CLIENT_VERBS);
    const begun = isHere && !isPlaced ? typed.replace(/^`?cairn(?= )/, (start) => [start, ...place].join(" ")) : typed;
    const more = isBackup ? [...(isPlaced ? [] : named), ...password] : [];
    return begun.replace(/(?=`?$)/, () => more.map((word) => ` ${word}`).join(""));
  });
  return reworded(error, { hint, cause: error.cause });
}
