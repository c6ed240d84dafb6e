import { group } from "../../command.ts";

export const command = group({
  name: "service",
  examples: [
    { line: "cairn service install", text: "have systemd run the daemon: as root for all users, else for this one" },
    { line: "cairn service status", text: "what the daemon serves, and how each workspace is" },
  ],
  verbs: {
    install: { summary: "have systemd run the daemon", load: () => import("./install.ts") },
    uninstall: {
      summary: "end the daemon and remove its unit; its state and all points stay",
      load: async () => ({ command: (await import("./install.ts")).uninstall }),
    },
    status: { summary: "what the daemon serves, and how each workspace is", load: () => import("./status.ts") },
    logs: { summary: "what the daemon did, and for whom", load: () => import("./logs.ts") },
    reload: {
      summary: "have the daemon read its configuration again",
      load: async () => ({ command: (await import("./status.ts")).reload }),
    },
    token: { summary: "tokens by which programs and agents call the daemon", load: () => import("./token.ts") },
    unregister: {
      summary: "have the daemon serve a folder no longer; its points stay",
      load: async () => ({ command: (await import("./folder.ts")).unregister }),
    },
    recover: {
      summary: "make a workspace a plain folder again",
      load: async () => ({ command: (await import("./folder.ts")).recover }),
    },
  },
});
