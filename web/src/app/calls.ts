import { CairnError } from "cairnstate/client";
import { signOut, client } from "./session.ts";

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

/** A link that gives content once. Opened at once, since it is good for a minute. */
export async function download(asked: Parameters<Client["ticket"]>[0]): Promise<void> {
  const { url } = await client().ticket(asked);
  const link = document.createElement("a");
  link.href = url;
  link.download = "";
  link.click();
}
