import { FILE_OPTIONS, FOLDER_OPTIONS } from "./words.ts";
import type { CommandWords, Completes, OptionWords } from "./words.ts";

const ACTIONS = {
  points: 'COMPREPLY=($(compgen -W "$(__cairn_points)" -- "$cur"))',
  files: "__cairn_paths -f",
  folders: "__cairn_paths -d",
  shells: 'COMPREPLY=($(compgen -W "bash zsh fish" -- "$cur"))',
  nothing: ":",
} as const;

function actionOf(completes: Completes, { verbs }: CommandWords): string {
  return completes === "verbs" ? `COMPREPLY=($(compgen -W "${verbs.join(" ")}" -- "$cur"))` : ACTIONS[completes];
}

export function bashScript(commands: readonly CommandWords[], globals: readonly OptionWords[]): string {
  const globalWords = globals.flatMap((option) => option.words);
  const valueWords = [...globals, ...commands.flatMap((command) => command.options)].filter(
    (option) => option.takesValue,
  );
  const withValue = [...new Set(valueWords.flatMap((option) => option.words))];
  const cases = commands.map((command) => {
    const options = [...command.options.flatMap((option) => option.words), ...globalWords].join(" ");
    const last = command.arguments.length - 1;
    const places = command.arguments.map(
      (completes, i) => `          ${i === last ? "*" : i}) ${actionOf(completes, command)} ;;`,
    );
    const byPlace = places.length === 0 ? "" : `        case $place in\n${places.join("\n")}\n        esac\n`;
    return `      ${command.name})\n        if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W "${options}" -- "$cur")); return; fi\n${byPlace}        ;;`;
  });
  return `# bash completion for cairn; made by \`cairn completion bash\`
__cairn_points() {
  cairn "\${chosen[@]}" __complete points 2>/dev/null | cut -f 1
}
__cairn_paths() {
  local found
  while IFS= read -r found; do COMPREPLY+=("$found"); done < <(compgen "$1" -- "$cur")
}
_cairn() {
  local cur=\${COMP_WORDS[COMP_CWORD]} word command= place=0 i
  local -a chosen=()
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case $word in
      -C|--directory) chosen=(-C "\${COMP_WORDS[i + 1]}"); ((i++)) ;;
      ${withValue.filter((word) => word !== "-C" && word !== "--directory").join("|")}) ((i++)) ;;
      -*) ;;
      *) if [[ -z $command ]]; then command=$word; else ((place++)); fi ;;
    esac
  done
  case \${COMP_WORDS[COMP_CWORD - 1]} in
    ${FOLDER_OPTIONS.join("|")}) ${ACTIONS.folders}; return ;;
    ${FILE_OPTIONS.join("|")}) ${ACTIONS.files}; return ;;
    ${withValue.filter((word) => !FOLDER_OPTIONS.includes(word) && !FILE_OPTIONS.includes(word)).join("|")}) return ;;
  esac
  case $command in
      "")
        if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W "${globalWords.join(" ")} --help --version" -- "$cur"))
        else COMPREPLY=($(compgen -W "${commands.map((command) => command.name).join(" ")} help" -- "$cur")); fi
        ;;
${cases.join("\n")}
  esac
}
complete -o filenames -F _cairn cairn
`;
}
