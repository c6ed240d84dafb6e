import type { DiffDatabaseResult } from "cairnstate/client";
import type { JSX } from "preact";
import { Name, visible } from "../../parts/name.tsx";
import { Counts } from "../../parts/values.tsx";
import { inKeyOrder, isOtherRow } from "./other-row.ts";

type Table = DiffDatabaseResult["tables"][number];

/** The differing tables and rows of a SQLite database. */
export function DatabaseDiff({ diff }: { diff: DiffDatabaseResult }): JSX.Element {
  if (diff.schema.length === 0 && diff.tables.length === 0)
    return <p class="note">No table and no row differs; only the file's own bytes do.</p>;
  return (
    <div class="database-diff" tabIndex={0} role="region" aria-label="Differences of the database">
      {diff.schema.map(({ type, name, sql_before, sql_after }) => (
        <section key={`${type} ${name}`}>
          <h3>
            {type} <Name text={name} />{" "}
            <span class="badge">{sql_before === null ? "added" : sql_after === null ? "removed" : "changed"}</span>
          </h3>
          {sql_before !== null && <pre class="removed">{visible(sql_before)}</pre>}
          {sql_after !== null && <pre class="added">{visible(sql_after)}</pre>}
        </section>
      ))}
      {diff.tables.map((table) => (
        <TableDiff key={table.name} table={table} />
      ))}
    </div>
  );
}

function TableDiff({ table }: { table: Table }): JSX.Element {
  const { name, key, added, changed, removed, rows, problem } = table;
  const columns = [...new Set(rows.flatMap(({ before, after }) => Object.keys({ ...before, ...after })))];
  return (
    <section>
      <h3>
        table <Name text={name} /> <Counts added={added} modified={changed} removed={removed} />
        <span class="faint"> by {key.map(visible).join(", ")}</span>
      </h3>
      {problem !== undefined && <p class="note">{visible(problem)}</p>}
      {rows.length > 0 && (
        <table class="rows">
          <thead>
            <tr>
              <td />
              {columns.map((each) => (
                <th key={each} scope="col">
                  <Name text={each} />
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {inKeyOrder(rows, key).map(({ before, after }, i) => (
              <RowDiff key={i} columns={columns} before={before} after={after} />
            ))}
          </tbody>
        </table>
      )}
      {rows.some((row) => isOtherRow(row, key)) && (
        <p class="note faint">
          Rows are matched by {key.map(visible).join(", ")}: a row that was deleted and added with the same{" "}
          {key.map(visible).join(", ")} looks like a modified one.
        </p>
      )}
      {rows.length < added + changed + removed && <p class="note faint">The first {rows.length} rows are shown.</p>}
    </section>
  );
}

type Values = Readonly<Record<string, string>>;

function RowDiff({ columns, before, after }: Table["rows"][number] & { columns: readonly string[] }): JSX.Element {
  const cells = (row: Values, other: Values | null, sign: "-" | "+"): JSX.Element => (
    <tr data-sign={sign}>
      <th scope="row">{sign === "-" ? "−" : "+"}</th>
      {columns.map((name) => (
        <td key={name} data-changed={other !== null && other[name] !== row[name]}>
          {visible((row[name] ?? "").slice(0, 500))}
        </td>
      ))}
    </tr>
  );
  return (
    <>
      {before !== null && cells(before, after, "-")}
      {after !== null && cells(after, before, "+")}
    </>
  );
}
