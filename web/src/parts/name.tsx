import type { JSX } from "preact";

/**
 * Untrusted text: names, messages and contents. It is isolated from the page's text direction, and hidden characters
 * are shown as escapes.
 */

// Control characters, direction marks and zero-width characters, except line ends and tabs.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** Returns the text with each hidden character as an escape such as `\u202e`. */
export function visible(text: string): string {
  return text.replaceAll(HIDDEN, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** A name or path. The style sheet shortens its middle if it is too long. */
export function Name({ text, title = true }: { text: string; title?: boolean }): JSX.Element {
  const shown = visible(text.replaceAll(/[\n\t]/g, (each) => (each === "\n" ? "\\n" : "\\t")));
  return (
    <bdi class="name" dir="ltr" {...(title ? { title: shown.slice(0, 500) } : {})}>
      {shown}
    </bdi>
  );
}

/** A path whose last name stands out from its folders. */
export function PathName({ path }: { path: string }): JSX.Element {
  const cut = path.lastIndexOf("/") + 1;
  return (
    <bdi class="path" dir="ltr" title={visible(path).slice(0, 500)}>
      {cut > 0 && <span class="path-folder">{visible(path.slice(0, cut))}</span>}
      <span class="path-end">{visible(path.slice(cut))}</span>
    </bdi>
  );
}

/** A message: with all its lines if `isWhole`, else only the first line. */
export function Words({ text, isWhole = false }: { text: string; isWhole?: boolean }): JSX.Element {
  const shown = visible(isWhole ? text : (text.split("\n", 1)[0] ?? ""));
  return (
    <bdi class={isWhole ? "words words-whole" : "words"} {...(isWhole ? {} : { title: visible(text).slice(0, 500) })}>
      {shown}
    </bdi>
  );
}
