import { stripVTControlCharacters } from "node:util";

type Measure = (text: string) => number;

// Widths of other characters need tables that take longer to load than most commands run.
const ASCII = /^[\u0020-\u007e]*$/;

async function measureFor(rows: readonly (readonly string[])[]): Promise<Measure> {
  const plain = rows.every((row) => row.every((cell) => ASCII.test(stripVTControlCharacters(cell))));
  if (plain) return (text) => stripVTControlCharacters(text).length;
  const { default: stringWidth } = await import("string-width");
  return (text) => stringWidth(text);
}

/** Returns rows as aligned columns with two blanks in between; columns named in `right` are aligned to the right. */
export async function renderTable(
  rows: readonly (readonly string[])[],
  right: readonly number[] = [],
): Promise<string[]> {
  const measure = await measureFor(rows);
  const measured = rows.map((row) => row.map(measure));
  const widths: number[] = [];
  for (const row of measured) {
    row.forEach((width, column) => {
      widths[column] = Math.max(widths[column] ?? 0, width);
    });
  }
  return rows.map((row, line) =>
    row
      .map((cell, column) => pad(cell, (widths[column] ?? 0) - (measured[line]?.[column] ?? 0), right.includes(column)))
      .join("  ")
      .trimEnd(),
  );
}

function pad(cell: string, missing: number, toTheRight: boolean): string {
  const blanks = " ".repeat(Math.max(0, missing));
  return toTheRight ? blanks + cell : cell + blanks;
}
