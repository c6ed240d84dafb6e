const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Formats bytes for people: `0 B`, `1.5 KiB`, `310 MiB`; at most three digits. */
export function formatBytes(bytes: number): string {
  let value = Math.abs(bytes);
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${bytes < 0 ? "-" : ""}${Number(value.toFixed(digits))} ${UNITS[unit]}`;
}

/** Formats a number as `1,200,000`. Intl would take 40 ms to load. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(?:\d{3})+$)/g, ",");
}

/** Returns `1 file`, `1,200 files`, `3 entries`. */
export function plural(count: number, word: string): string {
  if (count === 1) return `1 ${word}`;
  const many = /[^aeiou]y$/.test(word) ? `${word.slice(0, -1)}ies` : `${word}s`;
  return `${formatCount(count)} ${many}`;
}
