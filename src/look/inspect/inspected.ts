/** A recognised file. `content` is JSON, without secrets. */
export interface Inspected {
  format: string;
  version: number | null;
  content: unknown;
}

const LIST_LIMIT = 1000;
/** The most elements of all lists together. */
const BUDGET = 20_000;

/** Cuts long lists in the content. The last element of a cut list has the number of missing elements. */
export function cut(content: unknown): unknown {
  let left = BUDGET;
  const visit = (value: unknown): unknown => {
    if (Array.isArray(value)) {
      const room = Math.min(LIST_LIMIT, left, value.length);
      left -= room;
      const shown = value.slice(0, room).map(visit);
      return room < value.length ? [...shown, `… ${value.length - room} more`] : shown;
    }
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, visit(member)]));
  };
  return visit(content);
}
