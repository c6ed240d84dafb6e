import { compare } from "bcryptjs";
import { answerCalls } from "../../threads/calls.ts";

// The bcrypt package is JavaScript and takes tens of milliseconds for each guess. In this thread it delays no request.
const FUNCTIONS = {
  matches: async ({ password, hash }: { password: string; hash: string }) => compare(password, hash),
};
export type BcryptFunctions = typeof FUNCTIONS;

answerCalls(FUNCTIONS);
