import { CairnError } from "cairnstate/client";
import { tellOutcome } from "./outcome.tsx";
import { problemOf } from "./resource.ts";
import { client, signOut } from "./session.ts";

/** Calls of the API from views, by the names and with the types of the contract. */

type Client = ReturnType<typeof client>;

/** One answer. A token that the server no longer accepts signs this tab out. */
export const call: Client["call"] = async (...given) => {
  try {
    return await client().call(...given);
  } catch (error) {
    if (error instanceof CairnError && error.code === "permission" && error.details?.["signed_out"] === true) signOut();
    throw error;
  }
};

/** Saves content by a link that gives it once. What the server says against it is shown. */
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
