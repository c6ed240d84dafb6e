import type { CommandDefinition } from "../command.ts";
import { usage } from "../input.ts";

export const command: CommandDefinition = {
  name: "completion",
  arguments: [{ name: "<shell>", text: "bash, zsh or fish", completes: ["bash", "zsh", "fish"] }],
  examples: [
    { line: "source <(cairn completion bash)", text: "in ~/.bashrc" },
    { line: "cairn completion zsh > ~/.zfunc/_cairn", text: "in a folder of zsh's fpath" },
    { line: "cairn completion fish > ~/.config/fish/completions/cairn.fish", text: "for fish" },
  ],
  async run(context, input) {
    const shell = input.required(0);
    const { completionScript, SHELLS } = await import("./scripts.ts");
    const known = SHELLS.find((name) => name === shell);
    if (known === undefined) throw usage(`completion knows ${SHELLS.join(", ")}; found ${JSON.stringify(shell)}`);
    const script = await completionScript(known, context.commands);
    return { data: { shell: known, script }, text: () => script };
  },
};
