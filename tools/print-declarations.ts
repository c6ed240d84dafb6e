import type * as v from "valibot";
import { SCHEMAS } from "../src/verbs/names.ts";
import { type Notes, phraseOf } from "../src/contract/schema.ts";
import * as service from "../src/contract/service.ts";
import type { Verb } from "../src/contract/verb.ts";
import { CLIENT_VERBS, DAEMON_CALLS, LIBRARY_VERBS, REPOSITORY_VERBS } from "../src/verbs/index.ts";

/** Prints the contract as plain declarations, so that users of the library read types and need no schema library. */

export type Node = v.GenericSchema &
  Notes & { wrapped: Node; item: Node; entries: Record<string, Node>; options: readonly string[] };

/** Names of the exported types, by schema. */
export const named = new Map<unknown, string>(Object.entries(SCHEMAS).map(([name, schema]) => [schema, name]));
/** Interfaces that others extend, the largest first. */
const BASES = [
  "WorkspaceCallOptions",
  "CallOptions",
  "SavePoint",
  "RestoreResult",
  "RepositoryInfo",
  "SnapshotChoice",
  "SnapshotFilter",
  "PathChoice",
  "NamedPath",
];

export function typeOf(schema: Node): string {
  const name = named.get(schema.original ?? schema);
  return name ?? shapeOf(schema);
}

function shapeOf(schema: Node): string {
  if (schema.prints !== undefined) return schema.prints;
  switch (schema.type) {
    case "optional":
      return typeOf(schema.wrapped);
    case "nullable":
      return `${typeOf(schema.wrapped)} | null`;
    case "array": {
      const item = typeOf(schema.item);
      return `${schema.frozen === true ? "readonly " : ""}${/[ |]/.test(item) ? `(${item})` : item}[]`;
    }
    case "picklist":
      return schema.options.map((value) => JSON.stringify(value)).join(" | ");
    case "object":
    case "strict_object":
      return `{ ${Object.entries(schema.entries).map(memberOf).join(" ")} }`;
    default:
      return schema.type;
  }
}

function memberOf([name, schema]: [string, Node]): string {
  return `${docOf(phraseOf(schema))}${name}${schema.type === "optional" ? "?" : ""}: ${typeOf(schema)};\n`;
}

function indented(members: readonly string[]): string {
  return members.join("").replaceAll(/^(?=.)/gm, "  ");
}

function docOf(phrase: string): string {
  return phrase === "" ? "" : `/** ${phrase.replaceAll("*/", "*\\/")} */\n`;
}

function declarationOf(name: string, schema: Node): string {
  const doc = docOf(phraseOf(schema));
  if (!schema.type.endsWith("object")) return `${doc}export type ${name} = ${shapeOf(schema)};\n`;
  let left = Object.entries(schema.entries);
  const bases = BASES.filter((base) => {
    const { entries } = SCHEMAS[base] as Node;
    const isPart =
      base !== name &&
      Object.entries(entries).every((entry) => left.some(([key, value]) => key === entry[0] && value === entry[1]));
    if (isPart) left = left.filter(([key]) => !Object.hasOwn(entries, key));
    return isPart;
  });
  const heritage = bases.length === 0 ? "" : ` extends ${bases.join(", ")}`;
  return `${doc}export interface ${name}${heritage} {\n${indented(left.map(memberOf))}}\n`;
}

/** Returns a verb as the declaration of a method, without its comment. */
export function declarationOfMethod([name, verb]: [string, Verb]): string {
  const given = verb.takes.map((each) => {
    const schema = each.schema as Node;
    return `${each.name}${schema.type === "optional" ? "?" : ""}: ${typeOf(schema)}`;
  });
  if (verb.options !== null) {
    const options = verb.options as Node;
    const isOptional = Object.values(options.entries).every(({ type }) => type === "optional");
    given.push(`options${isOptional ? "?" : ""}: ${typeOf(options)}`);
  }
  const output = typeOf(verb.output as Node);
  const answer =
    verb.how === "stream" ? `AsyncIterable<${output}>` : verb.how === "at once" ? output : `Promise<${output}>`;
  return `${name}(${given.join(", ")}): ${answer};\n`;
}

function methodOf([name, verb]: [string, Verb]): string {
  const errors = verb.errors.length === 0 ? "" : ` Throws ${verb.errors.map((code) => `\`${code}\``).join(", ")}.`;
  return docOf(verb.about + errors) + declarationOfMethod([name, verb]);
}

/** Verbs by the interface whose methods they are. */
export const TABLES: Readonly<Record<string, Readonly<Record<string, Verb>>>> = {
  Client: CLIENT_VERBS,
  CairnLibrary: LIBRARY_VERBS,
  BackupRepository: REPOSITORY_VERBS,
};

/** Returns the declarations of `src/contract`. `emitted`: the compiler's, with interface members that are no verbs. */
export function contractDeclarations(...emitted: readonly string[]): string {
  const types = [...named].map(([schema, name]) => declarationOf(name, schema as Node));
  const interfaces = Object.entries(TABLES).map(([name, table]) => {
    const head = new RegExp(`export interface ${name} \\{([^]*?)\\n?\\}\\n`);
    const own = emitted.map((text) => head.exec(text)?.[1]).find((text) => text !== undefined);
    if (own === undefined) throw new Error(`no interface ${name} was emitted`);
    return `export interface ${name} {${own}\n${indented(Object.entries(table).map(methodOf))}}\n`;
  });
  const data = Object.entries(service.EVENT_DATA) as unknown as [string, Node][];
  const events = `/** Data of an event, by the event's type. */
export interface EventData {\n${indented(data.map(memberOf))}}
export type EventType = keyof EventData;
/** Something that happened in a workspace or to the daemon, in the order in which it did. */
export type ServiceEvent = { [T in EventType]: {\n${indented(Object.entries(service.EVENT_HEAD as unknown as Record<string, Node>).map(memberOf))}  type: T;\n  data: EventData[T];\n} }[EventType];\n`;
  return `import type { ErrorCode } from "../errors.js";\nimport type { ControlId, SavePointId, WorkspaceId } from "../ids.js";\n${types.join("")}${events}${interfaces.join("")}`;
}

/** Returns the declarations of `src/index.ts`. `source`: the text of that file. */
export function libraryDeclarations(source: string): string {
  const others = source.split("\n").filter((line) => /^(?:\/\/\/|export \{|export type (?!.*verbs\/))/.test(line));
  const verbs = Object.entries(LIBRARY_VERBS).map(
    ([name, { about }]) => `${docOf(about)}export declare const ${name}: CairnLibrary["${name}"];\n`,
  );
  const text = `${others.join("\n")}\nimport type { CairnLibrary } from "./contract/index.ts";\n${verbs.join("")}`;
  return text.replaceAll('.ts";', '.js";');
}

/**
 * Returns the declarations of `src/client.ts` from its text. `parts`: declarations with the interfaces that it re-exports.
 */
export function clientDeclarations(source: string, parts: readonly string[]): string {
  const own = /^(?:\/\/\/|export \{|export type (?!.*(?:api\/client|verbs)\/))/;
  const others = source.split("\n").filter((line) => own.test(line));
  const interfaces = `${parts.join("\n")}\n${source}`.match(
    /(?:^\/\*\*(?:(?!\*\/)[^])*\*\/\n)?^export interface [^]*?^\}\n/gm,
  )!;
  const [doc] = /\/\*\*(?:(?!\*\/)[^])*\*\/\n(?=export function connect\()/.exec(source)!;
  const names = ["CairnLibrary", "CallOptions", "Client", "EventType", "Job", "JobList", "ServiceEvent"];
  const text = `${others.join("\n")}\nimport type { ${names.join(", ")} } from "./contract/index.ts";\n${interfaces.join("")}${doc}export declare function connect(daemon?: { socket?: string } | Remote): ConnectedLibrary;\n`;
  return text.replaceAll('.ts";', '.js";');
}

function verbCallOf([name, verb]: [string, Verb]): string {
  const members = verb.takes.map((each) => memberOf([each.name, each.schema as Node]));
  if (Object.hasOwn(CLIENT_VERBS, name)) members.unshift("workspace: string;\n");
  if (verb.options !== null) {
    const isOptional = Object.values((verb.options as Node).entries).every(({ type }) => type === "optional");
    members.push(`options${isOptional ? "?" : ""}: Given<${typeOf(verb.options as Node)}>;\n`);
  }
  return `${docOf(verb.about)}${name}: { members: {\n${indented(members)}}; answer: ${typeOf(verb.output as Node)} };\n`;
}

/** Returns the declarations of `src/client-browser.ts`. `source`: the text of that file. */
export function browserDeclarations(source: string): string {
  const others = source.split("\n").filter((line) => /^(?:\/\/\/|export type [{*](?!.*verbs\/))/.test(line));
  const { listWorkspaces } = LIBRARY_VERBS;
  const { daemon, running, pastEvents, cancel } = DAEMON_CALLS;
  const served = Object.entries<Verb>(CLIENT_VERBS).filter(
    ([, { unserved, forPage }]) => unserved === undefined || forPage === true,
  );
  const verbs = [...served, ...Object.entries<Verb>({ listWorkspaces, daemon, running, pastEvents, cancel })].map(
    verbCallOf,
  );
  const interfaces = source.match(/(?:^\/\*\*(?:(?!\*\/)[^])*\*\/\n)?^export interface [^]*?^\}\n/gm)!;
  const [, fields] = /^export class CairnError extends Error \{\n([^]*?)\n {2}constructor/m.exec(source)!;
  const [given] = /^type Given<O> = .*$/m.exec(source)!;
  const [doc, taken] = /\/\*\*(?:(?!\*\/)[^])*\*\/\nexport function connect\(\{[^}]*\}: (\{[^}]*\})\)/.exec(source)!;
  const text = `${given}
/** Members and answer of each verb that the page can call. */
export interface VerbCalls {
${indented(verbs)}}
${interfaces.join("")}/** A failure, in the words of the server. */
export declare class CairnError extends Error {
${fields!.replace('ErrorRecord["code"]', "ErrorCode")}}
${doc.split("\n")[0]}
export declare function connect(to: ${taken}): PageClient;
`;
  const used = (names: Iterable<string>): string =>
    [...names].filter((name) => new RegExp(`\\b${name}\\b`).test(text)).join(", ");
  const imports = `import type { ErrorCode } from "./errors.ts";
import type { ${used(["ControlId", "SavePointId", "WorkspaceId"])} } from "./ids.ts";
import type { ${used([...named.values(), "ServiceEvent"])} } from "./contract/index.ts";
`;
  return `${others.join("\n")}\n${imports}${text}`.replaceAll('.ts";', '.js";');
}
