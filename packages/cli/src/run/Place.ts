/** The progress of a run: the state of every line of its input, in 13 bytes for each sample of a line. */

/** The state of a line by its results. `unsent`: it failed only because the run stopped. */
export type State = "new" | "ok" | "failed" | "unsent"

const states: ReadonlyArray<State> = ["new", "ok", "failed", "unsent"]
const stateBits = 3
/** Set once the line was read from the input. */
const seenBit = 4

/** Small pages, so that a file whose line numbers have gaps costs little. */
const pageLines = 4_096

/** More than there are samples of a line. Each number of a sample has pages of its own. */
const sampleStride = 2 ** 14

const pageNumber = (line: number, sample = 1): number => Math.floor(line / pageLines) * sampleStride + sample

type Sampled = { readonly line: number; readonly sample?: number | undefined }

interface Page {
  readonly states: Uint8Array
  /** The hash of the request, in halves. Both 0 if the result has none. */
  readonly high: Uint32Array
  readonly low: Uint32Array
  /** Hashes of the ids. 0 if the result has none. */
  readonly ids: Uint32Array
}

/** The fields of a result that resuming needs. */
export interface Entry {
  readonly line: number
  /** Counted from 1. */
  readonly sample: number
  /** The id as JSON, without quotes, one character for each byte. `undefined` if there is none. */
  readonly id: string | undefined
  readonly state: Exclude<State, "new">
  /** 16 hexadecimal digits. `undefined` if the line was no prompt. */
  readonly request: string | undefined
  /** In millionths of a dollar. */
  readonly cost: number
}

/** How a line of the input compares with its result. */
export type Comparison = "same" | "changed" | "other"

export class Place {
  private readonly pages = new Map<number, Page>()
  private readonly counts: { [_ in State]: number } = { new: 0, ok: 0, failed: 0, unsent: 0 }
  /** The highest line that has a result, and the highest sample. */
  lastLine = 0
  lastSample = 1

  /** Adds a result. The last one of a line counts, but an answer is never replaced by a failure. */
  add({ id, line, request, sample, state }: Entry): void {
    const page = this.pageOf(line, sample)
    const index = line % pageLines
    const before = this.stateAt(page, index)
    if (before === "ok" && state !== "ok") return
    if (before !== "new") this.counts[before]--
    this.counts[state]++
    if (line > this.lastLine) this.lastLine = line
    if (sample > this.lastSample) this.lastSample = sample
    page.states[index] = states.indexOf(state) | ((page.states[index] ?? 0) & seenBit)
    page.high[index] = request === undefined ? 0 : Number.parseInt(request.slice(0, 8), 16)
    page.low[index] = request === undefined ? 0 : Number.parseInt(request.slice(8), 16)
    page.ids[index] = id === undefined ? 0 : hashOf(id)
  }

  /** How many lines are in a state. */
  count(state: Exclude<State, "new">): number {
    return this.counts[state]
  }

  stateOf({ line, sample }: Sampled): State {
    const page = this.pages.get(pageNumber(line, sample))
    return page === undefined ? "new" : this.stateAt(page, line % pageLines)
  }

  /**
   * Compares a line that has a result. `changed`: it has the same id and another request. `other`: it has another id.
   * A line that was no prompt has no request to compare.
   */
  compare({ line, sample }: Sampled, id: string | undefined, request: string | undefined): Comparison {
    const page = this.pageOf(line, sample)
    const index = line % pageLines
    const high = page.high[index] ?? 0
    const low = page.low[index] ?? 0
    if (high === 0 && low === 0) return "same"
    if (page.ids[index] !== (id === undefined ? 0 : hashOf(jsonBytes(id)))) return "other"
    const isSame = request !== undefined && high === Number.parseInt(request.slice(0, 8), 16) &&
      low === Number.parseInt(request.slice(8), 16)
    return isSame ? "same" : "changed"
  }

  /** Records that the input has this line. */
  see({ line, sample }: Sampled): void {
    const page = this.pages.get(pageNumber(line, sample))
    if (page === undefined) return
    const index = line % pageLines
    page.states[index] = (page.states[index] ?? 0) | seenBit
  }

  /** The lines that have a result and were not seen in the input: the first, and how many. */
  get unseen(): { readonly first: number; readonly count: number } | undefined {
    let first = Number.POSITIVE_INFINITY
    let count = 0
    for (const [number, { states }] of this.pages) {
      for (let index = 0; index < pageLines; index++) {
        const bits = states[index] ?? 0
        if (bits === 0 || (bits & seenBit) !== 0) continue
        count++
        first = Math.min(first, Math.floor(number / sampleStride) * pageLines + index)
      }
    }
    return count === 0 ? undefined : { first, count }
  }

  private stateAt(page: Page, index: number): State {
    return states[(page.states[index] ?? 0) & stateBits] ?? "new"
  }

  private pageOf(line: number, sample: number | undefined): Page {
    const number = pageNumber(line, sample)
    const known = this.pages.get(number)
    if (known !== undefined) return known
    const page: Page = {
      states: new Uint8Array(pageLines),
      high: new Uint32Array(pageLines),
      low: new Uint32Array(pageLines),
      ids: new Uint32Array(pageLines)
    }
    this.pages.set(number, page)
    return page
  }
}

const plain = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/

/** The form of an id in the results: JSON without its quotes, one character for each byte. */
const jsonBytes = (id: string): string =>
  plain.test(id) ? id : Buffer.from(JSON.stringify(id).slice(1, -1)).toString("latin1")

/** An FNV-1a hash. Never 0, which means no id. */
const hashOf = (id: string): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < id.length; index++) hash = Math.imul(hash ^ id.charCodeAt(index), 0x01000193)
  return hash >>> 0 || 1
}
