import { parentPort } from "node:worker_threads";
import { compare } from "bcryptjs";
import type { BcryptAnswer, BcryptQuestion } from "./bcrypt.ts";

// The package is JavaScript and takes tens of milliseconds a guess: here they hold nobody up.
parentPort!.on("message", ({ number, password, hash }: BcryptQuestion) => {
  const tell = (answer: Omit<BcryptAnswer, "number">): void => parentPort!.postMessage({ number, ...answer });
  compare(password, hash).then(
    (right) => tell({ right }),
    (error: unknown) => tell({ failure: String(error) }),
  );
});
