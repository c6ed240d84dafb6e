/**
 * Times in the JSON of Go's time.Time: RFC 3339 with nanoseconds, without trailing zeros. Written in UTC; read with any
 * zone.
 */

/** 0000-01-01T00:00:00Z, the first second that a node can hold. */
export const MIN_SECONDS = -62167219200;
/** 9999-12-31T23:59:59Z, the last second that a node can hold. */
export const MAX_SECONDS = 253402300799;
/** The longest text: `9999-12-31T23:59:59.999999999Z`. */
export const MAX_TIME_LENGTH = 30;

export interface Instant {
  /** Seconds since 1970-01-01T00:00:00Z. */
  seconds: number;
  /** 0 to 999999999. */
  nanoseconds: number;
}

const dateText = new Uint8Array(11);
let dateDay = Number.NaN;

/** Writes the proleptic Gregorian date of a day, counted from 1970-01-01, into `dateText` as `YYYY-MM-DDT`. */
function formatDay(day: number): void {
  const shifted = day + 719468;
  const era = Math.floor(shifted / 146097);
  const dayOfEra = shifted - era * 146097;
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36524) - Math.floor(dayOfEra / 146096)) / 365,
  );
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const monthFromMarch = Math.floor((5 * dayOfYear + 2) / 153);
  const dayOfMonth = dayOfYear - Math.floor((153 * monthFromMarch + 2) / 5) + 1;
  const month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9;
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0);
  const text = `${String(year).padStart(4, "0")}-${String(month).padStart(2, "0")}-${String(dayOfMonth).padStart(2, "0")}T`;
  for (let i = 0; i < 11; i++) dateText[i] = text.charCodeAt(i);
  dateDay = day;
}

/** Days from 1970-01-01 to a proleptic Gregorian date. */
function dayNumber(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146097 + dayOfEra - 719468;
}

/**
 * Writes a time at `p` and returns the position after it. The caller has reserved MAX_TIME_LENGTH. A time outside the
 * years 0 to 9999 becomes the first or last instant of these years.
 */
export function putTime(b: Uint8Array, at: number, seconds: number, nanoseconds: number): number {
  if (seconds > MAX_SECONDS) return putTime(b, at, MAX_SECONDS, 999999999);
  if (seconds < MIN_SECONDS) return putTime(b, at, MIN_SECONDS, 0);
  const day = Math.floor(seconds / 86400);
  if (day !== dateDay) formatDay(day);
  let p = at;
  for (let i = 0; i < 11; i++) b[p++] = dateText[i]!;
  const rest = seconds - day * 86400;
  const hour = (rest / 3600) | 0;
  const minute = ((rest - hour * 3600) / 60) | 0;
  p = putPair(b, p, hour);
  b[p++] = 0x3a;
  p = putPair(b, p, minute);
  b[p++] = 0x3a;
  p = putPair(b, p, rest - hour * 3600 - minute * 60);
  if (nanoseconds !== 0) p = putFraction(b, p, nanoseconds);
  b[p++] = 0x5a;
  return p;
}

function putPair(b: Uint8Array, p: number, value: number): number {
  const tens = (value / 10) | 0;
  b[p] = 48 + tens;
  b[p + 1] = 48 + value - tens * 10;
  return p + 2;
}

function putFraction(b: Uint8Array, at: number, nanoseconds: number): number {
  let rest = nanoseconds;
  let digits = 9;
  while (rest % 10 === 0) {
    rest = (rest / 10) | 0;
    digits--;
  }
  b[at] = 0x2e;
  for (let i = at + digits; i > at; i--) {
    const next = (rest / 10) | 0;
    b[i] = 48 + rest - next * 10;
    rest = next;
  }
  return at + digits + 1;
}

/** Returns the text of a time. */
export function formatTime(seconds: number, nanoseconds: number): string {
  const b = new Uint8Array(MAX_TIME_LENGTH);
  return Buffer.from(b.buffer, 0, putTime(b, 0, seconds, nanoseconds)).toString("latin1");
}

let parsedPrefix = "";
let parsedDay = 0;

const DAYS_IN_MONTH = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

function parseDay(text: string): number {
  const prefix = text.slice(0, 11);
  if (prefix === parsedPrefix) return parsedDay;
  if (!/^\d{4}-\d{2}-\d{2}[Tt]$/.test(prefix)) return Number.NaN;
  const year = Number(text.slice(0, 4));
  const month = Number(text.slice(5, 7));
  const day = Number(text.slice(8, 10));
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const last = month === 2 && !leap ? 28 : (DAYS_IN_MONTH[month - 1] ?? 0);
  if (day < 1 || day > last) return Number.NaN;
  parsedDay = dayNumber(year, month, day);
  parsedPrefix = prefix;
  return parsedDay;
}

function twoDigits(text: string, at: number): number {
  const tens = text.charCodeAt(at) - 48;
  const ones = text.charCodeAt(at + 1) - 48;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : Number.NaN;
}

/** Returns the seconds of a zone `Z`, `+hh:mm` or `-hh:mm` that is the rest of the text; NaN if it is invalid. */
function parseZone(text: string, at: number): number {
  const sign = text[at];
  if (sign === "Z" || sign === "z") return at + 1 === text.length ? 0 : Number.NaN;
  if ((sign !== "+" && sign !== "-") || at + 6 !== text.length || text[at + 3] !== ":") return Number.NaN;
  const hours = twoDigits(text, at + 1);
  const minutes = twoDigits(text, at + 4);
  if (!(hours < 24 && minutes < 60)) return Number.NaN;
  return (sign === "-" ? -1 : 1) * (hours * 3600 + minutes * 60);
}

/** Reads an RFC 3339 time. Cuts off digits after the ninth of the fraction. Returns null if the text is invalid. */
export function parseTime(text: string): Instant | null {
  const day = parseDay(text);
  const hour = twoDigits(text, 11);
  const minute = twoDigits(text, 14);
  const second = twoDigits(text, 17);
  if (!(hour < 24 && minute < 60 && second < 60) || text[13] !== ":" || text[16] !== ":" || Number.isNaN(day)) {
    return null;
  }
  let at = 19;
  let nanoseconds = 0;
  if (text[at] === ".") {
    let scale = 100000000;
    const first = ++at;
    for (; at < text.length; at++) {
      const digit = text.charCodeAt(at) - 48;
      if (digit < 0 || digit > 9) break;
      nanoseconds += digit * scale;
      scale = (scale / 10) | 0;
    }
    if (at === first) return null;
  }
  const zone = parseZone(text, at);
  if (Number.isNaN(zone)) return null;
  return { seconds: day * 86400 + hour * 3600 + minute * 60 + second - zone, nanoseconds };
}
