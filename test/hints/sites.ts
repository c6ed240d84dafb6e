import { readFileSync } from "node:fs";
import path from "node:path";
import { parseSync } from "vite";
import { productionFiles } from "../../tools/source-files.ts";

/** Finds every hint in the sources, and tells which of them a printed error has. */

/** A place in the sources that gives an error a hint. */
export interface Site {
  /** Path from the root. */
  file: string;
  line: number;
  /** Null if it is computed. */
  code: string | null;
  /** Fixed pieces of the message, in order; each list is one of the texts that it may have. */
  messages: readonly Pieces[];
  hint: Pieces;
  /** What the list of exceptions calls the site: the first words of its message and of its hint. */
  name: string;
}

type Pieces = readonly string[];

/** What a case printed. */
export interface Printed {
  code: string;
  message: string;
  hint: string;
}

interface Node {
  type: string;
  start: number;
  [member: string]: unknown;
}

/** Fixed pieces of texts; an empty list stands for a text that only the run gives. */
type Texts = readonly Pieces[];

const UNKNOWN: Texts = [[]];
const DEEPEST = 6;

export function hintSites(root: string): Site[] {
  const files = productionFiles(path.join(root, "src")).map(
    (file) => new File(path.join("src", file), readFileSync(path.join(root, "src", file), "utf8")),
  );
  const helpers = files.flatMap((file) => file.helpers());
  return files
    .flatMap((file) => [...file.sites(), ...file.callsOf(helpers)])
    .filter(({ hint }) => {
      // A text of two words at most may be in any hint.
      return hint.join("").trim().length > 4;
    });
}

/** A function that makes an error with a hint that its caller gives. */
interface Helper {
  file: string;
  name: string;
  hintAt: number;
  code: Node | undefined;
  /** The place of the message among the parameters, or its texts. */
  message: number | Texts;
}

/** Hints that no case walks, by the reason; each is the file and the name of a site. */
export type Exceptions = ReadonlyMap<string, readonly string[]>;

/** Reads the list of exceptions: `# reason`, then lines with a file, then indented lines with names of its sites. */
export function readExceptions(text: string): Exceptions {
  const found = new Map<string, string[]>();
  let [reason, file] = ["", ""];
  for (const line of text.split("\n").filter((each) => each.trim() !== "")) {
    if (line.startsWith("# ")) reason = line.slice(2);
    else if (!line.startsWith(" ")) file = line;
    else found.set(reason, [...(found.get(reason) ?? []), `${file}: ${line.trim()}`]);
  }
  return found;
}

/** Returns what is wrong: a site with neither a case nor a reason, and an exception that is needless now. */
export function problemsOf(sites: readonly Site[], printed: readonly Printed[], exceptions: Exceptions): string[] {
  const excepted = new Set([...exceptions.values()].flat());
  const walked = new Set(sites.filter((site) => printed.some((each) => isFrom(each, site))));
  const keyOf = ({ file, name }: Site): string => `${file}: ${name}`;
  const bare = sites.filter((site) => !walked.has(site) && !excepted.has(keyOf(site)));
  const open = new Set(sites.filter((site) => !walked.has(site)).map(keyOf));
  return [
    ...bare.map((site) => `no case prints this hint, and no reason says why (${site.file}:${site.line}): ${site.name}`),
    ...[...excepted].filter((each) => !open.has(each)).map((each) => `needless exception: ${each}`),
  ];
}

/** True if `printed` may come from `site`. */
export function isFrom(printed: Printed, { code, messages, hint }: Site): boolean {
  if (code !== null && code !== printed.code) return false;
  return messages.some((each) => hasPieces(printed.message, each)) && hasPieces(printed.hint, hint);
}

function hasPieces(text: string, pieces: Pieces): boolean {
  let at = 0;
  return pieces.every((piece) => {
    const found = text.indexOf(piece, at);
    at = found + piece.length;
    return found >= 0;
  });
}

/** One source file, with its declarations by name. */
class File {
  readonly #file: string;
  readonly #text: string;
  readonly #program: Node;
  /** Values of constants and variables, and what functions return, by name. */
  readonly #values = new Map<string, { at: number; value: Node }[]>();
  readonly #functions = new Map<string, Node>();
  /** The file from which a name is imported. */
  readonly #imported = new Map<string, string>();

  constructor(file: string, text: string) {
    this.#file = file;
    this.#text = text;
    this.#program = parseSync(file, text).program as unknown as Node;
    visit(this.#program, [], (node) => {
      if (node.type === "VariableDeclarator") {
        const { id, init } = node as unknown as { id: Node; init: Node | null };
        if (init === null || id.type !== "Identifier") return;
        if (isFunction(init)) this.#functions.set(id["name"] as string, init);
        this.#add(id["name"] as string, init);
      } else if (node.type === "AssignmentExpression" && (node["left"] as Node).type === "Identifier") {
        this.#add((node["left"] as Node)["name"] as string, node["right"] as Node);
      } else if (node.type === "ImportDeclaration") {
        const from = path.join(path.dirname(file), (node["source"] as { value: string }).value);
        for (const each of node["specifiers"] as Node[]) this.#imported.set(nameOf(each["local"])!, from);
      } else if (node.type === "FunctionDeclaration") {
        this.#functions.set((node["id"] as Node)["name"] as string, node);
      }
    });
  }

  #add(name: string, value: Node): void {
    this.#values.set(name, [...(this.#values.get(name) ?? []), { at: value.start, value }]);
  }

  /** Sites that give the hint themselves, also as the default of a parameter. */
  sites(): Site[] {
    const found: Site[] = [];
    this.#hints((value, call, within) => {
      const parameter = within?.parameter;
      if (parameter === undefined) found.push(...this.#site(value, call));
      else if (parameter.type === "AssignmentPattern") found.push(...this.#site(parameter["right"] as Node, call));
    });
    return found;
  }

  helpers(): Helper[] {
    const found: Helper[] = [];
    this.#hints((value, call, within) => {
      if (within?.name === undefined) return;
      const [code, message] = (call?.["arguments"] as Node[] | undefined) ?? [];
      const messageAt = placeOf(within.of, nameOf(message));
      const texts = message === undefined ? UNKNOWN : this.#texts(message, 0);
      found.push({
        file: this.#file,
        name: within.name,
        hintAt: placeOf(within.of, nameOf(value)),
        code,
        message: messageAt >= 0 ? messageAt : texts,
      });
    });
    return found;
  }

  /** Sites that call a helper with a hint. */
  callsOf(helpers: readonly Helper[]): Site[] {
    const found: Site[] = [];
    visit(this.#program, [], (node) => {
      if (node.type !== "CallExpression") return;
      const name = nameOf(node["callee"]);
      const isOwn = name !== undefined && this.#functions.has(name);
      const from = isOwn ? this.#file : this.#imported.get(name ?? "");
      const helper = helpers.find((each) => each.name === name && each.file === from);
      if (helper === undefined) return;
      const given = node["arguments"] as Node[];
      const value = given[helper.hintAt];
      if (value === undefined) return;
      const { code, message } = helper;
      const texts =
        typeof message !== "number" ? message : given[message] === undefined ? UNKNOWN : this.#texts(given[message], 0);
      found.push(...this.#made(value, code, texts));
    });
    return found;
  }

  /** Calls `seen` with each value of a member `hint`, the `new CairnError` around it, and the function whose parameter it is. */
  #hints(
    seen: (
      value: Node,
      call: Node | undefined,
      within?: { of: Node; name: string | undefined; parameter: Node },
    ) => void,
  ): void {
    visit(this.#program, [], (node, above) => {
      if (node.type !== "Property" || nameOf(node["key"]) !== "hint" || above.at(-1)?.type !== "ObjectExpression")
        return;
      const call = above.findLast((each) => each.type === "NewExpression" && nameOf(each["callee"]) === "CairnError");
      const value = node["value"] as Node;
      const of = above.findLast(isFunction);
      const at = of === undefined ? -1 : placeOf(of, nameOf(value));
      if (of === undefined || at < 0) return seen(value, call);
      const declared = above[above.indexOf(of) - 1];
      const name = nameOf(of["id"] ?? (declared?.type === "VariableDeclarator" ? declared["id"] : undefined));
      seen(value, call, { of, name, parameter: (of["params"] as Node[])[at]! });
    });
  }

  #site(value: Node, call: Node | undefined): Site[] {
    const [code, message] = (call?.["arguments"] as Node[] | undefined) ?? [];
    return this.#made(value, code, message === undefined ? UNKNOWN : this.#texts(message, 0));
  }

  #made(value: Node, code: Node | undefined, messages: Texts): Site[] {
    const line = this.#text.slice(0, value.start).split("\n").length;
    return this.#texts(value, 0)
      .filter((hint) => hint.length > 0)
      .map((hint) => ({
        file: this.#file,
        line,
        code: code?.type === "Literal" ? String(code["value"]) : null,
        messages,
        hint,
        name: `${shown(messages[0]!)} ▸ ${shown(hint)}`.trim(),
      }));
  }

  /** Returns the fixed pieces of each text that an expression may have. */
  #texts(node: Node, depth: number): Texts {
    if (depth > DEEPEST) return UNKNOWN;
    const of = (each: unknown): Texts => this.#texts(each as Node, depth + 1);
    switch (node.type) {
      case "Literal":
        return typeof node["value"] === "string" && node["value"] !== "" ? [[node["value"]]] : UNKNOWN;
      case "TaggedTemplateExpression":
        return of(node["quasi"]);
      case "TemplateLiteral": {
        const quasis = (node["quasis"] as { value: { cooked: string } }[]).map(({ value }) => value.cooked);
        const gaps = node["expressions"] as Node[];
        return [
          quasis.flatMap((text, i) => [text, ...(i < gaps.length ? this.#inner(gaps[i]!, depth) : [])]).filter(Boolean),
        ];
      }
      case "BinaryExpression":
        return product(of(node["left"]), of(node["right"]));
      case "ConditionalExpression":
        return anyOf(of(node["consequent"]), of(node["alternate"]));
      case "LogicalExpression":
        return anyOf(of(node["left"]), of(node["right"]));
      case "AwaitExpression":
      case "TSAsExpression":
      case "TSNonNullExpression":
      case "TSSatisfiesExpression":
      case "ParenthesizedExpression":
        return of(node["argument"] ?? node["expression"]);
      case "Identifier": {
        const known = this.#values.get(nameOf(node)!)?.filter(({ at }) => at !== node.start);
        if (known === undefined) return UNKNOWN;
        const before = known.filter(({ at }) => at < node.start);
        return of((before.at(-1) ?? known[0])?.value ?? node);
      }
      case "CallExpression":
        return this.#called(node, depth);
      case "ArrowFunctionExpression":
        return (node["body"] as Node).type === "BlockStatement" ? this.#returned(node, depth) : of(node["body"]);
      default:
        return UNKNOWN;
    }
  }

  /** The pieces of a gap in a template, if it has only one text. */
  #inner(gap: Node, depth: number): Pieces {
    const texts = gap.type === "ConditionalExpression" ? UNKNOWN : this.#texts(gap, depth + 1);
    return texts.length === 1 ? texts[0]! : [];
  }

  #called(node: Node, depth: number): Texts {
    const name = nameOf(node["callee"]);
    const [first] = node["arguments"] as Node[];
    // Words between `cairn` and the command are those of the place.
    if (name === "call" || name === "line") return first === undefined ? UNKNOWN : this.#texts(first, depth + 1);
    if (name === "see") return product([["see "]], this.#texts(first!, depth + 1));
    if (name === "either") return this.#texts(first!, depth + 1);
    const declared = name === undefined ? undefined : this.#functions.get(name);
    return declared === undefined ? UNKNOWN : this.#returned(declared, depth);
  }

  #returned(of: Node, depth: number): Texts {
    if ((of["body"] as Node).type !== "BlockStatement") return this.#texts(of["body"] as Node, depth + 1);
    const texts: Texts[] = [];
    visit(of["body"] as Node, [], (node, above) => {
      if (node.type === "ReturnStatement" && node["argument"] !== null && !above.some(isFunction))
        texts.push(this.#texts(node["argument"] as Node, depth + 1));
    });
    return texts.length === 0 ? UNKNOWN : anyOf(...texts);
  }
}

function anyOf(...all: readonly Texts[]): Texts {
  const known = all.flat().filter((pieces) => pieces.length > 0);
  return known.length === 0 ? UNKNOWN : known;
}

function product(left: Texts, right: Texts): Texts {
  return left.flatMap((a) => right.map((b) => [...a, ...b]));
}

const shown = (pieces: Pieces): string => pieces.join("…").replaceAll(/\s+/g, " ").slice(0, 50).trim();

function nameOf(node: unknown): string | undefined {
  const { type, name } = (node ?? {}) as Partial<Node>;
  return type === "Identifier" ? (name as string) : undefined;
}

function isFunction(node: Node): boolean {
  return /^(?:FunctionDeclaration|FunctionExpression|ArrowFunctionExpression)$/.test(node.type);
}

/** The place of a parameter, or -1. */
function placeOf(of: Node, name: string | undefined): number {
  if (name === undefined) return -1;
  return (of["params"] as Node[]).findIndex(
    (each) => nameOf(each.type === "AssignmentPattern" ? each["left"] : each) === name,
  );
}

/** Calls `seen` with each node below `node` and the nodes above it. */
function visit(node: Node, above: readonly Node[], seen: (node: Node, above: readonly Node[]) => void): void {
  seen(node, above);
  const within = [...above, node];
  for (const [name, value] of Object.entries(node)) {
    if (name === "typeAnnotation" || typeof value !== "object" || value === null) continue;
    for (const each of Array.isArray(value) ? (value as unknown[]) : [value])
      if (typeof (each as Partial<Node> | null)?.type === "string") visit(each as Node, within, seen);
  }
}
