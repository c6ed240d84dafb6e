import type { JSX } from "preact";

/** Text of strangers: names, messages, contents. Its direction is its own, and what cannot be seen is shown as an escape. */

// Control characters, marks of direction, and blanks without width, but for line ends and tabs.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** Text with each hidden character as `\u202e`. */
export function visible(text: string): string {
  return text.replaceAll(HIDDEN, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** A name, or a path, which is shortened in its middle by the style where it is too long. */
export function Name({ text, title = true }: { text: string; title?: boolean }): JSX.Element {
  const shown = visible(text.replaceAll(/[\n\t]/g, (each) => (each === "\n" ? "\\n" : "\\t")));
  return (
    <bdi class="name" dir="ltr" {...(title ? { title: shown.slice(0, 500) } : {})}>
      {shown}
    </bdi>
  );
}

/** A path whose folders step back behind its last name. */
export function PathName({ path }: { path: string }): JSX.Element {
  const cut = path.lastIndexOf("/") + 1;
  return (
    <bdi class="path" dir="ltr" title={visible(path).slice(0, 500)}>
      {cut > 0 && <span class="path-folder">{visible(path.slice(0, cut))}</span>}
      <span class="path-end">{visible(path.slice(cut))}</span>
    </bdi>
  );
}

/** A message in words, whose line breaks stay if `isWhole`, else only its first line. */
export function Words({ text, isWhole = false }: { text: string; isWhole?: boolean }): JSX.Element {
  const shown = visible(isWhole ? text : (text.split("\n", 1)[0] ?? ""));
  return (
    <bdi class={isWhole ? "words words-whole" : "words"} {...(isWhole ? {} : { title: visible(text).slice(0, 500) })}>
      {shown}
    </bdi>
  );
}
