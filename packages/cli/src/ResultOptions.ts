import type { Values } from "./Flag.ts"
import * as Flag from "./Flag.ts"
import { defineCommand } from "./Command.ts"
import { run } from "./RunOptions.ts"

/** Flags that name files of a run or shape its requests. The results depend on them, so a retry takes those of the run. */
const {
  config: _config,
  force: _force,
  help: _help,
  includeInput: _includeInput,
  inputFormat: _inputFormat,
  limit: _limit,
  maxTokens: _maxTokens,
  model: _model,
  omit: _omit,
  onlyNew: _onlyNew,
  output: _output,
  promptTemplate: _promptTemplate,
  resume: _resume,
  retryFailed: _retryFailed,
  system: _system,
  systemFile: _systemFile,
  temperature: _temperature,
  ...retryFlags
} = run.flags

export const retry = defineCommand({
  name: "retry",
  summary: "Send the failed prompts of a run again.",
  usage: "retry RESULTS [flags]",
  about: [
    "Send again every prompt that failed or was not finished, and append to RESULTS. The input and the flags " +
    "of the run are read from RESULTS.run. Flags given here replace them. The key comes from the environment " +
    "or a file, as in `sluice run`."
  ],
  inputs: ["RESULTS"],
  flags: {
    input: Flag.many("input", {
      perRun: true,
      path: "file",
      argument: "FILE",
      about: "Read the prompts from FILE. Can be repeated. [default: the files of the run]",
      parse: Flag.text
    }),
    ...retryFlags
  },
  notes: [{ title: "Exit code", lines: ["As `sluice run`."] }]
})

export type RetryFlags = Values<typeof retry.flags>

export const status = defineCommand({
  name: "status",
  summary: "Print the progress of a run, also while it runs.",
  usage: "status RESULTS",
  about: [
    "Print how many lines of RESULTS are answered, failed, not finished and left, whether a run is active, and " +
    "the command that continues it. Change nothing."
  ],
  inputs: ["RESULTS"],
  flags: {},
  notes: [{
    title: "Exit code",
    lines: ["0    RESULTS was read", "2    RESULTS is missing or has lines of another kind"]
  }]
})

const exportFormats = ["csv", "openai"] as const

export const exportResults = defineCommand({
  name: "export",
  summary: "Write the results of a run as CSV or in OpenAI's format.",
  usage: "export RESULTS [flags]",
  about: [
    "Write the results of a run in another format, one per line of the input and in its order. The last answer " +
    "of a line counts. RESULTS does not change, so the run can continue."
  ],
  inputs: ["RESULTS"],
  flags: {
    format: Flag.withDefault<typeof exportFormats[number]>("format", "csv", {
      argument: "FORMAT",
      choices: exportFormats,
      about:
        "Write csv: the columns of the input, then those of the result. Or openai: the output file of OpenAI's Batch " +
        "API. [default: csv]",
      parse: Flag.oneOf(exportFormats)
    }),
    output: Flag.optional("output", {
      short: "o",
      path: "file",
      argument: "FILE",
      about: "Write to FILE. Fail if FILE exists. [default: standard output]",
      parse: Flag.text
    }),
    force: Flag.toggle("force", { about: "Replace FILE." })
  },
  notes: [{
    title: "Exit code",
    lines: [
      "0    the results were written",
      "2    RESULTS is missing or has lines of another kind, or FILE cannot",
      "     be written",
      "141  the reader of the output closed the pipe"
    ]
  }]
})

export type ExportFlags = Values<typeof exportResults.flags>

export const explain = defineCommand({
  name: "explain",
  summary: "Print what happened to one prompt of a run, step by step.",
  usage: "explain ID LOG",
  about: [
    "Print the record of the prompt with this id, or else on the line with this number: its attempts, their times and " +
    "outcomes, targets that were skipped and why, and the cost. LOG is the file of `sluice run --log`."
  ],
  inputs: ["ID", "LOG"],
  flags: {},
  notes: [
    {
      title: "Exit code",
      lines: ["0    the prompt was found", "1    the log has no such prompt", "2    the log is missing or unreadable"]
    }
  ]
})

export const config = defineCommand({
  name: "config",
  summary: "Print each setting of a run and where it comes from.",
  usage: "config [flags]",
  about: [
    "Print the settings that `sluice run` with these flags has, from flags, variables, sluice.json and defaults, in this " +
    "order. Keys are masked. Call no provider. All flags of `sluice run` are allowed."
  ],
  inputs: [],
  borrows: run,
  flags: {
    ...run.flags,
    json: Flag.toggle("json", { perRun: true, about: "Print JSON." })
  },
  notes: [
    {
      title: "sluice.json, in the working directory: flags of `sluice run`",
      lines: [
        `{`,
        `  "target": [`,
        `    "main=https://api.openai.com/v1#gpt-5-mini",`,
        `    { "name": "own", "url": "https://\${HOST}/v1", "model": "m" }`,
        `  ],`,
        `  "concurrency": 32, "timeout": "90s", "noStream": true`,
        `}`,
        "Paths are relative to the file. Keys are refused. ${NAME} in a URL is",
        "replaced by that variable. Flags of one run, such as --output, are",
        "refused. A flag overrides a switch of the file: --no-stream=false"
      ]
    },
    {
      title: "Variables",
      lines: [
        "SLUICE_ and the flag in capitals: SLUICE_MAX_TOKENS=500. A switch is",
        "true or false. Values of a repeated flag are one per line."
      ]
    },
    {
      title: "Exit code",
      lines: ["0    a run could start with these settings", "2    it could not; the message says why"]
    }
  ]
})
