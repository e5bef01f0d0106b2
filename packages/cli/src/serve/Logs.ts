/** The logs of the gateway on standard error: one line per request, and its own events. They have no prompt, no answer and no key. */
import * as Words from "../run/Words.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"

export type Level = "info" | "warn" | "error"

/** What a line says besides its event. `undefined` is left out. */
export interface Fields {
  readonly [field: string]: string | number | boolean | undefined
}

export class Logs {
  private readonly format: "text" | "json"
  private readonly write: (line: string) => void

  constructor(format: "text" | "json", write: (line: string) => void = (line) => void process.stderr.write(line)) {
    this.format = format
    this.write = write
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

  private line(level: Level, event: string, fields: Fields = {}): void {
    const time = new Date().toISOString()
    this.write(
      this.format === "json"
        ? `${Terminal.escapeJson(JSON.stringify({ time, level, event, ...fields }))}\n`
        : `${time.slice(11, 19)} ${level === "info" ? "" : `${level}: `}${event}${texts(fields)}\n`
    )
  }
}

const texts = (fields: Fields): string =>
  Object.entries(fields)
    .flatMap(([name, value]) => value === undefined ? [] : [`  ${name}=${textOf(name, value)}`])
    .join("")

const textOf = (name: string, value: string | number | boolean): string => {
  if (name.endsWith("Millis")) return Words.time(Number(value))
  return typeof value === "string" ? Terminal.escape(UrlSecrets.hide(value)) : String(value)
}
