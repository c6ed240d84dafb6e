import { CairnError } from "../../../errors.ts";

/** An element of an answer of S3: its local name, its own text, its children in order. Attributes are dropped. */
export interface XmlElement {
  readonly name: string;
  text: string;
  readonly children: XmlElement[];
}

const MAX_DEPTH = 16;
const MAX_ELEMENTS = 50_000;
const SPACE = /[ \t\r\n]*/y;
const DECLARATION = /<\?xml [^<>?]{0,200}\?>/y;
const COMMENT_END = "-->";
const OPEN =
  /<([A-Za-z_][A-Za-z0-9_.:-]{0,127})((?:[ \t\r\n]+[A-Za-z_][A-Za-z0-9_.:-]{0,127}[ \t]*=[ \t]*(?:"[^"<]{0,2048}"|'[^'<]{0,2048}'))*)[ \t\r\n]*(\/?)>/y;
const CLOSE = /<\/([A-Za-z_][A-Za-z0-9_.:-]{0,127})[ \t\r\n]*>/y;
const TEXT = /[^<]*/y;
const ENTITY = /&([^;&]{0,10})(;?)/g;
const NAMED: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

/**
 * Parses a small XML document: elements, text, the five named entities and character references. Refuses other XML
 * (above all document types), too many or too deep elements with `io`, since another answer may be right. `doing`
 * begins the message.
 */
export function parseXml(bytes: Uint8Array, doing = "cannot read an answer"): XmlElement {
  try {
    return new XmlReader(new TextDecoder("utf-8", { fatal: true }).decode(bytes)).root();
  } catch (error) {
    const why = error instanceof CairnError ? error.message : "it is not UTF-8";
    throw new CairnError("io", `${doing}: the server's answer is not valid XML: ${why}`);
  }
}

class XmlReader {
  readonly #source: string;
  #at = 0;
  #elements = 0;

  constructor(source: string) {
    this.#source = source;
  }

  root(): XmlElement {
    this.#match(SPACE);
    this.#match(DECLARATION);
    this.#skipSpaceAndComments();
    const document: XmlElement = { name: "", text: "", children: [] };
    const open: XmlElement[] = [document];
    do this.#step(open);
    while (open.length > 1);
    this.#skipSpaceAndComments();
    if (this.#at !== this.#source.length) throw broken("something follows its end");
    return document.children[0]!;
  }

  #step(open: XmlElement[]): void {
    const current = open.at(-1)!;
    if (this.#skipComment()) return;
    const opened = this.#match(OPEN);
    if (opened !== null) {
      if (++this.#elements > MAX_ELEMENTS) throw broken(`it has more than ${MAX_ELEMENTS} elements`);
      const element: XmlElement = { name: localName(opened[1]!), text: "", children: [] };
      current.children.push(element);
      if (opened[3] === "/") return;
      open.push(element);
      if (open.length > MAX_DEPTH) throw broken(`it is deeper than ${MAX_DEPTH} elements`);
      return;
    }
    const closed = this.#match(CLOSE);
    if (closed !== null) {
      if (open.length === 1 || localName(closed[1]!) !== current.name) throw broken("an element ends that is not open");
      open.pop();
      return;
    }
    const text = this.#match(TEXT)?.[0] ?? "";
    if (text === "" || open.length === 1) throw broken(`not understood at character ${this.#at}`);
    current.text += decodeEntities(text);
  }

  #skipSpaceAndComments(): void {
    do this.#match(SPACE);
    while (this.#skipComment());
  }

  #skipComment(): boolean {
    if (!this.#source.startsWith("<!--", this.#at)) return false;
    const end = this.#source.indexOf(COMMENT_END, this.#at + 4);
    if (end < 0) throw broken("a comment does not end");
    this.#at = end + COMMENT_END.length;
    return true;
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#source);
    if (match !== null) this.#at = pattern.lastIndex;
    return match;
  }
}

function localName(name: string): string {
  return name.slice(name.indexOf(":") + 1);
}

function decodeEntities(text: string): string {
  if (!text.includes("&")) return text;
  return text.replaceAll(ENTITY, (whole: string, name: string, end: string) => {
    if (end !== ";") throw broken("a & that begins no entity");
    const named = Object.hasOwn(NAMED, name) ? NAMED[name] : undefined;
    if (named !== undefined) return named;
    const digits = /^#(?:x([0-9A-Fa-f]{1,6})|([0-9]{1,7}))$/.exec(name);
    const code = digits === null ? 0 : digits[1] === undefined ? Number(digits[2]) : Number.parseInt(digits[1], 16);
    if (code === 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
      throw broken(`the unknown entity ${whole.slice(0, 12)}`);
    return String.fromCodePoint(code);
  });
}

function broken(why: string): CairnError {
  return new CairnError("io", why);
}

/** Returns the children with this name. */
export function childrenOf(element: XmlElement, name: string): XmlElement[] {
  return element.children.filter((child) => child.name === name);
}

/** Returns the text of the first child with this name, or null. */
export function textOf(element: XmlElement, name: string): string | null {
  return element.children.find((child) => child.name === name)?.text ?? null;
}

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
};

/** Escapes text as the content of an element. */
export function escapeXml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => ESCAPES[character]!);
}
