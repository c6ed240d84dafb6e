import type { DiffDatabaseResult } from "../../verbs/schemas.ts";
import { formatCount, plural, printable } from "./format.ts";
import type { Style } from "./style.ts";

type Table = DiffDatabaseResult["tables"][number];

/** Shows changed definitions, then each table with the counts of its changed rows and the first of them. */
export function renderDatabaseDiff({ path, schema, tables }: DiffDatabaseResult, style: Style): string {
  const lines = schema.flatMap(({ type, name, sql_before: before, sql_after: after }) => {
    const sign = before === null ? style.green("A") : after === null ? style.red("D") : style.yellow("M");
    const sql = [
      ...(before === null ? [] : [style.red(`  - ${printable(before)}`)]),
      ...(after === null ? [] : [style.green(`  + ${printable(after)}`)]),
    ];
    return [`${sign} ${type} ${printable(name)}`, ...sql];
  });
  for (const table of tables) {
    lines.push(`${style.bold(printable(table.name))}: ${describe(table)}`);
    for (const { before, after } of table.rows) lines.push(rowLine(before, after, { key: table.key, style }));
  }
  if (lines.length === 0) lines.push(`${printable(path)}: no difference`);
  return lines.join("\n");
}

function describe({ added, removed, changed, rows, problem }: Table): string {
  if (problem !== undefined) return `rows not compared: ${printable(problem)}`;
  const counts = Object.entries({ added, removed, changed }).filter(([, count]) => count > 0);
  const said = counts.map(([word, count]) => `${formatCount(count)} ${word}`).join(", ");
  const left = added + removed + changed - rows.length;
  return left === 0 ? said : `${said} (${plural(left, "row")} not shown)`;
}

type Row = Readonly<Record<string, string>> | null;

function rowLine(before: Row, after: Row, { key, style }: { key: readonly string[]; style: Style }): string {
  const shown = (row: Readonly<Record<string, string>>, columns: readonly string[]): string =>
    columns.map((column) => `${printable(column)}=${printable(row[column] ?? "")}`).join(" ");
  if (before === null) return style.green(`  + ${shown(after!, Object.keys(after!))}`);
  if (after === null) return style.red(`  - ${shown(before, Object.keys(before))}`);
  const changes = Object.keys(after).filter((column) => before[column] !== after[column]);
  const said = changes.map(
    (column) => `${printable(column)}: ${printable(before[column]!)} → ${printable(after[column]!)}`,
  );
  return style.yellow(`  ~ ${shown(after, key)}  ${said.join(", ")}`);
}
