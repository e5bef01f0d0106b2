/**
 * The logs of the gateway on standard error, and by OTLP if it is set up: one line per request, and its own events. They have no
 * prompt, no answer and no key.
 */
import type * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Words from "../run/Words.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"

export type Level = "info" | "warn" | "error"

/** What a line says besides its event. `undefined` is left out. */
export interface Fields {
  readonly [field: string]: string | number | boolean | undefined
}

/** Where lines go. */
export interface Outputs {
  /** Default: standard error. */
  readonly write?: ((lines: string) => void) | undefined
  /** Gets each line too. */
  readonly send?: ((level: Level, event: string, fields: Fields) => void) | undefined
}

export class Logs {
  private readonly format: "text" | "json"
  private readonly outputs: Outputs
  /** The lines of this turn. They are written together, since each write is a call of the system. */
  private lines = ""

  constructor(format: "text" | "json", outputs: Outputs = {}) {
    this.format = format
    this.outputs = outputs
  }

  info(event: string, fields?: Fields): void {
    this.line("info", event, fields)
  }

  warn(event: string, fields?: Fields): void {
    this.line("warn", event, fields)
  }

  error(event: string, fields?: Fields): void {
    this.line("error", event, fields)
  }

  /** Writes the lines of this turn now. */
  flush(): void {
    const { lines, outputs: { write = toStderr } } = this
    this.lines = ""
    if (lines !== "") write(lines)
  }

  private line(level: Level, event: string, fields: Fields = {}): void {
    this.outputs.send?.(level, event, fields)
    if (this.lines === "") setImmediate(() => this.flush())
    const time = new Date().toISOString()
    this.lines += this.format === "json"
      ? `${escaped(JSON.stringify({ time, level, event, ...fields }))}\n`
      : `${time.slice(11, 19)} ${level === "info" ? "" : `${level}: `}${event}${texts(fields)}\n`
  }
}

const toStderr = (lines: string): void => void process.stderr.write(lines)

/** Most lines have nothing to escape, which is found out faster. */
const escaped = (line: string): string => /^[\x20-\x7e]*$/.test(line) ? line : Terminal.escapeJson(line)

/**
 * Writes what the front logs by Effect as lines of this log: the texts and the annotations. A cause is left out, since it could quote
 * a request.
 */
export const layer = (logs: Logs): Layer.Layer<never> =>
  Logger.layer([
    Logger.make(({ fiber, logLevel, message }) => {
      const parts: ReadonlyArray<unknown> = Array.isArray(message) ? message : [message]
      const text = parts.filter((part) => typeof part === "string").join(" ")
      const annotations = Object.entries(fiber.getRef(References.CurrentLogAnnotations))
      const fields = Object.fromEntries(annotations.map(([name, value]) => [name, String(value)]))
      if (logLevel === "Error" || logLevel === "Fatal") logs.error(text, fields)
      else if (logLevel === "Warn") logs.warn(text, fields)
      else logs.info(text, fields)
    })
  ])

const texts = (fields: Fields): string =>
  Object.entries(fields)
    .flatMap(([name, value]) => value === undefined ? [] : [`  ${name}=${textOf(name, value)}`])
    .join("")

const textOf = (name: string, value: string | number | boolean): string => {
  if (name.endsWith("Millis")) return Words.time(Number(value))
  return typeof value === "string" ? Terminal.escape(UrlSecrets.hide(value)) : String(value)
}
