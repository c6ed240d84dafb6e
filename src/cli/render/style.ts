import { styleText } from "node:util";

type Format = "bold" | "dim" | "red" | "green" | "yellow" | "cyan";

/** Formats of text; the plain style changes nothing. */
export type Style = Record<Format, (text: string) => string>;

const FORMATS: readonly Format[] = ["bold", "dim", "red", "green", "yellow", "cyan"];

export function makeStyle(coloured: boolean): Style {
  const style: Partial<Style> = {};
  for (const format of FORMATS) {
    style[format] = coloured ? (text) => styleText(format, text, { validateStream: false }) : (text) => text;
  }
  return style as Style;
}

export const PLAIN = makeStyle(false);

/** ASCII replacements of Cairn's own characters. */
const ASCII: Record<string, string> = { "·": "-", "→": "->", "…": "...", "–": "-", "█": "#", "░": ".", "␍": "^M" };

/**
 * Returns a function that replaces Cairn's own characters by ASCII in the locales C and POSIX; JSON stays unchanged.
 */
export function inLocale(env: Record<string, string | undefined>): (text: string) => string {
  const locale = [env["LC_ALL"], env["LC_CTYPE"], env["LANG"]].find((each) => each !== undefined && each !== "");
  if (locale !== "C" && locale !== "POSIX") return (text) => text;
  return (text) => (text.startsWith("{") ? text : text.replaceAll(/[·→…–█░␍]/g, (each) => ASCII[each]!));
}

/**
 * Uses colour only on a terminal, never with NO_COLOR (https://no-color.org: any non-empty value) or a dumb terminal;
 * always with FORCE_COLOR.
 */
export function wantsColour(isTerminal: boolean, env: Record<string, string | undefined>): boolean {
  if ((env["NO_COLOR"] ?? "") !== "") return false;
  const forced = env["FORCE_COLOR"] ?? "";
  return (forced !== "" && forced !== "0") || (isTerminal && env["TERM"] !== "dumb");
}
