import { compare } from "bcryptjs";
import { answerCalls } from "../../threads/calls.ts";

// The package is JavaScript and takes tens of milliseconds a guess: here they hold nobody up.
const FUNCTIONS = {
  matches: async ({ password, hash }: { password: string; hash: string }) => compare(password, hash),
};
export type BcryptFunctions = typeof FUNCTIONS;

answerCalls(FUNCTIONS);
