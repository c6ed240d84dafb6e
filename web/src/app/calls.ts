import { CairnError } from "cairnstate/client";
import { tellOutcome } from "./outcome.tsx";
import { problemOf } from "./resource.ts";
import { client, signOut } from "./session.ts";

/** Calls of the API from views, with the names and types of the contract. */

type Client = ReturnType<typeof client>;

/** Makes a call with one answer. Signs this tab out if the server no longer accepts its token. */
export const call: Client["call"] = async (...given) => {
  try {
    return await client().call(...given);
  } catch (error) {
    if (error instanceof CairnError && error.code === "permission" && error.details?.["signed_out"] === true) signOut();
    throw error;
  }
};

/** Downloads content by a link that works once. Shows the server's error if it refuses. */
export async function download(asked: Parameters<Client["ticket"]>[0]): Promise<void> {
  const found = await client()
    .ticket(asked)
    .catch((error: unknown) => tellOutcome({ text: "", problem: problemOf(error) }));
  if (found === undefined) return;
  const link = document.createElement("a");
  link.href = found.url;
  link.download = "";
  link.click();
}
