import type { LanguageFn } from "highlight.js";

/** Colours of program text by its syntax. The library and each language are loaded when a file needs them. */

type Loaded = () => Promise<{ default: LanguageFn }>;

const LANGUAGES: Readonly<Record<string, Loaded>> = {
  bash: () => import("highlight.js/lib/languages/bash"),
  c: () => import("highlight.js/lib/languages/c"),
  cpp: () => import("highlight.js/lib/languages/cpp"),
  css: () => import("highlight.js/lib/languages/css"),
  go: () => import("highlight.js/lib/languages/go"),
  ini: () => import("highlight.js/lib/languages/ini"),
  java: () => import("highlight.js/lib/languages/java"),
  javascript: () => import("highlight.js/lib/languages/javascript"),
  json: () => import("highlight.js/lib/languages/json"),
  markdown: () => import("highlight.js/lib/languages/markdown"),
  python: () => import("highlight.js/lib/languages/python"),
  rust: () => import("highlight.js/lib/languages/rust"),
  sql: () => import("highlight.js/lib/languages/sql"),
  typescript: () => import("highlight.js/lib/languages/typescript"),
  xml: () => import("highlight.js/lib/languages/xml"),
  yaml: () => import("highlight.js/lib/languages/yaml"),
};

const ENDINGS: Readonly<Record<string, string>> = {
  bash: "bash",
  c: "c",
  cc: "cpp",
  cjs: "javascript",
  cpp: "cpp",
  css: "css",
  cts: "typescript",
  go: "go",
  h: "c",
  hpp: "cpp",
  htm: "xml",
  html: "xml",
  ini: "ini",
  java: "java",
  js: "javascript",
  json: "json",
  jsx: "javascript",
  md: "markdown",
  mjs: "javascript",
  mts: "typescript",
  py: "python",
  rs: "rust",
  sh: "bash",
  sql: "sql",
  svg: "xml",
  toml: "ini",
  ts: "typescript",
  tsx: "typescript",
  xml: "xml",
  yaml: "yaml",
  yml: "yaml",
};

/** Longer texts stay without colours. */
const MOST = 200_000;

/** A piece of a line, and the kind of its syntax, for example `keyword`; null: no kind. */
export interface Coloured {
  text: string;
  kind: string | null;
}
export type Colour = (text: string) => Coloured[][];

/** Returns a function that splits text into lines of coloured pieces; null for a file of an unknown language. */
export async function colourFor(path: string): Promise<Colour | null> {
  const language = ENDINGS[/\.(\w+)$/.exec(path)?.[1]!.toLowerCase() ?? ""];
  if (language === undefined) return null;
  const [{ default: library }, { default: grammar }] = await Promise.all([
    import("highlight.js/lib/core"),
    LANGUAGES[language]!(),
  ]);
  if (library.getLanguage(language) === undefined) library.registerLanguage(language, grammar);
  return (text) =>
    text.length > MOST
      ? text.split("\n").map((line) => [{ text: line, kind: null }])
      : linesOf(library.highlight(text, { language, ignoreIllegals: true }).value);
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&amp;": "&",
  "&lt;": "<",
  "&gt;": ">",
  "&quot;": '"',
  "&#x27;": "'",
};

/** Splits the library's answer, text with escaped characters between `span` elements, into lines of pieces. */
export function linesOf(marked: string): Coloured[][] {
  const lines: Coloured[][] = [[]];
  const kinds: string[] = [];
  for (const part of marked.split(/(<span class="[^"]*">|<\/span>)/)) {
    const opened = /^<span class="hljs-([\w-]+)/.exec(part);
    if (part === "</span>") kinds.pop();
    else if (part.startsWith("<span")) kinds.push(opened?.[1] ?? "");
    else
      for (const [i, text] of part.split("\n").entries()) {
        if (i > 0) lines.push([]);
        if (text !== "")
          lines.at(-1)!.push({
            text: text.replaceAll(/&(?:amp|lt|gt|quot|#x27);/g, (each) => ENTITIES[each]!),
            kind: kinds.at(-1) ?? null,
          });
      }
  }
  return lines;
}
