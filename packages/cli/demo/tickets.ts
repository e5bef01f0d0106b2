import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

export interface Ticket {
  readonly id: string
  readonly prompt: string
}

export const path = fileURLToPath(new URL("../../../examples/tickets.jsonl", import.meta.url))

export const read = (): ReadonlyArray<Ticket> =>
  readFileSync(path, "utf8").trimEnd().split("\n").map((line): Ticket => JSON.parse(line))
