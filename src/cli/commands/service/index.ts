import { group } from "../../command.ts";

export const command = group({
  name: "service",
  examples: [
    {
      line: "cairn service install",
      text: "make systemd run the daemon: as root for all users, otherwise for this user",
    },
    { line: "cairn service status", text: "show the daemon and the state of each workspace" },
  ],
  verbs: {
    install: {
      summary: "make systemd run the daemon, or a timer for saves and backups",
      load: () => import("./install.ts"),
    },
    uninstall: {
      summary: "stop the daemon or the timer, and remove its unit; state and points stay",
      load: async () => ({ command: (await import("./install.ts")).uninstall }),
    },
    status: {
      summary: "show the daemon and the state of each workspace",
      load: () => import("./status.ts"),
    },
    running: { summary: "show what the daemon does now", load: () => import("./running.ts") },
    cancel: {
      summary: "stop something that the daemon does now",
      load: async () => ({ command: (await import("./running.ts")).cancel }),
    },
    logs: { summary: "show what the daemon did, and for which user", load: () => import("./logs.ts") },
    reload: {
      summary: "make the daemon read its configuration again",
      load: async () => ({ command: (await import("./status.ts")).reload }),
    },
    token: { summary: "manage tokens for programs and agents", load: () => import("./token.ts") },
    unregister: {
      summary: "make the daemon stop serving a folder; its points stay",
      load: async () => ({ command: (await import("./folder.ts")).unregister }),
    },
    recover: {
      summary: "convert a workspace back into a plain folder",
      load: async () => ({ command: (await import("./folder.ts")).recover }),
    },
  },
});
