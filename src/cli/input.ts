import { randomInt } from "node:crypto";
import { createInterface } from "node:readline/promises";
import { CairnError } from "../errors.ts";
import { printable } from "./render/format.ts";

type Argument = string | string[] | undefined;

/** The parsed arguments and options of one call, with checks of their types. */
export class Input {
  readonly #args: readonly Argument[];
  readonly #options: Record<string, unknown>;

  constructor(args: readonly Argument[], options: Record<string, unknown>) {
    this.#args = args;
    this.#options = options;
  }

  argument(place: number): string | undefined {
    const value = this.#args[place];
    return typeof value === "string" ? value : undefined;
  }

  /** Returns an argument that the parser has already required. */
  required(place: number): string {
    const value = this.argument(place);
    if (value === undefined || value === "") throw usage(`argument ${place + 1} must not be empty`);
    return value;
  }

  rest(place: number): string[] {
    const value = this.#args[place];
    return Array.isArray(value) ? value : [];
  }

  flag(name: string): boolean {
    return this.#options[name] === true;
  }

  /** True if the line has the option with these flags. */
  has(flags: string): boolean {
    const [, no, name = ""] = /--(no-)?([\w-]+)/.exec(flags)!;
    const value = this.#options[name.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase())];
    return no === undefined ? value !== undefined && value !== false : value === false;
  }

  /** True if `--no-NAME` was given. */
  denied(name: string): boolean {
    return this.#options[name] === false;
  }

  text(name: string): string | undefined {
    const value = this.#options[name];
    return typeof value === "string" ? value : undefined;
  }

  /** Returns one of a few words. Throws `usage` that names them. */
  choice<const T extends string>(name: string, values: readonly T[]): T | undefined {
    const value = this.text(name);
    if (value === undefined || values.includes(value as T)) return value as T | undefined;
    throw usage(`--${kebab(name)} must be one of ${values.join(", ")}; found ${JSON.stringify(value)}`);
  }

  list(name: string): string[] {
    const value = this.#options[name];
    return Array.isArray(value) ? value.map(String) : [];
  }

  count(name: string): number | undefined {
    const value = this.text(name);
    return value === undefined ? undefined : parseCount(value, `--${kebab(name)}`);
  }

  /** Bytes of `500M`, `2GiB` or `1000`. */
  size(name: string): number | undefined {
    const value = this.text(name);
    return value === undefined ? undefined : parseSize(value, `--${kebab(name)}`);
  }
}

export function usage(message: string, hint?: string): CairnError {
  return new CairnError("usage", message, hint === undefined ? {} : { hint });
}

/** Returns `cross-mounts` for `crossMounts`: an option's name without the dashes before it. */
export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

export function parseCount(text: string, what: string): number {
  if (!/^-?\d{1,15}$/.test(text)) throw usage(`${what} must be a whole number; found ${JSON.stringify(text)}`);
  return Number(text);
}

const SIZE_UNITS = ["", "k", "m", "g", "t"];

/** Bytes of `2GiB`, `500M` or `1000`; units are powers of 1024. */
export function parseSize(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  if (match === null) throw usage(`${what} must be a size such as 500M or 2GiB; found ${JSON.stringify(text)}`);
  const bytes = Number(match[1]) * 1024 ** SIZE_UNITS.indexOf((match[2] ?? "").toLowerCase());
  if (!Number.isSafeInteger(Math.round(bytes))) throw usage(`${what} is too large: ${JSON.stringify(text)}`);
  return Math.round(bytes);
}

const TIME_UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds of `500ms`, `10s`, `2m`, `1h`; a plain number means seconds. */
export function parseWait(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text.trim());
  if (match === null) throw usage(`${what} must be a time such as 10s or 500ms; found ${JSON.stringify(text)}`);
  const time = Math.round(Number(match[1]) * (TIME_UNITS[match[2] ?? "s"] ?? 1000));
  if (time > 2_147_483_647) throw usage(`${what} is too long: ${JSON.stringify(text)}`);
  return time;
}

const SPAN = /^(?:\d+(?:y|m|w|d|h))+$/;

/** Checks a span of retention such as `30d` or `1y6m`, and returns it unchanged. */
export function checkSpan(text: string | undefined, what: string): string | undefined {
  if (text === undefined || SPAN.test(text)) return text;
  throw usage(`${what} must be a span of at least 1h, such as 12h, 30d, 2w or 1y6m; found ${JSON.stringify(text)}`);
}

/** Reads a percentage as a share from 0 to 1. */
export function parseShare(text: string, what: string): number {
  const match = /^(\d{1,3}(?:\.\d+)?)%?$/.exec(text);
  if (match === null || Number(match[1]) > 100)
    throw usage(
      `${what} must be a percentage from 0 to 100; found ${JSON.stringify(text)}`,
      "choose how much of each pack may be unused: 0 frees every unused byte, 100 repacks nothing",
    );
  return Number(match[1]) / 100;
}

/** Reads a part such as `3/30`. A percentage becomes a random part of about that size. */
export function parsePart(text: string, what: string): { part: number; of: number } {
  const percent = Number(/^(\d{1,3}(?:\.\d{1,6})?)%$/.exec(text)?.[1]);
  if (percent > 0 && percent <= 100) {
    const parts = Math.round(100 / percent);
    return { part: randomInt(1, parts + 1), of: parts };
  }
  const match = /^(\d{1,9})\/(\d{1,9})$/.exec(text);
  const [part, of] = [Number(match?.[1]), Number(match?.[2])];
  if (match === null || part < 1 || part > of)
    throw usage(`${what} must be n/m with n from 1 to m, or a percentage; found ${JSON.stringify(text)}`);
  return { part, of };
}

/** Decodes base64 text. Requires the exact form, so that a typing error does not name another file. */
export function parseBase64(text: string, what: string): Uint8Array {
  const bytes = Buffer.from(text, "base64");
  const canonical = bytes.toString("base64").replace(/=+$/, "");
  if (bytes.length === 0 || canonical !== text.replace(/=+$/, ""))
    throw usage(`${what} is not base64: ${JSON.stringify(text)}`);
  return bytes;
}

/** Asks on a terminal. Without a terminal the answer is no. */
export async function isConfirmed(question: string): Promise<boolean> {
  if (!canAsk()) return false;
  const asking = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(?:es)?$/i.test((await asking.question(`${printable(question)} [y/N] `)).trim());
  } finally {
    asking.close();
  }
}

/** True if a person reads questions and answers them. */
export function canAsk(): boolean {
  return process.stdin.isTTY && process.stderr.isTTY;
}
