/** Every command of the program, with its flags and its help. */
import { batch, migrate } from "./BatchOptions.ts"
import { defineCommand } from "./Command.ts"
import type { Values } from "./Flag.ts"
import * as Flag from "./Flag.ts"
import { circuits, quotas } from "./FleetOptions.ts"
import { config, explain, exportResults, retry, status } from "./ResultOptions.ts"
import { run } from "./RunOptions.ts"
import { keys, serve } from "./ServeOptions.ts"

export * from "./BatchOptions.ts"
export * from "./FleetOptions.ts"
export * from "./ResultOptions.ts"
export * from "./RunOptions.ts"
export * from "./ServeOptions.ts"

export const completions = defineCommand({
  name: "completions",
  summary: "Print a script that completes commands in a shell.",
  usage: "completions bash|zsh|fish",
  about: ["Print a script for SHELL that completes commands, flags, files and values at the Tab key."],
  inputs: ["SHELL"],
  flags: {},
  notes: [
    {
      title: "Where to put it",
      lines: [
        "bash  in ~/.bashrc: source <(sluice completions bash)",
        "zsh   in ~/.zshrc, after compinit: source <(sluice completions zsh)",
        "fish  sluice completions fish > ~/.config/fish/completions/sluice.fish"
      ]
    },
    { title: "Exit code", lines: ["0    printed", "2    no such shell"] }
  ]
})

export const provider = defineCommand({
  name: "provider",
  summary: "Start a local provider, to try sluice without a key.",
  usage: "provider [flags]",
  about: [
    "Serve OpenAI's chat completions and Anthropic's messages on 127.0.0.1 until Ctrl-C, with the faults of a " +
    "script. Answers come from rules for English letters, not from a language model. Begin the first line of a " +
    "prompt with Summarise:, Extract: or Keywords:."
  ],
  inputs: [],
  flags: {
    port: Flag.withDefault("port", 0, {
      argument: "N",
      about: "Listen on port N. [default: any free port]",
      parse: Flag.integer(0, 65_535)
    }),
    script: Flag.optional("script", {
      path: "file",
      argument: "FILE",
      about: "Inject the faults that the JSON in FILE describes. [default: no faults]",
      parse: Flag.text
    }),
    models: Flag.many("model", {
      argument: "NAME",
      about: "Serve this model and answer 404 for others. Can be repeated. [default: serve every name]",
      parse: Flag.text
    }),
    noKey: Flag.toggle("no-key", {
      about: "Require no key. [default: require a random one, so that no web page can use the provider]"
    })
  },
  notes: [
    {
      title: "Example script: rate limits for a tenth of the prompts, and an outage",
      lines: [
        `{ "seed": 7, "faults": { "rateLimit": 0.1 }, "retryAfterSeconds": 2,`,
        `  "outage": { "afterCalls": 100, "requests": 30,`,
        `              "atMostMillis": 20000 } }`,
        `faults (0 to 1): rateLimit, unavailable, reset, hang, slowStart, cut`
      ]
    },
    {
      title: "Exit code",
      lines: ["0    stopped by Ctrl-C or SIGTERM", "2    could not start"]
    }
  ]
})

export type ProviderFlags = Values<typeof provider.flags>

/** Every command, in the order of the help text. */
export const commands = [
  run,
  retry,
  status,
  exportResults,
  explain,
  serve,
  keys,
  circuits,
  quotas,
  batch,
  migrate,
  config,
  provider,
  completions
] as const
