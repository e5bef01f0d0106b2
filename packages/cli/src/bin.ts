#!/usr/bin/env node
/**
 * The `sluice` command.
 *
 * Imports Effect only after the arguments are parsed, so that help and usage errors print fast.
 */
import { readFileSync } from "node:fs"
import * as Arguments from "./Arguments.ts"
import * as ExitCode from "./ExitCode.ts"
import type { Flags } from "./Flag.ts"
import * as Help from "./Help.ts"
import * as Nearest from "./Nearest.ts"
import * as NodeVersion from "./NodeVersion.ts"
import type { Command } from "./Command.ts"
import * as Options from "./options.ts"
import * as Say from "./Say.ts"
import type { Given } from "./Shell.ts"
import * as Terminal from "./Terminal.ts"
import * as UrlSecrets from "./UrlSecrets.ts"

/** The `engines` of the package. */
const oldestNode = "22.21.0"

const main = async (args: ReadonlyArray<string>): Promise<number> => {
  const [name, ...rest] = args
  // Otherwise an older version ends with the trace of a module that it does not have.
  const oldNode = NodeVersion.problemOf(process.versions.node, oldestNode)
  if (oldNode !== undefined) {
    Say.error("sluice", oldNode)
    return ExitCode.unusable
  }
  switch (name) {
    case undefined:
      return usageError("no command given", "see sluice --help")
    case "--version":
      return print(`${version()}\n`)
    case "--help":
    case "-h":
    case "help":
      return printHelp(rest[0])
    case "run": {
      const parsed = read(Options.run, rest)
      if (typeof parsed === "number") return parsed
      return startRun(parsed.given, parsed.inputs)
    }
    case "retry": {
      const parsed = read(Options.retry, rest)
      if (typeof parsed === "number") return parsed
      const Heap = await import("./Heap.ts")
      Heap.keepSmall()
      const { execute } = await import("./command/RetryCommand.ts")
      return execute(parsed.inputs[0] ?? "", parsed.values, parsed.given)
    }
    case "status": {
      const parsed = read(Options.status, rest)
      if (typeof parsed === "number") return parsed
      const { execute } = await import("./run/StatusCommand.ts")
      return execute(parsed.inputs[0] ?? "")
    }
    case "export": {
      const parsed = read(Options.exportResults, rest)
      if (typeof parsed === "number") return parsed
      const { execute } = await import("./export/ExportCommand.ts")
      return execute(parsed.inputs[0] ?? "", parsed.values)
    }
    case "explain": {
      const parsed = read(Options.explain, rest)
      if (typeof parsed === "number") return parsed
      const { execute } = await import("./explain/ExplainCommand.ts")
      return execute(parsed.inputs[0] ?? "", parsed.inputs[1] ?? "")
    }
    case "config": {
      const parsed = read(Options.config, rest)
      if (typeof parsed === "number") return parsed
      const { execute } = await import("./config/ConfigCommand.ts")
      return execute(parsed.given, parsed.values.json)
    }
    case "serve": {
      const parsed = read(Options.serve, rest)
      if (typeof parsed === "number") return parsed
      const { execute } = await import("./serve/ServeCommand.ts")
      return execute(parsed.given)
    }
    case "keys": {
      const parsed = read(Options.keys, rest)
      if (typeof parsed === "number") return parsed
      const { execute } = await import("./serve/KeysCommand.ts")
      return execute(parsed.inputs[0] ?? "", parsed.inputs[1], parsed.values, parsed.given)
    }
    case "circuits": {
      const parsed = read(Options.circuits, rest)
      if (typeof parsed === "number") return parsed
      const { execute } = await import("./fleet/CircuitsCommand.ts")
      return execute(parsed.inputs[0] ?? "", parsed.inputs[1], parsed.values, parsed.given)
    }
    case "quotas": {
      const parsed = read(Options.quotas, rest)
      if (typeof parsed === "number") return parsed
      const { execute } = await import("./fleet/QuotasCommand.ts")
      return execute(parsed.inputs[0] ?? "", parsed.inputs.slice(1), parsed.values, parsed.given)
    }
    case "batch": {
      const parsed = read(Options.batch, rest)
      if (typeof parsed === "number") return parsed
      const { execute } = await import("./batch/BatchCommand.ts")
      return execute(parsed.inputs[0] ?? "", parsed.inputs.slice(1), parsed.given)
    }
    case "migrate": {
      const parsed = read(Options.migrate, rest)
      if (typeof parsed === "number") return parsed
      const { execute } = await import("./batch/MigrateCommand.ts")
      return execute(parsed.inputs[0] ?? "")
    }
    case "completions": {
      const parsed = read(Options.completions, rest)
      if (typeof parsed === "number") return parsed
      const Completions = await import("./Completions.ts")
      const shell = Completions.shells.find((shell) => shell === parsed.inputs[0])
      return shell === undefined
        ? usageError(`SHELL must be one of ${Completions.shells.join(", ")}`, "see sluice completions --help")
        : print(Completions.script(shell, Options.commands))
    }
    case "provider": {
      const parsed = read(Options.provider, rest)
      if (typeof parsed === "number") return parsed
      const { execute } = await import("./provider/ProviderCommand.ts")
      return execute(parsed.values)
    }
    default:
      return unknownCommand(name)
  }
}

/** Completes the flags of `run` by variables and `sluice.json`, and starts it. */
const startRun = async (own: Given, inputs: ReadonlyArray<string>): Promise<number> => {
  const Sources = await import("./Sources.ts")
  const sources = Sources.read(Options.run.flags, own, Sources.here())
  if (sources._tag === "Wrong") return usageError(sources.message, "see sluice config --help")
  const parsed = Arguments.readAll(Options.run.flags, sources.given, inputs)
  if (parsed._tag !== "Parsed") {
    return usageError(parsed._tag === "Wrong" ? parsed.message : "", "see sluice run --help")
  }
  const { given, inputs: paths, values: flags } = parsed
  const { file } = sources
  if (file !== undefined && file.used > 0 && !flags.quiet) Say.note(Sources.noteOf(file))
  const Heap = await import("./Heap.ts")
  Heap.keepSmall()
  const { execute } = await import("./command/RunCommand.ts")
  return execute({ command: "run", paths, flags, given, own })
}

/** Parses the arguments. Prints the help or a usage error and returns the exit code if there is nothing to run. */
const read = <F extends Flags>(command: Command<F>, args: ReadonlyArray<string>) => {
  const parsed = Arguments.parse(command, args)
  switch (parsed._tag) {
    case "Help":
      return print(Help.ofCommand(command, args))
    case "Wrong":
      return usageError(parsed.message, `see sluice ${command.name} --help`)
    case "Parsed":
      return parsed
  }
}

const printHelp = (name: string | undefined): number => {
  if (name === undefined) return print(Help.ofProgram(Options.commands))
  const command = Options.commands.find((command) => command.name === name)
  return command === undefined ? unknownCommand(name) : print(Help.ofCommand(command))
}

const unknownCommand = (name: string): number => {
  const nearest = Nearest.find(name, Options.commands.map((command) => command.name))
  const suggestion = nearest === undefined ? "" : `; did you mean ${nearest}?`
  return usageError(
    `unknown command ${Terminal.clip(UrlSecrets.hideInArgument(name), 40)}${suggestion}`,
    "see sluice --help"
  )
}

const print = (text: string): number => {
  process.stdout.write(text)
  return ExitCode.ok
}

const usageError = (problem: string, hint: string): number => {
  Say.error("sluice", `${problem} (${hint})`)
  return ExitCode.unusable
}

const version = (): string => {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"))
  return typeof manifest === "object" && manifest !== null && "version" in manifest
    ? String(manifest.version)
    : "unknown"
}

// Without a listener the error of a closed pipe ends the process, also if the pipe only took the progress. A write of results
// reports its error to its callback as well.
for (const output of [process.stdout, process.stderr]) output.on("error", () => {})

// process.exit would drop output that a pipe has not taken yet.
process.exitCode = await main(process.argv.slice(2))
