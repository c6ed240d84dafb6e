import { group } from "../../command.ts";

const life = async () => import("./life.ts");
const guest = async () => import("./guest.ts");
const look = async () => import("./look.ts");
const states = async () => import("./states.ts");

export const command = group({
  name: "vm",
  examples: [
    {
      line: "cairn vm run web --image debian.qcow2 --memory 1G --nic user",
      text: "create a machine from a disk image, and boot it",
    },
    { line: 'cairn vm save web -m "before the upgrade"', text: "save disks, memory and devices while it runs" },
    { line: "cairn vm clone web web-2", text: "create a second machine that continues from the saved state" },
    { line: "cairn vm restore web latest", text: "restore the last saved state" },
  ],
  verbs: {
    create: { summary: "create a machine", load: async () => ({ command: (await life()).create }) },
    run: { summary: "create a machine and boot it", load: async () => ({ command: (await life()).run }) },
    start: { summary: "boot a machine", load: async () => ({ command: (await life()).start }) },
    stop: { summary: "shut a machine down", load: async () => ({ command: (await life()).stop }) },
    list: { summary: "list the machines", load: async () => ({ command: (await life()).list }) },
    inspect: {
      summary: "show a machine's configuration and state",
      load: async () => ({ command: (await life()).inspect }),
    },
    set: { summary: "change a stopped machine's hardware", load: async () => ({ command: (await life()).set }) },
    history: { summary: "list a machine's saved states", load: async () => ({ command: (await look()).history }) },
    logs: { summary: "print a machine's console log", load: async () => ({ command: (await look()).logs }) },
    console: { summary: "connect to a machine's console", load: () => import("./console.ts") },
    ssh: { summary: "log in to a machine, or run a command in it", load: () => import("./ssh.ts") },
    exec: {
      summary: "run a command in a machine's guest, without a network",
      load: async () => ({ command: (await guest()).exec }),
    },
    cp: { summary: "copy a file into a guest, or from it", load: async () => ({ command: (await guest()).cp }) },
    rm: { summary: "remove a machine", load: async () => ({ command: (await life()).rm }) },
    save: { summary: "save a machine as a save point", load: async () => ({ command: (await states()).save }) },
    hibernate: {
      summary: "save a machine and stop it; `vm start` continues from there",
      load: async () => ({ command: (await states()).hibernate }),
    },
    export: {
      summary: "write a saved state as a directory to copy anywhere",
      load: async () => ({ command: (await states()).exportState }),
    },
    import: {
      summary: "create a machine from a tar of an export",
      load: async () => ({ command: (await import("./streams.ts")).importStream }),
    },
    clone: { summary: "create a machine from a saved state", load: async () => ({ command: (await states()).clone }) },
    restore: {
      summary: "restore a machine to a saved state",
      load: async () => ({ command: (await states()).restore }),
    },
  },
});
