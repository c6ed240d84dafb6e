import { useSignal } from "@preact/signals";
import type { ListedEntry } from "cairnstate/client";
import type { JSX } from "preact";
import { download } from "../../app/calls.ts";
import { useResource } from "../../app/resource.ts";
import { href, nameOf, toInput, toText } from "../../app/address.ts";
import { client } from "../../app/session.ts";
import { ColouredText } from "../../parts/coloured.tsx";
import { Icon } from "../../parts/icon.tsx";
import { Name, visible } from "../../parts/name.tsx";
import { isPicture, useContentAddress } from "../../app/picture.ts";
import { size } from "../../parts/numbers.ts";
import { Late, Problem } from "../../parts/problem.tsx";
import { When, wholeTime } from "../../parts/values.tsx";

/** Most bytes of a text that the preview shows. */
const SHOWN = 256 << 10;

export interface PreviewProps {
  workspace: string;
  point: string;
  entry: ListedEntry;
  close(): void;
}

/** The preview of a file beside the list: its text, its picture or its size. */
export function Preview({ workspace, point, entry, close }: PreviewProps): JSX.Element {
  const name = nameOf(entry.path);
  return (
    <aside class="preview" aria-label="Preview">
      <header>
        <h2>
          <Name text={name} />
        </h2>
        <span class="space" />
        <button type="button" class="quiet" aria-label="Close the preview" onClick={close}>
          <Icon name="close" />
        </button>
      </header>
      <p class="facts faint">
        <span>{size(entry.size)}</span>
        <When at={entry.modified_at} as={wholeTime} />
        <code>{(entry.mode & 0o7777).toString(8).padStart(4, "0")}</code>
        <span>
          {visible(entry.user)}:{visible(entry.group)}
        </span>
      </p>
      <p class="preview-actions">
        <a class="button" href={href({ view: "file-history", workspace, at: entry })}>
          <Icon name="history" /> History
        </a>
        {entry.kind === "file" && (
          <button
            type="button"
            onClick={() => void download({ workspace, target: point, path: toInput(entry), as: "file", name })}
          >
            <Icon name="download" /> Download
          </button>
        )}
      </p>
      {entry.kind === "file" && <Content workspace={workspace} point={point} entry={entry} />}
    </aside>
  );
}

interface Shown {
  workspace: string;
  point: string;
  entry: Pick<ListedEntry, "path" | "path_b64" | "size">;
}

/** The text or the picture of a file. */
export function Content(props: Shown): JSX.Element {
  return isPicture(nameOf(props.entry.path)) ? <Picture {...props} /> : <Text {...props} />;
}

function Picture({ workspace, point, entry }: Shown): JSX.Element {
  const problem = useSignal("");
  const source = useContentAddress(
    { workspace, point, at: entry },
    { isWanted: true, onProblem: (message) => (problem.value = message) },
  );
  return (
    <div class="preview-picture">
      {source.value !== null && problem.value === "" && (
        <img src={source.value} alt={entry.path} onError={() => (problem.value = "This picture cannot be shown.")} />
      )}
      {problem.value !== "" && <p class="faint">{problem.value}</p>}
    </div>
  );
}

function Text({ workspace, point, entry }: Shown): JSX.Element {
  const { value, problem, isLate } = useResource(
    `text ${workspace} ${point} ${toText(entry)}`,
    (signal) => textOf({ workspace, point, entry }, signal),
    { isFixed: true },
  );
  if (problem !== null) return <Problem problem={problem} />;
  return (
    <>
      <Late isLate={isLate.value} />
      {value === null && <p class="note faint">This is no text.</p>}
      {typeof value === "string" && (
        <pre class="preview-text" tabIndex={0}>
          <bdi dir="ltr">
            <ColouredText path={entry.path} text={value} />
          </bdi>
        </pre>
      )}
      {typeof value === "string" && entry.size > SHOWN && (
        <p class="note faint">The first {size(SHOWN)} are shown. Download the file to see all of it.</p>
      )}
    </>
  );
}

/** Returns the beginning of a file as text; null if the file is not text. */
async function textOf({ workspace, point, entry }: Shown, signal: AbortSignal): Promise<string | null> {
  const pieces: Uint8Array[] = [];
  const members = { workspace, target: point, path: toInput(entry), options: { length: SHOWN } };
  for await (const piece of client().stream("read", members, { signal })) pieces.push(piece);
  const bytes = new Uint8Array(await new Blob(pieces as Uint8Array<ArrayBuffer>[]).arrayBuffer());
  if (bytes.includes(0)) return null;
  try {
    // The last character may be incomplete, so the decoder must not fail on it.
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
  } catch {
    return null;
  }
}
