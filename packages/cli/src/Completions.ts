/** Scripts for shells that complete commands, flags and values. The table of commands defines them. */
import * as Arguments from "./Arguments.ts"
import type { Flag, Flags } from "./Flag.ts"
import type { Command } from "./Command.ts"

export const shells = ["bash", "zsh", "fish"] as const

export type Shell = (typeof shells)[number]

type Commands = ReadonlyArray<Command<Flags>>

export const script = (shell: Shell, commands: Commands): string => scripts[shell](commands)

/** What completes a value: paths, folders, a list of words, or nothing. */
type Values = "file" | "folder" | "none" | ReadonlyArray<string>

const valuesOf = ({ choices, path }: Flag<unknown>): Values => choices ?? path ?? "none"

/** What completes a positional argument, by its name in the usage line. */
const inputValues = ({ actions = [] }: Command<Flags>, name: string): Values => {
  switch (name) {
    case "SHELL":
      return shells
    case "ACTION":
      return actions
    case "ID":
    case "[NAME]":
      return "none"
    default:
      return "file"
  }
}

const flagsOf = ({ flags }: Command<Flags>): ReadonlyArray<Flag<unknown>> => Object.values(flags)

const spellings = ({ name, short }: Flag<unknown>): ReadonlyArray<string> =>
  short === undefined ? [`--${name}`] : [`-${short}`, `--${name}`]

/** The first sentence of a help text. */
const brief = ({ about }: Flag<unknown>): string => (/^.*?[.:](?= |$)/.exec(about)?.[0] ?? about).slice(0, -1)

const programFlags = ["--help", "--version"]

// ---------- bash

const bash = (commands: Commands): string =>
  `# Completions of sluice for bash. Use: source <(sluice completions bash)
_sluice() {
  local current=\${COMP_WORDS[COMP_CWORD]} flag='' at=1 inputs=0 word
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W '${
    [...commands.map(({ name }) => name), "help", ...programFlags].join(" ")
  }' -- "$current"))
    return
  fi
  # bash splits --flag=value into three words.
  if [[ $current == '=' ]]; then
    flag=\${COMP_WORDS[COMP_CWORD-1]} current=''
  elif [[ \${COMP_WORDS[COMP_CWORD-1]} == '=' ]]; then
    flag=\${COMP_WORDS[COMP_CWORD-2]}
  else
    flag=\${COMP_WORDS[COMP_CWORD-1]}
  fi
  case "\${COMP_WORDS[1]}" in
${commands.map(bashCommand).join("")}    help) COMPREPLY=($(compgen -W '${
    commands.map(({ name }) => name).join(" ")
  }' -- "$current")) ;;
  esac
}
_sluice_paths() {
  local IFS=$'\\n'
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen "$1" -- "$2"))
}
complete -F _sluice sluice
`

const bashCommand = (command: Command<Flags>): string => {
  const flags = flagsOf(command)
  const taking = flags.filter(({ argument }) => argument !== undefined)
  const names = flags.flatMap(spellings).join(" ")
  return `    ${command.name})
      case "$flag" in
${
    taking.map((flag) => `        ${spellings(flag).join("|")}) ${bashValues(valuesOf(flag))}; return ;;\n`).join("")
  }      esac
      if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W '${names}' -- "$current"))
        return
      fi
      for ((at = 2; at < COMP_CWORD; at++)); do
        word=\${COMP_WORDS[at]}
        case "$word" in
          ${
    taking.length === 0
      ? ""
      : `${taking.flatMap(spellings).join("|")}) [[ \${COMP_WORDS[at+1]} == '=' ]] && ((at++)); ((at++)) ;;\n          `
  }=) ((at++)) ;;
          -?*) ;;
          *) ((inputs++)) ;;
        esac
      done
      case "$inputs" in
${
    command.inputs.map((name, index) =>
      `        ${Arguments.isRepeated(name) ? "*" : index}) ${bashValues(inputValues(command, name))} ;;\n`
    ).join("")
  }        *) COMPREPLY=($(compgen -W '${names}' -- "$current")) ;;
      esac ;;
`
}

const bashValues = (values: Values): string => {
  if (values === "file") return `_sluice_paths -f "$current"`
  if (values === "folder") return `_sluice_paths -d "$current"`
  return values === "none" ? ":" : `COMPREPLY=($(compgen -W '${values.join(" ")}' -- "$current"))`
}

// ---------- zsh

const zsh = (commands: Commands): string =>
  `#compdef sluice
# Completions of sluice for zsh. Use: source <(sluice completions zsh)
_sluice() {
  if ((CURRENT == 2)); then
    local -a commands=(
${commands.map(({ name, summary }) => `      ${quoted(`${name}:${summary.slice(0, -1)}`)}\n`).join("")}    )
    _describe command commands
    _arguments ${programFlags.map((flag) => quoted(flag)).join(" ")}
    return
  fi
  local command=$words[2]
  shift words
  ((CURRENT--))
  case $command in
${commands.map(zshCommand).join("")}    help) _values command ${commands.map(({ name }) => name).join(" ")} ;;
  esac
}
if [[ $funcstack[1] == _sluice ]]; then _sluice "$@"; else compdef _sluice sluice; fi
`

const zshCommand = (command: Command<Flags>): string =>
  `    ${command.name})
      _arguments -S \\
${
    [
      ...flagsOf(command).map((flag) => zshFlag(flag)),
      ...command.inputs.map((name, index) =>
        quoted(`${Arguments.isRepeated(name) ? "*" : index + 1}:${name}:${zshValues(inputValues(command, name))}`)
      )
    ].map((line) => `        ${line}`).join(" \\\n")
  } ;;
`

const zshFlag = (flag: Flag<unknown>): string => {
  const { argument, name, repeats, short } = flag
  const about = `[${brief(flag).replaceAll(/[[\]\\:]/g, "\\$&")}]`
  const value = argument === undefined ? "" : `:${argument.replaceAll(/[:\\]/g, "\\$&")}:${zshValues(valuesOf(flag))}`
  const long = `--${name}${argument === undefined ? "" : "="}`
  if (short === undefined) return quoted(`${repeats === true ? "*" : ""}${long}${about}${value}`)
  return `'(-${short} --${name})'{-${short}${argument === undefined ? "" : "+"},${long}}${quoted(about + value)}`
}

const zshValues = (values: Values): string => {
  if (values === "file") return "_files"
  if (values === "folder") return "_files -/"
  return values === "none" ? "( )" : `(${values.join(" ")})`
}

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

// ---------- fish

const fish = (commands: Commands): string =>
  `# Completions of sluice for fish. Use: sluice completions fish | source
complete -c sluice -f
${
    commands.map(({ name, summary }) =>
      `complete -c sluice -n __fish_use_subcommand -a ${name} -d ${fishQuoted(summary.slice(0, -1))}\n`
    ).join("")
  }complete -c sluice -n __fish_use_subcommand -l help -s h -d 'Print this help'
complete -c sluice -n __fish_use_subcommand -l version -d 'Print the version'
complete -c sluice -n '__fish_seen_subcommand_from help' -a '${commands.map(({ name }) => name).join(" ")}'
${commands.map(fishCommand).join("")}`

const fishCommand = (command: Command<Flags>): string => {
  const start = `complete -c sluice -n '__fish_seen_subcommand_from ${command.name}'`
  const inputs = command.inputs.map((name) => inputValues(command, name))
  const choices = inputs.find((values) => typeof values !== "string")
  return [
    ...(inputs.includes("file") ? [`${start} -F`] : []),
    ...(choices === undefined ? [] : [`${start} -a '${[...choices].join(" ")}'`]),
    ...flagsOf(command).map((flag) => {
      const short = flag.short === undefined ? "" : ` -s ${flag.short}`
      return `${start} -l ${flag.name}${short}${fishValues(flag)} -d ${fishQuoted(brief(flag))}`
    })
  ].map((line) => `${line}\n`).join("")
}

const fishValues = (flag: Flag<unknown>): string => {
  if (flag.argument === undefined) return ""
  const values = valuesOf(flag)
  if (values === "file") return " -r -F"
  if (values === "folder") return " -x -a '(__fish_complete_directories)'"
  return values === "none" ? " -x" : ` -x -a '${values.join(" ")}'`
}

const fishQuoted = (text: string): string => `'${text.replaceAll(/[\\']/g, "\\$&")}'`

const scripts: { readonly [_ in Shell]: (commands: Commands) => string } = { bash, zsh, fish }
