import * as jsonc from "jsonc-parser";
import { MARK } from "./tools.ts";

// In Node the whole package is in `default`, because Node cannot see the named exports of its CommonJS form. The build
// has a module with named exports.
export const jsonWithComments = (Reflect.get(jsonc, "default") ?? jsonc) as typeof jsonc;

/** Returns the value of JSON that may have comments. Ignores syntax errors. */
export const parseJson = (text: string): unknown => jsonWithComments.parse(text);

/** True for an entry that some version of Cairn wrote. */
export const isOurs = (value: unknown): boolean => JSON.stringify(value)?.includes(MARK) === true;
