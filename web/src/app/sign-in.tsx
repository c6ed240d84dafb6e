import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { TextField } from "../parts/fields.tsx";
import { signInWith } from "./session.ts";

/** The view of a tab without a token: explains how to get a code, and has a field for it. */
export function SignIn({ done }: { done(): void }): JSX.Element {
  const code = useSignal("");
  const problem = useSignal("");
  const enter = async (event: Event): Promise<void> => {
    event.preventDefault();
    // Also accepts the whole address with the code.
    const text = code.value.trim().replace(/^.*#code=/, "");
    try {
      if (await signInWith(text)) done();
      else problem.value = "The server does not accept this code. A code is good once, for ten minutes.";
    } catch {
      problem.value = "The server does not answer. Is `cairn ui` still running?";
    }
  };
  return (
    <main class="sign-in">
      <h1>Cairn</h1>
      <p>
        This tab is not signed in. Press Enter in the terminal where <code>cairn ui</code> runs, and open the address
        that it prints; or enter the code of that address here.
      </p>
      <form onSubmit={(event) => void enter(event)}>
        <label>
          Code or address
          <TextField text={code} autocomplete="off" spellcheck={false} required />
        </label>
        <button type="submit" class="strong">
          Sign in
        </button>
      </form>
      <p role="alert" class="removed">
        {problem.value}
      </p>
    </main>
  );
}
