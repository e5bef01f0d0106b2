import type * as CallRecord from "../run/CallRecord.ts"
import * as Terminal from "../Terminal.ts"
import * as Explain from "./Explain.ts"

/** Collects the records of `--explain`, for the end of the run. */
export class Explanations {
  private readonly searches: ReadonlyArray<Explain.Search>
  /** The records of prompts that made a call, by its id. Other prompts may share its answer. */
  private readonly leaders = new Map<string, CallRecord.CallRecord>()

  constructor(names: ReadonlyArray<string>) {
    this.searches = names.map((name) => new Explain.Search(name))
  }

  add(record: CallRecord.CallRecord): void {
    if (this.searches.length === 0) return
    if (record.how === "led" && record.call !== undefined) this.leaders.set(record.call, record)
    for (const search of this.searches) search.add(record)
  }

  render(): string {
    const columns = process.stdout.columns || 80
    return this.searches.map(({ found, name }) =>
      found.length === 0
        ? `${Terminal.clip(Terminal.escape(name), 60)}: no such prompt in this run\n`
        : Explain.renderAll(found, this.leaders, columns)
    ).join("\n")
  }
}
