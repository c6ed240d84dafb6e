import { FILE_OPTIONS, FOLDER_OPTIONS } from "./words.ts";
import type { CommandWords, Completes, OptionWords } from "./words.ts";

const ACTIONS = {
  points: "__cairn_points",
  files: "_files",
  folders: "_files -/",
  shells: "(bash zsh fish)",
  nothing: " ",
} as const;

function actionOf(completes: Completes, { verbs }: CommandWords): string {
  return completes === "verbs" ? `(${verbs.join(" ")})` : ACTIONS[completes];
}

export function zshScript(commands: readonly CommandWords[], globals: readonly OptionWords[]): string {
  const globalSpecs = globals.flatMap(optionSpecs);
  const names = commands.map((command) => `    ${quote(`${command.name}:${escapeColon(command.text)}`)}`);
  const cases = commands.map((command) => {
    const last = command.arguments.length - 1;
    const places = command.arguments.map((completes, i) =>
      quote(`${i === last ? "*" : i + 1}:: :${actionOf(completes, command)}`),
    );
    const specs = [...command.options.flatMap(optionSpecs), ...globalSpecs, ...places];
    return `    ${command.name}) _arguments ${specs.join(" ")} ;;`;
  });
  return `#compdef cairn
# zsh completion for cairn; made by \`cairn completion zsh\`
__cairn_points() {
  local -a points
  local line
  __cairn_directory
  for line in "\${(@f)$(cairn "\${chosen[@]}" __complete points 2>/dev/null)}"; do
    [[ -n $line ]] && points+=("\${line%%$'\\t'*}:\${\${line#*$'\\t'}//:/\\\\:}")
  done
  _describe -V 'save point' points
}
__cairn_directory() {
  local given=\${opt_args[-C]:-\${opt_args[--directory]}}
  [[ -n $given ]] && chosen=(-C "\${(Q)given}")
}
_cairn() {
  local -a chosen
  local curcontext=$curcontext state line
  local -A opt_args
  local -a commands=(
${names.join("\n")}
  )
  _arguments -C ${globalSpecs.join(" ")} '1: :->command' '*:: :->rest'
  __cairn_directory
  case $state in
    command) _describe command commands ;;
    rest)
  case $line[1] in
${cases.join("\n")}
  esac
    ;;
  esac
}
if [ "$funcstack[1]" = "_cairn" ]; then _cairn "$@"; else compdef _cairn cairn; fi
`;
}

function optionSpecs(option: OptionWords): string[] {
  const text = option.text.replace(/[[\]]/g, "").replaceAll(":", "\\:");
  return option.words.map((word) => quote(`${word}[${text}]${option.takesValue ? `: :${valueAction(word)}` : ""}`));
}

function valueAction(word: string): string {
  if (FOLDER_OPTIONS.includes(word)) return "_files -/";
  return FILE_OPTIONS.includes(word) ? "_files" : " ";
}

function escapeColon(text: string): string {
  return text.replaceAll(":", "\\:");
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
