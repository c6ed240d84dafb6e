import { signal, useSignal } from "@preact/signals";
import type { DiffEntry, DiffTextResult } from "cairnstate/client";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { call, download } from "../../app/calls.ts";
import { useActions } from "../../app/keys.ts";
import { useResource } from "../../app/resource.ts";
import { href, nameOf, toInput, toText } from "../../app/address.ts";
import { route } from "../../app/route.ts";
import { Icon } from "../../parts/icon.tsx";
import { PathName } from "../../parts/name.tsx";
import { isPicture, useContentAddress } from "../../app/picture.ts";
import { size } from "../../parts/numbers.ts";
import { Late, Problem } from "../../parts/problem.tsx";
import { DatabaseDiff } from "./database-diff.tsx";
import { Sides } from "./sides.tsx";
import { TextDiff } from "./text-diff.tsx";

const DATABASE = /\.(?:db|sqlite|sqlite3|db3)$/i;
/** Files above this many bytes are compared only on request. */
const ON_DEMAND = 4 << 20;
const WHOLE = 1_000_000;

// Settings for all files, until the page is closed.
const isSplit = signal(false);
const ignoresBlanks = signal(false);
const isWhole = signal(false);
const isWrapped = signal(true);

export interface FileDiffProps {
  workspace: string;
  /** The two compared states; `to` null: the present folder. */
  from: string;
  to: string | null;
  entry: DiffEntry;
  /** Called if the file is in neither state any more. */
  gone?: (() => void) | undefined;
}

/** The change of one file. */
export function FileDiff(props: FileDiffProps): JSX.Element {
  const { workspace, from, to, entry } = props;
  useActions([
    { key: "v", title: "Show differences side by side, or in one column", run: () => (isSplit.value = !isSplit.value) },
    { key: "w", title: "Ignore white space, or not", run: () => (ignoresBlanks.value = !ignoresBlanks.value) },
  ]);
  return (
    <section class="file-diff" aria-label="Change of the file">
      <header>
        <h2>
          <PathName path={entry.path} />
        </h2>
        <span class="space" />
        {route.value.view !== "file-history" && (
          <a class="button quiet" href={href({ view: "file-history", workspace, at: entry })}>
            <Icon name="history" /> History
          </a>
        )}
        {to !== null && entry.change !== "removed" && entry.kind === "file" && (
          <button
            type="button"
            class="quiet"
            onClick={() =>
              void download({ workspace, target: to, path: toInput(entry), as: "file", name: nameOf(entry.path) })
            }
          >
            <Icon name="download" /> Download
          </button>
        )}
      </header>
      <Facts entry={entry} />
      <Sides workspace={workspace} from={from} to={to} />
      <Content key={`${from} ${to} ${toText(entry)}`} {...props} />
    </section>
  );
}

function Facts({ entry }: { entry: DiffEntry }): JSX.Element {
  const { change, aspects, size_before: before, size_after: after, from_path } = entry;
  const sizes =
    before !== undefined && after !== undefined && before !== after
      ? `${size(before)} → ${size(after)}`
      : size(after ?? before ?? 0);
  return (
    <p class="facts faint">
      <span class={change === "added" ? "added" : change === "removed" ? "removed" : "modified"}>
        {change === "not_kept" ? "left out by an ignore rule now" : change}
      </span>
      {from_path !== undefined && (
        <span>
          from <PathName path={from_path} />
        </span>
      )}
      {aspects.length > 0 && <span>{aspects.join(", ")}</span>}
      {entry.kind === "file" ? <span>{sizes}</span> : <span>{entry.kind}</span>}
    </p>
  );
}

function Content(props: FileDiffProps): JSX.Element {
  const { entry } = props;
  const isAsked = useSignal(Math.max(entry.size_before ?? 0, entry.size_after ?? 0) <= ON_DEMAND);
  if (entry.kind !== "file" || entry.change === "renamed")
    return <p class="note">{entry.change === "renamed" ? "The content is the same under both names." : ""}</p>;
  if (entry.change === "modified" && !entry.aspects.includes("content"))
    return <p class="note">The content is the same; only the {entry.aspects.join(", ")} changed.</p>;
  if (!isAsked.value)
    return (
      <p class="note">
        This is a large file.{" "}
        <button type="button" onClick={() => (isAsked.value = true)}>
          Compare it
        </button>
      </p>
    );
  if (isPicture(entry.path)) return <ImageDiff {...props} />;
  if (DATABASE.test(entry.path) && entry.change === "modified") return <Database {...props} />;
  return <Text {...props} />;
}

function Text({ workspace, from, to, entry, gone }: FileDiffProps): JSX.Element {
  const path = toInput(entry);
  const options = { ignoreWhitespace: ignoresBlanks.value, context: isWhole.value ? WHOLE : 3 };
  const key = `text ${workspace} ${from} ${to} ${toText(entry)} ${JSON.stringify(options)}`;
  const { value, problem, isLate, reload } = useResource(
    key,
    (stop) => call("diffText", { workspace, path, a: from, b: to, options }, { signal: stop }),
    { isFixed: to !== null, isOfNow: to === null },
  );
  // The folder changed after the list of changes was loaded.
  const isGone = gone !== undefined && problem?.code === "not_found";
  useEffect(() => {
    if (isGone) gone();
  }, [isGone]);
  if (to === null && problem?.code === "not_found") return <Late isLate />;
  if (problem !== null) return <Problem problem={problem} again={reload} />;
  return (
    <>
      <Late isLate={isLate.value} />
      {value !== undefined && value.kind === "text" && (
        <>
          <div class="diff-bar">
            <Toggle is={isSplit} title="Side by side" />
            <Toggle is={ignoresBlanks} title="Ignore white space" />
            <Toggle is={isWhole} title="Whole file" />
            <Toggle is={isWrapped} title="Wrap lines" />
          </div>
          {value.hunks.length === 0 ? (
            <p class="note">Only white space differs.</p>
          ) : (
            <TextDiff path={entry.path} diff={value} isSplit={isSplit.value} isWrapped={isWrapped.value} />
          )}
        </>
      )}
      {value !== undefined && value.kind !== "text" && <NoText diff={value} />}
    </>
  );
}

function Toggle({ is, title }: { is: { value: boolean }; title: string }): JSX.Element {
  return (
    <button type="button" aria-pressed={is.value} onClick={() => (is.value = !is.value)}>
      {title}
    </button>
  );
}

const WHY_NOT: Readonly<Record<string, string>> = {
  same: "The content is the same.",
  binary: "This is no text.",
  too_different: "The two texts have too little in common to be compared by lines.",
  too_large: "The file is too large to be compared here.",
};

function NoText({ diff: { kind, before, after } }: { diff: DiffTextResult }): JSX.Element {
  return (
    <div class="note">
      <p>{WHY_NOT[kind]}</p>
      <table class="sides">
        <thead>
          <tr>
            <td />
            <th scope="col">size</th>
            <th scope="col">SHA-256</th>
          </tr>
        </thead>
        <tbody>
          {(
            [
              ["before", before],
              ["after", after],
            ] as const
          ).map(([name, side]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{side === null ? "–" : size(side.size)}</td>
              <td>
                <code>{side?.sha256 ?? "–"}</code>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Database({ workspace, from, to, entry, gone }: FileDiffProps): JSX.Element {
  const path = toInput(entry);
  const { value, problem, isLate } = useResource(
    `database ${workspace} ${from} ${to} ${toText(entry)}`,
    (stop) => call("diffDatabase", { workspace, path, a: from, b: to }, { signal: stop }),
    { isFixed: to !== null, isOfNow: to === null },
  );
  // The name suggested a database, but the file is none.
  if (problem !== null) return <Text workspace={workspace} from={from} to={to} entry={entry} gone={gone} />;
  return (
    <>
      <Late isLate={isLate.value} />
      {value !== undefined && <DatabaseDiff diff={value} />}
    </>
  );
}

function ImageDiff({ workspace, from, to, entry }: FileDiffProps): JSX.Element {
  return (
    <div class="images">
      <Image workspace={workspace} point={from} entry={entry} label="before" isThere={entry.change !== "added"} />
      <Image workspace={workspace} point={to} entry={entry} label="after" isThere={entry.change !== "removed"} />
    </div>
  );
}

function Image({
  workspace,
  point,
  entry,
  label,
  isThere,
}: {
  workspace: string;
  /** Null: the present folder. */
  point: string | null;
  entry: DiffEntry;
  label: string;
  isThere: boolean;
}): JSX.Element {
  const facts = useSignal("");
  const source = useContentAddress(
    { workspace, point, at: entry },
    { isWanted: isThere, onProblem: () => (facts.value = "cannot be read") },
  );
  return (
    <figure>
      {source.value !== null && (
        <img
          src={source.value}
          alt={`${label}: ${entry.path}`}
          onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) =>
            (facts.value = `${naturalWidth} × ${naturalHeight}`)
          }
          onError={() => (facts.value = "cannot be shown")}
        />
      )}
      <figcaption>
        {label} <span class="faint">{isThere ? facts.value : "not there"}</span>
      </figcaption>
    </figure>
  );
}
