import type { Notes } from "../../contract/schema.ts";
import type { Verb } from "../../contract/verb.ts";
import type { CallOptions } from "../../contract/words.ts";
import { CairnError } from "../../errors.ts";
import type { Body } from "../request.ts";
import { callOf, isOfWorkspace, isPlaceOf } from "./capabilities.ts";

/** Turns a request's body into arguments of a verb, and calls the verb. */

/** Throws `usage` for an unknown member of a call. */
export function requireKnown(name: string, body: Body): void {
  const { takes, options } = callOf(name)!;
  const known = new Set(takes.map((each) => each.name));
  if (options !== null) known.add("options");
  if (isOfWorkspace(name)) known.add("workspace");
  const unknown = Object.keys(body).find((each) => !known.has(each));
  if (unknown !== undefined) throw new CairnError("usage", `${name} knows no member ${JSON.stringify(unknown)}`);
}

/** Returns the arguments of a call in order, options last. Throws `usage` for relative paths. */
export function givenTo(name: string, { takes, options: known }: Verb, body: Body, told: CallOptions): unknown[] {
  const options = body["options"] as Body | undefined;
  for (const { name: each, schema } of takes) if ((schema as Notes).as === "place") pathOf(body, each);
  for (const each of Object.keys(options ?? {})) if (isPlaceOf(name, each)) pathOf(options!, each);
  const given = takes.map((each) => body[each.name]);
  if (known !== null) given.push({ ...options, ...told });
  return given;
}

/** Returns a member that must be an absolute path. Throws `usage`. */
export function pathOf(body: Body, member: string): string {
  const path = body[member];
  if (typeof path === "string" && path.startsWith("/") && !path.includes("\0")) return path;
  throw new CairnError("usage", `${member} must be an absolute path`);
}

type AnyCalls = Record<string, (...given: unknown[]) => unknown>;

/** Returns the answer of a method of `calls`; each answer of a stream goes to `onItem`. */
export async function carryOut(
  calls: object,
  { name, given, onItem }: { name: string; given: unknown[]; onItem: (item: unknown) => Promise<void> },
): Promise<unknown> {
  const answered = (calls as AnyCalls)[name]!(...given);
  if (callOf(name)!.how !== "stream") return answered;
  for await (const item of answered as AsyncIterable<unknown>) await onItem(item);
  return null;
}
