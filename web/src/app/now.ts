import { signal } from "@preact/signals";
import type { StatusResult } from "cairnstate/client";

/** The state of the folder whose timeline is shown, for the view beside the timeline. `status` null: it cannot be read. */
export const now = signal<{ workspace: string; status: StatusResult | null } | null>(null);
