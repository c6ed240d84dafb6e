const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes as a person reads them, `0 B`, `1.5 KiB`, `310 MiB`: three digits at most. */
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

/** `1,200,000`. Intl would do it and take 40 ms to load. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(?:\d{3})+$)/g, ",");
}

/** `1 file`, `1,200 files`, `3 entries`. */
export function plural(count: number, word: string): string {
  if (count === 1) return `1 ${word}`;
  const many = /[^aeiou]y$/.test(word) ? `${word.slice(0, -1)}ies` : `${word}s`;
  return `${formatCount(count)} ${many}`;
}
